mod sound;

use std::collections::{BTreeMap, BTreeSet};

use super::super::polarity_mark;
use super::super::{Answer, Draft, GateKind, Make};
use super::sentences::{content, is_foreign, sentences};
use super::*;
use crate::raw::Split;
use crate::record::{Meta, Opinion, Question, Record, Span, Topic};
use crate::shingle::shared;

const SEEDS: u64 = 100;

/// Aspect, opinion, category, `+`, `-` or `0`; an empty word is implied.
type Told = (&'static str, &'static str, &'static str, char);

fn polarity_of(sign: char) -> Polarity {
    match sign {
        '+' => Polarity::Positive,
        '-' => Polarity::Negative,
        _ => Polarity::Neutral,
    }
}

fn review(lang: Lang, n: usize, text: &str, stars: u8, told: &[Told]) -> Review {
    let find = |words: &str| (!words.is_empty()).then(|| Span::find(text, words).expect(words));
    let opinions: Vec<Opinion> = told
        .iter()
        .map(|t| Opinion {
            aspect: find(t.0),
            opinion: find(t.1),
            category: Some(t.2.into()),
            polarity: polarity_of(t.3),
        })
        .collect();
    let mut topics: BTreeMap<&str, BTreeSet<char>> = BTreeMap::new();
    for t in told {
        topics.entry(t.2).or_default().insert(t.3);
    }
    let single = topics.into_iter().filter(|t| t.1.len() == 1);
    Review {
        meta: Meta { raw_id: format!("made/{n}"), group: format!("product {}", n / 2), lang },
        text: text.into(),
        stars: Some(stars),
        polarity: Some(polarity_of(['-', '-', '0', '+', '+'][usize::from(stars) - 1])),
        helpful: Some(if n.is_multiple_of(2) { 5 } else { 0 }),
        topics: single
            .map(|(name, signs)| Topic { name: name.into(), polarity: polarity_of(*signs.first().unwrap()) })
            .collect(),
        opinions,
        opinions_complete: true,
        ..Review::default()
    }
}

fn ask(review: &mut Review, text: &str, span: &str, answerable: bool) {
    let span = (!span.is_empty()).then(|| Span::find(&review.text, span).expect(span));
    let question = Question { text: text.into(), span, answerable: Some(answerable), ..Question::default() };
    review.questions.push(Question { subjective: Some(text.contains("good")), ..question });
}

fn english() -> Block {
    let rows: &[(&str, u8, &str, &[Told])] = &[
        (
            "The arm is sturdy, but the switch feels flimsy. The cord is far too short for my desk. \
             I moved it to the shelf in the hall.",
            2,
            "Flimsy switch ruins it",
            &[
                ("arm", "sturdy", "lamp build", '+'),
                ("switch", "flimsy", "switch quality", '-'),
                ("cord", "too short", "cord length", '-'),
            ],
        ),
        (
            "Warm light and a solid base. The battery lasts nine hours on one charge. \
             We take it along when we camp near the lake.",
            5,
            "Camping light hero",
            &[
                ("light", "Warm", "light quality", '+'),
                ("base", "solid", "lamp build", '+'),
                ("", "", "battery life", '+'),
            ],
        ),
        ("Solid base.", 4, "Sturdy base here", &[("base", "Solid", "lamp build", '+')]),
        (
            "It arrived late and the shade was dented.",
            1,
            "Dented shade, late",
            &[("shade", "dented", "shade quality", '-'), ("", "late", "delivery", '-')],
        ),
        (
            "The shade is pretty. The shade also turns yellow. It is a lamp for a small room, a hall or \
             a shelf in the kitchen at home.",
            3,
            "Yellow shade after weeks",
            &[("shade", "pretty", "shade looks", '+'), ("shade", "yellow", "shade quality", '-')],
        ),
        (
            "We got two of them for the hall and keep them on every single evening, \
             what else could one say about it today?",
            5,
            "Hall evenings made warm",
            &[("", "", "light quality", '+')],
        ),
        ("Nothing but trouble, the plug broke.", 1, "Broken plug on arrival", &[("plug", "broke", "cord length", '-')]),
        (
            "Bright, cheap, the dimmer is smooth.",
            5,
            "Smooth dimmer wins",
            &[("dimmer", "smooth", "dimmer quality", '+'), ("", "cheap", "price", '+')],
        ),
        (
            "Neat, light, the hinge is strong.",
            5,
            "Strong hinge for readers",
            &[("hinge", "strong", "hinge quality", '+'), ("", "Neat", "shade looks", '+')],
        ),
        (
            "Quick, safe, the foot is heavy.",
            5,
            "Heavy foot stands firm",
            &[("foot", "heavy", "lamp build", '+'), ("", "Quick", "delivery", '+')],
        ),
        ("The bulb is average.", 3, "Average bulb inside", &[("bulb", "average", "light quality", '0')]),
        (
            "Plain sockets, the clamp is loose. The clamp and the sockets do their job in the \
             office and the hall, day in and day out.",
            2,
            "Loose clamp again",
            &[("sockets", "Plain", "lamp build", '0'), ("clamp", "loose", "clamp quality", '-')],
        ),
    ];
    let mut block = Block::new("made", Split::Train, Lang::En);
    for (n, (text, stars, headline, told)) in rows.iter().enumerate() {
        let mut review = review(Lang::En, n, text, *stars, told);
        review.headline = Some((*headline).into());
        match n {
            0 => {
                ask(&mut review, "How long is the cord really?", "cord is far too short", true);
                ask(&mut review, "Does the arm hold?", "The arm is sturdy", true);
            }
            1 => {
                ask(&mut review, "How long does the battery last?", "The battery lasts nine hours", true);
                ask(&mut review, "Is the shade good?", "", false);
            }
            2 => ask(&mut review, "How long is the cord really?", "", false),
            3 => ask(&mut review, "Why was the parcel dented?", "", false),
            4 => ask(&mut review, "What can the lamp stand on?", "a hall or a shelf in the kitchen", true),
            11 => ask(&mut review, "Is the clamp good?", "the clamp is loose", true),
            _ => {}
        }
        block.push(Record::Review(review));
    }
    block
}

fn chinese() -> Block {
    let rows: &[(&str, u8, &str, &[Told])] = &[
        (
            "灯臂很结实，但是开关太松。电线有点短，够不到书桌。我把它放在走廊的架子上了，晚上看书用。",
            2,
            "开关太松了",
            &[("灯臂", "结实", "做工", '+'), ("开关", "太松", "开关", '-'), ("电线", "有点短", "电线", '-')],
        ),
        (
            "灯光柔和，底座稳。电池充一次可以用九个小时。我们去湖边露营的时候总会带上它。",
            5,
            "露营好帮手",
            &[("灯光", "柔和", "灯光", '+'), ("底座", "稳", "做工", '+'), ("", "", "电池", '+')],
        ),
        ("底座稳。", 4, "底座真稳", &[("底座", "稳", "做工", '+')]),
        ("送货慢，灯罩也凹了。", 1, "灯罩凹了", &[("灯罩", "凹了", "灯罩", '-'), ("", "慢", "物流", '-')]),
        (
            "灯罩漂亮，放在走廊、厨房或者卧室都合适，家里人每天晚上都开着它看书聊天，孩子写作业时也离不开这盏小小的台灯。",
            3,
            "走廊厨房都能放",
            &[("灯罩", "漂亮", "灯罩", '+')],
        ),
        ("买了两个放走廊，每天晚上都开。", 5, "走廊亮起来", &[("", "", "灯光", '+')]),
        ("插头坏了，真麻烦。", 1, "插头坏了", &[("插头", "坏了", "电线", '-')]),
        ("亮，便宜，调光顺滑。", 5, "调光顺滑", &[("调光", "顺滑", "灯光", '+'), ("", "便宜", "价格", '+')]),
        ("轻巧，铰链牢固。", 5, "铰链牢固", &[("铰链", "牢固", "做工", '+'), ("", "轻巧", "外观", '+')]),
        ("灯脚很重，站得住。", 5, "灯脚很重", &[("灯脚", "很重", "做工", '+'), ("", "站得住", "做工", '+')]),
        ("灯泡一般。", 3, "灯泡一般", &[("灯泡", "一般", "灯光", '0')]),
        ("夹子松，插座普通。", 2, "夹子太松", &[("夹子", "松", "做工", '-'), ("插座", "普通", "电线", '0')]),
    ];
    let mut block = Block::new("made", Split::Train, Lang::Zh);
    for (n, (text, stars, headline, told)) in rows.iter().enumerate() {
        let mut review = review(Lang::Zh, n, text, *stars, told);
        review.headline = Some((*headline).into());
        match n {
            0 => ask(&mut review, "电线够长吗？", "电线有点短", true),
            1 => ask(&mut review, "电池可以用多久？", "电池充一次可以用九个小时", true),
            3 => ask(&mut review, "灯罩是什么颜色的？", "", false),
            _ => {}
        }
        block.push(Record::Review(review));
    }
    block
}

/// All drafts of a task: number of the review, draft.
fn drafts(block: &Block, id: &str) -> Vec<(usize, Draft)> {
    let task = TASKS.iter().find(|t| t.id == id).unwrap();
    let Make::From(make) = task.draft else { panic!("{id} has no drafts") };
    let all = (0..SEEDS).flat_map(|seed| (0..=block.reviews.len()).map(move |at| (seed, at)));
    all.filter_map(|(seed, at)| Some((at, make(block, at, &mut SplitMix::stream(seed, at as u64))?))).collect()
}

fn input(draft: &Draft) -> String {
    draft.input.iter().map(|p| p.1.as_str()).collect::<Vec<_>>().join("\n")
}

fn spans(draft: &Draft) -> &[String] {
    match &draft.answer {
        Answer::Spans(spans) => spans,
        other => panic!("{other:?} is not spans"),
    }
}

fn yes(draft: &Draft) -> bool {
    match draft.answer {
        Answer::Nth(0) => true,
        Answer::Nth(1) => false,
        ref other => panic!("{other:?} is not yes or no"),
    }
}

fn fill<'a>(draft: &'a Draft, name: &str) -> &'a str {
    &draft.fills.iter().find(|f| f.0 == name).unwrap().1
}

fn check_laws(id: &str, block: &Block, at: usize, draft: &Draft) {
    let context = format!("{id} {draft:?}");
    let numbered = draft.input.iter().any(|p| p.0 == "option");
    for (_, text) in draft.fills.iter().chain(&draft.input) {
        assert!(!text.trim().is_empty(), "{context}");
    }
    assert!(draft.fills.iter().all(|f| !f.1.contains(['{', '}'])), "{context}");
    assert!(length(&input(draft)) <= limit(block.lang) + 3, "{context}");
    let distinct: BTreeSet<&String> = draft.candidates.iter().collect();
    assert_eq!(distinct.len(), draft.candidates.len(), "{context}");
    assert_ne!(draft.candidates.len(), 1, "{context}");
    match &draft.answer {
        Answer::Nth(n) | Answer::NthOfThree(n) => assert!(*n < 7 && draft.candidates.is_empty(), "{context}"),
        Answer::Labels(labels) => assert!(labels.iter().all(|l| draft.candidates.contains(l)), "{context}"),
        Answer::Spans(spans) => {
            let once: BTreeSet<&String> = spans.iter().collect();
            assert_eq!(once.len(), spans.len(), "{context}");
            for span in spans {
                let options = draft.input.iter().filter(|p| p.0 == "option").count();
                let number = numbered && span.parse::<usize>().is_ok_and(|n| (1..=options).contains(&n));
                assert!(number || input(draft).contains(span) || draft.candidates.contains(span), "{context}");
            }
        }
        Answer::Entities(entities) => {
            let allowed = |k: &String| draft.candidates.is_empty() || draft.candidates.contains(k);
            assert!(!entities.is_empty() && entities.iter().all(|e| allowed(&e.kind)), "{context}");
        }
        Answer::Text(text) => assert!(!text.trim().is_empty(), "{context}"),
    }
    let own = &block.reviews[at].meta.raw_id;
    assert!(draft.others.iter().all(|o| o != own && block.reviews.iter().any(|r| r.meta.raw_id == *o)), "{context}");
}

#[test]
fn every_task_makes_lawful_drafts_in_both_languages() {
    for block in [english(), chinese()] {
        for task in TASKS {
            let drafts = drafts(&block, task.id);
            // No Chinese source asks enough like questions about three passages of different products.
            let rare = block.lang == Lang::Zh && matches!(task.id, "F23" | "A47");
            assert!(rare || !drafts.is_empty(), "{} {:?}", task.id, block.lang);
            for (at, draft) in &drafts {
                check_laws(task.id, &block, *at, draft);
            }
            let again = self::drafts(&block, task.id);
            assert_eq!(drafts, again);
        }
    }
}

#[test]
fn binary_tasks_draw_both_answers() {
    let block = english();
    for id in ["F20", "F22", "F23", "A33", "A44", "A45", "A65"] {
        let drafts = drafts(&block, id);
        let share = 100 * drafts.iter().filter(|d| yes(&d.1)).count() / drafts.len();
        assert!((20..=80).contains(&share), "{id}: {share} % yes");
    }
}

#[test]
fn none_is_an_answer_now_and_then() {
    let mut implied = english();
    for n in 20..28 {
        let text = format!("Cheap for what it does, number {n}.");
        implied.push(Record::Review(review(Lang::En, n, &text, 4, &[("", "Cheap", "price", '+')])));
    }
    for (id, block) in [("F15", implied), ("A37", english()), ("A37", chinese())] {
        let drafts = drafts(&block, id);
        let share = 100 * drafts.iter().filter(|d| spans(&d.1).is_empty()).count() / drafts.len();
        assert!((5..=45).contains(&share), "{id}: {share} % none");
    }
}

#[test]
fn tasks_are_those_of_the_list() {
    let ids: Vec<&str> = TASKS.iter().map(|t| t.id).collect();
    let mut wanted: Vec<String> = (12..=23).map(|n| format!("F{n}")).collect();
    wanted.extend((33..=47).chain([65]).map(|n| format!("A{n}")));
    assert_eq!(ids, wanted);
    let twins: Vec<&str> = TASKS.iter().filter(|t| t.twin).map(|t| t.id).collect();
    assert_eq!(twins, ["F14", "F19"]);
    let gated: Vec<_> = TASKS.iter().filter_map(|t| Some((t.id, t.gate?))).collect();
    let wanted =
        [("A38", GateKind::Select), ("A45", GateKind::Match), ("A47", GateKind::Select), ("A65", GateKind::Match)];
    assert_eq!(gated, wanted);
    assert!(TASKS.iter().all(|t| t.parents.is_empty() == t.id.starts_with('F')));
}

#[test]
fn polarity_has_a_third_label_where_the_block_has_it() {
    assert!(drafts(&english(), "F12").iter().all(|d| matches!(d.1.answer, Answer::NthOfThree(_))));
    let mut block = english();
    block.reviews.retain(|r| r.polarity != Some(Polarity::Neutral));
    assert!(drafts(&block, "F12").iter().all(|d| matches!(d.1.answer, Answer::Nth(0 | 1))));
    for (at, draft) in drafts(&block, "F13") {
        assert_eq!(draft.answer, Answer::Nth(usize::from(block.reviews[at].stars.unwrap()) - 1));
    }
}

#[test]
fn topics_that_are_not_touched_are_never_gold() {
    let block = english();
    for (at, draft) in drafts(&block, "F14") {
        let touched: BTreeSet<&str> = block.reviews[at].opinions.iter().filter_map(|o| o.category.as_deref()).collect();
        let gold: BTreeSet<&str> =
            draft.candidates.iter().map(String::as_str).filter(|c| touched.contains(c)).collect();
        let Answer::Labels(labels) = &draft.answer else { panic!("labels") };
        assert_eq!(labels.iter().map(String::as_str).collect::<BTreeSet<_>>(), gold);
        assert_eq!(gold, touched);
        let thing = |topic: &str| topic.split(' ').next().unwrap().to_owned();
        let things: BTreeSet<String> = gold.iter().map(|t| thing(t)).collect();
        assert!(draft.candidates.iter().all(|c| gold.contains(c.as_str()) || !things.contains(&thing(c))), "{draft:?}");
    }
    for (at, draft) in drafts(&block, "A33") {
        let touched = block.reviews[at].opinions.iter().any(|o| o.category.as_deref() == Some(fill(&draft, "topic")));
        assert_eq!(touched, yes(&draft), "{draft:?}");
    }
}

#[test]
fn a_topic_judged_both_ways_is_not_asked_for() {
    let mut block = english();
    let both = review(
        Lang::En,
        99,
        "The cord is long and the cord is ugly, the arm bends.",
        3,
        &[
            ("cord", "long", "cord length", '+'),
            ("cord", "ugly", "cord length", '-'),
            ("arm", "bends", "lamp build", '+'),
        ],
    );
    let at = block.reviews.len();
    block.push(Record::Review(both));
    for (_, draft) in drafts(&block, "F18").into_iter().filter(|d| d.0 == at) {
        assert!(!draft.candidates.contains(&"cord length".to_owned()), "{draft:?}");
    }
    // The aspect "cord" has no single polarity, and F16 must not ask for it.
    assert!(drafts(&block, "F16").iter().filter(|d| d.0 == at).all(|d| fill(&d.1, "aspect") == "arm"));
    // Nor may it be listed as praised or blamed.
    assert!(drafts(&block, "A37").iter().filter(|d| d.0 == at).all(|d| spans(&d.1).is_empty()));
}

#[test]
fn triples_need_both_sides_and_no_marks_of_the_form() {
    let block = english();
    let first = drafts(&block, "F17").into_iter().find(|d| d.0 == 0).unwrap().1;
    let Answer::Entities(found) = &first.answer else { panic!("entities") };
    let lines: Vec<(&str, &str)> = found.iter().map(|e| (e.kind.as_str(), e.text.as_str())).collect();
    let (good, bad) = (polarity_mark(Polarity::Positive), polarity_mark(Polarity::Negative));
    let wanted = [
        ("arm", format!("sturdy / {good}")),
        ("switch", format!("flimsy / {bad}")),
        ("cord", format!("too short / {bad}")),
    ];
    assert_eq!(lines, wanted.each_ref().map(|w| (w.0, w.1.as_str())));
    assert!(drafts(&block, "F17").iter().all(|d| d.0 != 1 && d.0 != 7), "implied sides");
    let mut marked = Block::new("made", Split::Train, Lang::En);
    marked.push(Record::Review(review(
        Lang::En,
        0,
        "The arm, the base are firm.",
        5,
        &[("arm, the base", "firm", "x", '+')],
    )));
    assert!(drafts(&marked, "F17").is_empty() && drafts(&marked, "F15").is_empty());
}

#[test]
fn opinions_on_an_aspect_are_all_of_them() {
    let mut found = BTreeSet::new();
    for (at, draft) in drafts(&english(), "A35").into_iter().filter(|d| d.0 == 4 || d.0 == 0) {
        found.insert((at, fill(&draft, "aspect").to_owned(), spans(&draft).join("|")));
    }
    let wanted =
        [(0, "arm", "sturdy"), (0, "cord", "too short"), (0, "switch", "flimsy"), (4, "shade", "pretty|yellow")];
    assert_eq!(found, wanted.map(|w| (w.0, w.1.to_owned(), w.2.to_owned())).into());
}

#[test]
fn the_unhappy_review_is_the_only_negative_one() {
    let block = english();
    for (_, draft) in drafts(&block, "A38") {
        let polarity = |text: &String| block.reviews.iter().find(|r| r.text == *text).unwrap().polarity.unwrap();
        let negative: Vec<&String> = draft.candidates.iter().filter(|c| polarity(c) == Polarity::Negative).collect();
        assert_eq!(draft.candidates.len(), 4);
        assert_eq!(negative, spans(&draft).iter().collect::<Vec<_>>());
        assert!(draft.candidates.iter().all(|c| polarity(c) != Polarity::Neutral));
        let stars = |text: &String| block.reviews.iter().find(|r| r.text == *text).unwrap().stars.unwrap();
        assert!(draft.candidates.iter().all(|c| matches!(stars(c), 1 | 2 | 5)));
    }
    let complaints = ["这个快递不快", "东西没破", "盖子太紧", "质量一般", "做工有待提高"];
    assert!(complaints.iter().all(|text| overall::complains(text)) && !overall::complains("做工精细，推荐"));
    let mut block = block;
    block.reviews[7].text.push_str(" However, it hums.");
    for (_, draft) in drafts(&block, "A38") {
        assert!(!draft.candidates.contains(&block.reviews[7].text), "{draft:?}");
    }
}

#[test]
fn happier_follows_the_stars() {
    let block = english();
    let mut seen = BTreeSet::new();
    for (_, draft) in drafts(&block, "A39") {
        let stars = |n: usize| block.reviews.iter().find(|r| r.text == draft.input[n].1).unwrap().stars.unwrap();
        let (a, b) = (stars(0), stars(1));
        assert_ne!(a.abs_diff(b), 1, "{draft:?}");
        let wanted = if a > b { 0 } else { 1 + usize::from(a == b) };
        assert_eq!(draft.answer, Answer::Nth(wanted));
        seen.insert(wanted);
    }
    assert_eq!(seen, BTreeSet::from([0, 1, 2]));
    // Five stars with a "but" are less than five.
    let mut block = block;
    block.reviews.iter_mut().filter(|r| r.stars == Some(5)).for_each(|r| r.text.push_str(" However, it hums."));
    let text = |stars| block.reviews.iter().filter(move |r| r.stars == Some(stars)).map(|r| r.text.as_str());
    let all = drafts(&block, "A39");
    assert!(!all.is_empty());
    let tied = |d: &Draft| d.input.iter().all(|part| text(5).any(|t| t == part.1));
    assert!(all.iter().all(|(_, draft)| !tied(draft)));
}

#[test]
fn sums_follow_the_list() {
    let mut block = english();
    let three = [("arm", "", "x", '+'), ("switch", "", "x", '-'), ("cord", "", "x", '0')];
    block.push(Record::Review(review(Lang::En, 98, "arm switch cord", 3, &three)));
    let mut seen = BTreeSet::new();
    for (at, draft) in drafts(&block, "A41") {
        let list = &draft.input[0].1;
        let count = |p| list.matches(polarity_mark(p)).count();
        let (good, bad) = (count(Polarity::Positive), count(Polarity::Negative));
        let wanted = if good == bad { 2 } else { usize::from(bad > good) };
        assert_eq!(draft.answer, Answer::Nth(wanted), "{at} {draft:?}");
        assert_ne!(at, 4, "one name, two judgements");
        seen.insert(wanted);
    }
    assert_eq!(seen, BTreeSet::from([0, 1, 2]));
}

#[test]
fn only_reviews_of_products_that_were_read_are_useless() {
    let mut block = english();
    assert_eq!(drafts(&block, "F22").iter().map(|d| yes(&d.1)).collect::<BTreeSet<_>>().len(), 2);
    for review in &mut block.reviews {
        review.helpful = review.helpful.map(|n| n.min(4));
    }
    assert!(drafts(&block, "F22").is_empty());
}

#[test]
fn questions_that_go_with_another_text_are_left_out() {
    let made = |question: &str, span: &str| {
        let mut block = Block::new("made", Split::Train, Lang::En);
        let text = "The arm is sturdy, but the switch feels flimsy and cheap to me.";
        let mut review = review(Lang::En, 0, text, 2, &[]);
        ask(&mut review, question, span, true);
        block.push(Record::Review(review));
        drafts(&block, "F19").len()
    };
    assert!(made("How is the switch?", "feels flimsy") > 0);
    for (question, span) in [
        ("How is the soup?", "feels flimsy"),
        ("How is the switch?", "flimsy"),
        ("Where is the switch?", "feels flimsy"),
    ] {
        assert_eq!(made(question, span), 0, "{question} {span}");
    }
}

#[test]
fn a_pair_judged_in_two_ways_is_not_asked_for() {
    let mut block = english();
    assert!(drafts(&block, "A36").iter().any(|d| fill(&d.1, "aspect") == "foot"));
    block.push(Record::Review(review(Lang::En, 97, "The Foot is heavy, sadly.", 2, &[("Foot", "heavy", "x", '-')])));
    assert!(drafts(&block, "A36").iter().all(|d| !fill(&d.1, "aspect").eq_ignore_ascii_case("foot")));
}

#[test]
fn an_own_headline_is_its_own() {
    let block = english();
    for (at, draft) in drafts(&block, "A65") {
        let own = block.reviews[at].headline.as_deref() == Some(draft.input[1].1.as_str());
        assert_eq!(own, yes(&draft));
        let other = block.reviews.iter().find(|r| r.headline.as_deref() == Some(draft.input[1].1.as_str())).unwrap();
        assert_eq!(other.stars, block.reviews[at].stars);
        let alike = shared(&content(&draft.input[1].1), &content(&draft.input[0].1)) > 0;
        assert_eq!(alike, own, "{draft:?}");
    }
}

#[test]
fn quoted_sentences_hold_the_answer() {
    for block in [english(), chinese()] {
        for (at, draft) in drafts(&block, "A43") {
            let review = &block.reviews[at];
            let asked = review.questions.iter().find(|q| q.text == draft.input[1].1).unwrap();
            let answer = asked.span.unwrap().of(&review.text).unwrap();
            assert!(spans(&draft)[0].contains(answer), "{draft:?}");
            assert!(sentences(&review.text).iter().any(|s| s.of(&review.text) == Some(&spans(&draft)[0])));
        }
    }
}

#[test]
fn wrong_answers_are_wrong() {
    for block in [english(), chinese()] {
        for (at, draft) in drafts(&block, "A44") {
            let review = &block.reviews[at];
            let (question, answer) = (&draft.input[1].1, &draft.input[2].1);
            let span = review.questions.iter().find(|q| q.text == *question).unwrap().span.unwrap();
            let gold = span.of(&review.text).unwrap();
            assert_eq!(gold == answer, yes(&draft), "{draft:?}");
            assert!(yes(&draft) || is_foreign(question, &content(answer)), "{draft:?}");
            assert!(yes(&draft) || !answer.contains(gold) && !gold.contains(answer.as_str()), "{draft:?}");
        }
    }
}

#[test]
fn foreign_questions_and_passages_are_foreign() {
    let block = english();
    for (at, draft) in drafts(&block, "A45") {
        let own = block.reviews[at].questions.iter().any(|q| q.text == draft.input[1].1);
        assert_eq!(own, yes(&draft), "{draft:?}");
        assert!(own || is_foreign(&draft.input[1].1, &content(&draft.input[0].1)), "{draft:?}");
    }
    for (at, draft) in drafts(&block, "A47") {
        let number: usize = spans(&draft)[0].parse().unwrap();
        assert_eq!(draft.input[number].1, block.reviews[at].text, "{draft:?}");
        assert_eq!(draft.input.len(), 4);
        for (n, (_, text)) in draft.input.iter().enumerate().skip(1).filter(|p| p.0 != number) {
            let other = block.reviews.iter().find(|r| r.text == *text).unwrap();
            let answers = other.questions.iter().any(|q| q.text == draft.input[0].1 && q.answerable == Some(true));
            assert!(!answers, "{n} {draft:?}");
        }
    }
}

#[test]
fn questions_with_contradicting_annotations_are_left_out() {
    let mut block = english();
    ask(&mut block.reviews[0], "does the arm hold?", "", false);
    for id in ["F19", "F20", "A43", "A44"] {
        assert!(drafts(&block, id).iter().all(|d| !d.1.input[1].1.to_lowercase().contains("arm hold")), "{id}");
    }
}

#[test]
fn long_reviews_are_left_out() {
    let mut block = english();
    let long = "word ".repeat(500);
    for review in &mut block.reviews {
        review.text.push_str(&long);
    }
    for task in TASKS.iter().filter(|t| !matches!(t.id, "F23" | "A36" | "A41" | "A46")) {
        assert!(drafts(&block, task.id).is_empty(), "{}", task.id);
    }
}

//! Laws that every draft keeps, and what each dialogue task promises.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::raw::Split;
use crate::record::{Attribute, Meta, Record, Turn};
use crate::task::{Answer, Draft};

/// All drafts of a task over 200 seeds of every record, with the number of the record; each keeps the laws.
pub(in crate::task) fn drafts(tasks: &[Task], block: &Block, records: usize, id: &str) -> Vec<(usize, Draft)> {
    let task = tasks.iter().find(|t| t.id == id).unwrap();
    let Make::From(draft) = task.draft else { return Vec::new() };
    let mut all = Vec::new();
    for at in 0..records {
        for seed in 0..200 {
            let made = draft(block, at, &mut SplitMix::stream(seed, at as u64));
            assert_eq!(made, draft(block, at, &mut SplitMix::stream(seed, at as u64)), "{id}: same seed, same draft");
            if let Some(made) = made {
                laws(task, &made);
                all.push((at, made));
            }
        }
    }
    assert!(!all.is_empty(), "{id} makes no draft");
    all
}

fn laws(task: &Task, draft: &Draft) {
    let id = task.id;
    assert!(draft.input.iter().all(|p| !p.1.trim().is_empty()), "{id}: empty part in {draft:?}");
    assert!(draft.fills.iter().all(|f| !f.1.is_empty() && !f.1.contains(['{', '}'])), "{id}: {draft:?}");
    let distinct: BTreeSet<&String> = draft.candidates.iter().collect();
    assert!(distinct.len() == draft.candidates.len() && distinct.len() != 1, "{id}: {draft:?}");
    assert_eq!(draft.others.iter().collect::<BTreeSet<_>>().len(), draft.others.len(), "{id}: {draft:?}");
    let options = draft.input.iter().filter(|p| p.0 == "option").count();
    let copied = |text: &String| {
        let numbered = text.parse::<usize>().is_ok_and(|n| (1..=options).contains(&n));
        numbered || distinct.contains(text) || draft.input.iter().any(|p| p.1.contains(text))
    };
    match (&draft.answer, task.paradigm) {
        (Answer::Nth(_), Paradigm::Cls) => assert!(draft.candidates.is_empty()),
        (Answer::Labels(labels), Paradigm::Cls) => {
            assert!(!labels.is_empty() && labels.iter().all(|l| distinct.contains(l)), "{id}: {draft:?}");
        }
        (Answer::Spans(spans), Paradigm::Ext) => {
            assert!(spans.iter().all(|s| !s.is_empty() && copied(s)), "{id}: {draft:?}");
            assert_eq!(spans.iter().collect::<BTreeSet<_>>().len(), spans.len(), "{id}: {draft:?}");
        }
        (Answer::Entities(entities), Paradigm::Oth) => {
            let kinds: Vec<_> = entities.iter().map(|e| draft.candidates.iter().position(|c| *c == e.kind)).collect();
            assert!(kinds.is_sorted() && kinds.iter().all(Option::is_some), "{id}: {draft:?}");
            assert!(!entities.is_empty() && entities.iter().all(|e| copied(&e.text)), "{id}: {draft:?}");
        }
        (Answer::Text(text), Paradigm::Gen) => assert!(!text.trim().is_empty(), "{id}: {draft:?}"),
        wrong => panic!("{id}: {wrong:?}"),
    }
    match task.gate {
        Some(GateKind::Match) => assert!(matches!(draft.answer, Answer::Nth(0 | 1)), "{id}: {draft:?}"),
        Some(GateKind::Select) => assert!(draft.candidates.len().max(options) >= 3, "{id}: {draft:?}"),
        None => {}
    }
}

/// How often each class comes: numbers of the wording's labels, and `none` for an empty list.
pub(in crate::task) fn classes(drafts: &[(usize, Draft)]) -> BTreeMap<String, usize> {
    let mut classes = BTreeMap::new();
    for (_, draft) in drafts {
        let class = match &draft.answer {
            Answer::Nth(n) => n.to_string(),
            Answer::Spans(spans) if spans.is_empty() => "none".to_owned(),
            _ => "some".to_owned(),
        };
        *classes.entry(class).or_default() += 1;
    }
    classes
}

pub(in crate::task) fn part<'a>(draft: &'a Draft, field: &str) -> &'a str {
    draft.input.iter().find(|p| p.0 == field).map_or("", |p| &p.1)
}

fn turn(speaker: Speaker, text: &str, acts: &[&str]) -> Turn {
    Turn { speaker, text: text.into(), acts: acts.iter().map(|&a| a.into()).collect() }
}

const NAMES: [&str; 6] = ["Mira", "Otto", "Lena", "Paul", "Nora", "Emil"];
const WARES: [&str; 6] = ["green kettle", "oak table", "wool scarf", "desk lamp", "rain jacket", "tea set"];
const WANTS: [&str; 6] =
    ["order status", "order change", "return item", "opening hours", "out of scope", "order status"];
const ANSWERS: [&str; 6] = [
    "It left the warehouse on Monday morning already",
    "Your new address is saved with the parcel service",
    "Please print the label that we sent along",
    "We are here from nine to six on weekdays",
    "The colour looks a little darker in daylight",
    "Two pieces are still on the shelf downstairs",
];
const SLOTS: [&str; 6] = ["name", "size", "city", "date", "item", "colour"];

/// Ten turns each, a customer and an agent in turn; all end with the same phrase.
fn english() -> Block {
    let mut block = Block::new("own", Split::Train, Lang::En);
    for i in 0..6 {
        let (c, a) = (Speaker::Customer, Speaker::Agent);
        let mut turns = vec![
            turn(a, "Welcome to the shop, how can we help?", &["greeting"]),
            turn(c, &format!("My name is {} and I bought the {}", NAMES[i], WARES[i]), &["disclose", "answer"]),
        ];
        for round in 0..3 {
            let answer = match round {
                2 => format!("The maker of the {} repairs it free of charge", WARES[(i + 1) % 6]),
                _ => ANSWERS[(i + round) % 6].to_owned(),
            };
            turns.push(turn(a, &answer, &["explain"]));
            turns.push(turn(
                c,
                &format!("And what about my {} number {round}, is it on the way?", WARES[i]),
                &["question"],
            ));
        }
        turns.push(turn(a, &format!("Yes, the {} reaches the city tomorrow", WARES[(i + 3) % 6]), &["answer"]));
        turns.push(turn(a, "Is there anything else that we can do for you?", &["elicit"]));
        turns.push(turn(c, &format!("Where is my {} number {i}?", WARES[i]), &[]));
        let slot = |name: &str, value: &str| Attribute { name: name.into(), value: value.into(), span: None };
        block.push(Record::Dialogue(Dialogue {
            meta: Meta { raw_id: format!("own:{i}"), group: format!("own:{i}"), lang: Lang::En },
            turns,
            intent: Some(WANTS[i].into()),
            slots: vec![slot(SLOTS[i], NAMES[i]), slot("ware", WARES[i]), slot("weekday", "Monday")],
            summary: Some(format!("{} asked where the {} is.", NAMES[i], WARES[i])),
            replies: if i == 5 { vec!["It stands ready in the back room".into()] } else { Vec::new() },
            topic: None,
        }));
    }
    block
}

/// Short dialogues with equal greetings and without intents.
fn chinese() -> Block {
    let mut block = Block::new("own", Split::Train, Lang::Zh);
    let goods = ["茶杯", "围巾", "台灯", "雨衣", "书架"];
    let answers = [
        "茶杯今天下午从仓库寄出",
        "围巾可以机洗不会缩水",
        "台灯保修期是十二个月",
        "雨衣只剩蓝色大号",
        "书架需要自己动手组装",
    ];
    for (i, (ware, answer)) in goods.iter().zip(answers).enumerate() {
        let turns = vec![
            turn(Speaker::Customer, &format!("我想问一下{ware}的事情"), &[]),
            turn(Speaker::Agent, "您好很高兴为您服务", &[]),
            turn(Speaker::Customer, &format!("这个{ware}怎么样呢"), &[]),
            turn(Speaker::Agent, answer, &[]),
        ];
        let meta = Meta { raw_id: format!("zh:{i}"), group: format!("zh:{i}"), lang: Lang::Zh };
        block.push(Record::Dialogue(Dialogue { meta, turns, ..Dialogue::default() }));
    }
    block
}

fn made(block: &Block, id: &str) -> Vec<(usize, Draft)> {
    drafts(TASKS, block, block.dialogues.len(), id)
}

#[test]
fn every_task_makes_drafts_that_keep_the_laws() {
    let block = english();
    for task in TASKS.iter().filter(|t| matches!(t.draft, Make::From(_))) {
        let all = made(&block, task.id);
        if matches!(all[0].1.answer, Answer::Nth(_)) {
            let classes = classes(&all);
            let few = classes.values().min().unwrap() * 3;
            assert!(classes.len() == 2 && few > all.len() / 2, "{}: {classes:?}", task.id);
        }
    }
    for id in ["F26", "A48", "A49", "A50", "A56"] {
        made(&chinese(), id);
    }
    let never: Vec<_> = TASKS.iter().filter(|t| matches!(t.draft, Make::Never(_))).map(|t| t.id).collect();
    assert_eq!((TASKS.len(), never), (17, vec!["F29", "F35"]));
}

#[test]
fn a_window_begins_with_the_customer_and_has_eight_turns_at_most() {
    let mut d = english().dialogues.remove(0);
    assert_eq!(window(&d, 11), Some(3..11));
    assert_eq!(window(&d, 10), Some(3..10), "turn 2 is the agent's");
    assert_eq!(window(&d, 2), Some(0..2));
    assert!(shown(&d, 2).unwrap().ends_with("\nCustomer: My name is Mira and I bought the green kettle"));
    d.turns[4].text = "long ".repeat(450);
    assert_eq!(window(&d, 11), Some(5..11), "what is before does not fit");
    d.turns[10].text = "long ".repeat(600);
    assert_eq!((window(&d, 11), whole(&d)), (None, None));
}

#[test]
fn the_speaker_of_the_last_line_is_not_shown() {
    let block = english();
    for (at, draft) in made(&block, "A48") {
        let last = part(&draft, "dialogue").lines().last().unwrap();
        let turn = block.dialogues[at].turns.iter().find(|t| t.text == last).unwrap();
        assert_eq!(draft.answer, Answer::Nth(usize::from(turn.speaker == Speaker::Agent)), "{last}");
        assert!(part(&draft, "dialogue").lines().all(|l| !l.starts_with("Customer:") && !l.starts_with("Agent:")));
    }
}

#[test]
fn the_right_reply_comes_next_and_phrases_are_never_replies() {
    let block = english();
    for (at, draft) in made(&block, "A49") {
        let Answer::Spans(gold) = &draft.answer else { panic!() };
        let d = &block.dialogues[at];
        let asked = part(&draft, "dialogue").lines().last().unwrap().trim_start_matches("Customer: ");
        let place = d.turns.iter().position(|t| t.text == asked).unwrap();
        let next = d.turns.get(place + 1).map_or(d.replies.first(), |t| Some(&t.text));
        assert_eq!(next, gold.first());
        assert_eq!(draft.candidates.len(), 4);
        assert!(draft.candidates.iter().all(|c| !c.contains("anything else") && !c.contains("Welcome")), "{draft:?}");
    }
    let replies = made(&block, "A56");
    for (at, draft) in &replies {
        let d = &block.dialogues[*at];
        let reply = part(draft, "reply");
        let asked = part(draft, "dialogue").lines().last().unwrap().trim_start_matches("Customer: ");
        let place = d.turns.iter().position(|t| t.text == asked).unwrap();
        let right = d.turns.get(place + 1).map_or(d.replies.first(), |t| Some(&t.text));
        assert_eq!(draft.answer == Answer::Nth(0), right.is_some_and(|r| r == reply), "{draft:?}");
    }
    assert!(made(&chinese(), "A56").iter().all(|(_, d)| part(d, "reply") != "您好很高兴为您服务"));
    for (at, draft) in made(&block, "A50") {
        let first = if draft.answer == Answer::Nth(0) { "utterance_a" } else { "utterance_b" };
        let turns = &block.dialogues[at].turns;
        let asked = turns.iter().find(|t| t.text == part(&draft, first)).unwrap();
        assert!(asked.speaker == Speaker::Customer && asked.text.ends_with('?'), "{draft:?}");
    }
}

#[test]
fn either_side_may_ask_first() {
    let mut block = Block::new("own", Split::Train, Lang::En);
    let (c, a) = (Speaker::Customer, Speaker::Agent);
    let turns = vec![
        turn(c, "Which colours does the tea set come in?", &[]),
        turn(a, "There is a blue one and a white one", &[]),
        turn(a, "For how many people do you need the cups?", &[]),
        turn(c, "We are six and sometimes eight at table", &[]),
    ];
    let meta = Meta { raw_id: "own:0".into(), group: "own:0".into(), lang: Lang::En };
    block.push(Record::Dialogue(Dialogue { meta, turns, ..Dialogue::default() }));
    let mut asked = BTreeMap::new();
    for (_, draft) in made(&block, "A50") {
        let first = part(&draft, if draft.answer == Answer::Nth(0) { "utterance_a" } else { "utterance_b" });
        assert!(first.ends_with('?'), "{draft:?}");
        *asked.entry(first.to_owned()).or_insert(0) += 1;
    }
    assert!(asked.len() == 2 && asked.values().all(|&n| n > 60), "{asked:?}");
}

#[test]
fn out_of_scope_is_never_offered() {
    for (at, draft) in made(&english(), "F24") {
        assert!(at != 4 && !draft.candidates.contains(&"out of scope".to_owned()), "{draft:?}");
    }
}

#[test]
fn wrong_intents_differ_and_only_nameable_ones_stand_in_sentences() {
    let block = english();
    for (at, draft) in made(&block, "A51") {
        let right = block.dialogues[at].intent.as_deref() == Some(draft.fills[0].1.as_str());
        assert_eq!(draft.answer, crate::task::either(right));
        assert!(at != 4 && draft.fills[0].1 != "out of scope");
    }
    for (at, draft) in made(&block, "A52") {
        let other = block.dialogues.iter().find(|d| d.meta.raw_id == draft.others[0]).unwrap();
        assert_eq!(draft.answer, crate::task::either(other.intent == block.dialogues[at].intent));
        assert_ne!(part(&draft, "utterance_a"), part(&draft, "utterance_b"));
    }
    assert!(made(&block, "A55").iter().all(|(at, d)| part(d, "list") == format!("ware: {}", WARES[*at])));
}

#[test]
fn other_acts_of_the_turn_are_not_offered() {
    for (_, draft) in made(&english(), "F27") {
        if draft.answer == Answer::Labels(vec!["disclose".into()]) {
            assert!(!draft.candidates.contains(&"answer".to_owned()), "{draft:?}");
        }
    }
}

#[test]
fn only_what_the_customer_said_is_a_value() {
    let block = english();
    let values = made(&block, "A53");
    for (at, draft) in &values {
        let slot = draft.fills[0].1.as_str();
        let expected = match slot {
            "ware" => vec![WARES[*at].to_owned()],
            s if s == SLOTS[*at] => vec![NAMES[*at].to_owned()],
            _ => Vec::new(),
        };
        assert_ne!(slot, "weekday", "the agent said it: neither given nor absent");
        assert_eq!(draft.answer, Answer::Spans(expected), "{draft:?}");
    }
    let none = 100 * classes(&values)["none"] / values.len();
    assert!((20..40).contains(&none), "{none} % None");
    for (at, draft) in made(&block, "F25") {
        let Answer::Entities(entities) = &draft.answer else { panic!() };
        let kinds: BTreeSet<&str> = entities.iter().map(|e| e.kind.as_str()).collect();
        assert_eq!(kinds, BTreeSet::from([SLOTS[at], "ware"]));
        assert!(draft.candidates.len() >= 4);
    }
}

#[test]
fn the_number_is_that_of_its_own_summary() {
    let block = english();
    for (at, draft) in made(&block, "A68") {
        let Answer::Spans(number) = &draft.answer else { panic!() };
        let options: Vec<&String> = draft.input.iter().filter(|p| p.0 == "option").map(|p| &p.1).collect();
        let number: usize = number[0].parse().unwrap();
        assert_eq!((options.len(), Some(options[number - 1])), (3, block.dialogues[at].summary.as_ref()));
    }
}

#[test]
fn a_reply_tells_nothing_that_the_agent_looked_up() {
    for (text, dialogue, told) in [
        ("茶杯保修12个月", "用户：茶杯保修多久", false),
        ("茶杯保修12个月", "用户：是保修12个月吗", true),
        ("型号是QX茶杯", "用户：茶杯什么型号", false),
        ("The red one ships today", "Customer: When?", true),
        ("It ships in 3 days", "Customer: When?", false),
    ] {
        assert_eq!(reply::told(text, dialogue), told, "{text}");
    }
    assert!(reply::about_the_same("茶杯有货吗", "现在没有茶杯") && !reply::about_the_same("有货吗", "明天再说"));
}

mod shop;
mod sound;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::super::{Answer, Draft, GateKind, Make, Task, block::Block};
use super::words::{alike, coverage, fold, form, is_plain, place, reads_as_title, same, tokens, touches};
use super::{TASKS, category, copy, facts, offer, typed};
use crate::instruction::{Entity, Lang, Paradigm};
use crate::raw::Split;
use crate::record::{Attribute, Product, Record};
use crate::splitmix::SplitMix;

use self::shop::{aisles, catalogue, entities, marked, meta, pairs};

const SEEDS: u64 = 300;

fn drafts(task: &Task, block: &Block) -> Vec<(usize, Draft)> {
    let Make::From(make) = task.draft else { return Vec::new() };
    let mut all = Vec::new();
    for seed in 0..SEEDS {
        let at = seed as usize % block.products.len();
        let draft = make(block, at, &mut SplitMix::new(seed));
        assert_eq!(draft, make(block, at, &mut SplitMix::new(seed)), "{} differs in a second run", task.id);
        all.extend(draft.map(|draft| (at, draft)));
    }
    all
}

static BLOCKS: LazyLock<[Block; 4]> = LazyLock::new(|| [entities(), catalogue(), pairs(), aisles()]);

fn made(id: &str) -> Vec<(&'static Block, usize, Draft)> {
    let task = TASKS.iter().find(|t| t.id == id).unwrap();
    BLOCKS.iter().flat_map(|block| drafts(task, block).into_iter().map(move |(at, d)| (block, at, d))).collect()
}

fn fill<'a>(draft: &'a Draft, name: &str) -> &'a str {
    &draft.fills.iter().find(|f| f.0 == name).unwrap().1
}

fn part<'a>(draft: &'a Draft, name: &str) -> &'a str {
    &draft.input.iter().find(|p| p.0 == name).unwrap().1
}

fn entries(sheet: &str) -> Vec<(&str, &str)> {
    sheet.split("; ").map(|entry| entry.split_once(": ").unwrap()).collect()
}

fn says_yes(draft: &Draft) -> bool {
    draft.answer == Answer::Nth(0)
}

fn words(draft: &Draft) -> Vec<String> {
    match &draft.answer {
        Answer::Labels(words) | Answer::Spans(words) => words.clone(),
        other => panic!("{other:?}"),
    }
}

fn written(draft: &Draft) -> String {
    match &draft.answer {
        Answer::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_list_is_whole() {
    let ids: Vec<&str> = TASKS.iter().map(|t| t.id).collect();
    let finals = (1..=11).map(|n| format!("F{n:02}"));
    let wanted: Vec<String> = finals.chain((1..=32).chain([66, 67]).map(|n| format!("A{n:02}"))).collect();
    assert_eq!(ids, wanted);
    for task in TASKS {
        assert_eq!(task.parents.is_empty(), task.id.starts_with('F'), "{}", task.id);
        let none: &[&str] = &["F10", "A32"];
        assert_eq!(matches!(task.draft, Make::Never(_)), none.contains(&task.id), "{}", task.id);
    }
}

#[test]
fn drafts_keep_the_law() {
    for task in TASKS.iter().filter(|t| matches!(t.draft, Make::From(_))) {
        let id = task.id;
        let all = made(id);
        assert!(!all.is_empty(), "{id} makes nothing");
        let (mut classes, mut nones) = (BTreeSet::new(), 0);
        for (block, _, draft) in &all {
            let all_text: Vec<&str> =
                draft.input.iter().map(|p| p.1.as_str()).chain(draft.candidates.iter().map(String::as_str)).collect();
            assert!(draft.fills.iter().all(|f| !f.1.is_empty() && !f.1.contains(['{', '}'])), "{id}: {draft:?}");
            assert!(draft.input.iter().all(|p| !p.1.trim().is_empty()), "{id}: {draft:?}");
            let distinct: BTreeSet<&String> = draft.candidates.iter().collect();
            assert!(distinct.len() == draft.candidates.len() && distinct.len() != 1, "{id}: {draft:?}");
            assert!(draft.others.iter().all(|raw_id| block.product(raw_id).is_some()), "{id}: {draft:?}");
            match &draft.answer {
                Answer::Nth(n) => {
                    assert!(*n < 2 && draft.candidates.is_empty(), "{id}: {draft:?}");
                    classes.insert(*n);
                }
                Answer::NthOfThree(_) => panic!("{id}: {draft:?}"),
                Answer::Labels(labels) => {
                    assert!(!labels.is_empty(), "{id}: {draft:?}");
                    let in_order: Vec<&String> = draft.candidates.iter().filter(|c| labels.contains(c)).collect();
                    assert_eq!(in_order, labels.iter().collect::<Vec<_>>(), "{id}");
                }
                Answer::Spans(spans) => {
                    nones += usize::from(spans.is_empty());
                    let options = draft.input.iter().filter(|p| p.0 == "option").count();
                    for span in spans {
                        let number = span.parse().is_ok_and(|n: usize| (1..=options).contains(&n));
                        assert!(number || all_text.iter().any(|text| text.contains(span)), "{id}: {span} {draft:?}");
                    }
                    assert_eq!(spans.iter().collect::<BTreeSet<_>>().len(), spans.len(), "{id}: {draft:?}");
                }
                Answer::Entities(found) => {
                    assert!(!found.is_empty(), "{id}: {draft:?}");
                    let place = |e: &Entity| draft.candidates.iter().position(|c| *c == e.kind);
                    let listed = draft.candidates.is_empty() || found.iter().all(|e| place(e).is_some());
                    assert!(listed && found.iter().map(place).is_sorted(), "{id}: {draft:?}");
                    assert!(found.iter().all(|e| all_text.iter().any(|t| t.contains(&e.text))), "{id}: {draft:?}");
                }
                Answer::Text(text) => assert!(!text.trim().is_empty(), "{id}: {draft:?}"),
            }
        }
        if all.iter().any(|(_, _, d)| matches!(d.answer, Answer::Nth(_))) {
            assert_eq!(classes.len(), 2, "{id} draws one class only");
            assert_eq!(task.paradigm, Paradigm::Cls, "{id}");
        }
        let absent = ["F11", "A01", "A02", "A09", "A14"].contains(&id);
        let share = 100 * nones / all.len();
        assert!(if absent { (5..=45).contains(&share) } else { share <= 45 }, "{id}: {share} % None");
        match task.gate {
            Some(GateKind::Match) => assert!(all.iter().all(|(_, _, d)| matches!(d.answer, Answer::Nth(_))), "{id}"),
            Some(GateKind::Select) => assert!(
                all.iter().all(|(_, _, d)| words(d).len() == 1 && d.candidates.len() + d.input.len() >= 4),
                "{id}"
            ),
            None => {}
        }
    }
}

/// Which annotation gives words of a type, where the block has both.
fn really(product: &Product, kind: &str) -> Vec<String> {
    let spans = product.spans.iter().filter(|s| s.kind == kind).map(|s| s.span);
    let attributes = product.attributes.iter().filter(|a| a.name == kind).filter_map(|a| a.span);
    spans.chain(attributes).filter_map(|s| s.of(&product.title)).map(str::to_owned).collect()
}

#[test]
fn types_that_are_asked_for_are_answered_by_the_annotation() {
    for id in ["F01", "F02"] {
        for (block, at, draft) in made(id) {
            let Answer::Entities(found) = &draft.answer else { panic!("{draft:?}") };
            for kind in draft.candidates.iter().filter(|_| draft.input.len() == 1) {
                let said: Vec<String> = found.iter().filter(|e| e.kind == *kind).map(|e| e.text.clone()).collect();
                assert_eq!(said, really(&block.products[at], kind), "{id}: {draft:?}");
            }
        }
    }
    for (block, at, draft) in made("A02") {
        assert_eq!(words(&draft), really(&block.products[at], fill(&draft, "type")), "{draft:?}");
    }
    for (block, at, draft) in made("A04") {
        assert_eq!(says_yes(&draft), !really(&block.products[at], fill(&draft, "type")).is_empty(), "{draft:?}");
    }
    for (block, at, draft) in made("A08") {
        let yes = really(&block.products[at], fill(&draft, "type")).contains(&fill(&draft, "span").to_owned());
        assert_eq!(says_yes(&draft), yes, "{draft:?}");
    }
    for (block, at, draft) in made("A05") {
        let number = really(&block.products[at], fill(&draft, "type")).len().to_string();
        assert!(written(&draft) == number && draft.class == Some(number), "{draft:?}");
    }
    for id in ["A06", "A12"] {
        for (block, at, draft) in made(id) {
            let said = words(&draft);
            assert!(draft.candidates.iter().all(|c| said.contains(c) != really(&block.products[at], c).is_empty()));
        }
    }
}

#[test]
fn incomplete_mentions_are_none() {
    for (block, at, draft) in made("A07") {
        let product = &block.products[at];
        let whole = product.spans.iter().any(|s| s.span.of(&product.title) == Some(fill(&draft, "span")));
        assert_eq!(says_yes(&draft), whole, "{draft:?}");
        assert!(product.title.contains(fill(&draft, "span")));
    }
}

#[test]
fn a_shorter_mention_is_not_called_cut_off() {
    let mut block = Block::new("marks", Split::Train, Lang::Zh);
    for (i, text) in ["新款[商品:大茶杯]厨房", "陶瓷[商品:茶杯]客厅"].into_iter().enumerate() {
        let (title, spans) = marked(text);
        block.push(Record::Product(Product { meta: meta("marks", i, Lang::Zh), title, spans, ..Product::default() }));
    }
    let task = TASKS.iter().find(|t| t.id == "A07").unwrap();
    let asked: BTreeSet<String> =
        drafts(task, &block).iter().filter(|d| !says_yes(&d.1)).map(|d| fill(&d.1, "span").to_owned()).collect();
    assert!(asked.contains("大茶") && !asked.contains("茶杯"), "{asked:?}");
}

#[test]
fn the_list_lacks_one_mention_or_none() {
    for (block, at, draft) in made("A09") {
        let product = &block.products[at];
        let listed: Vec<&str> = entries(part(&draft, "list")).into_iter().flat_map(|e| e.1.split(", ")).collect();
        let missing: Vec<&str> = product.spans.iter().filter_map(|s| s.span.of(&product.title)).collect();
        let missing: Vec<&str> = missing.into_iter().filter(|word| !listed.contains(word)).collect();
        assert_eq!(words(&draft), missing, "{draft:?}");
    }
}

#[test]
fn gaps_are_filled_by_the_answer_only() {
    for (block, at, draft) in made("A11") {
        let title = &block.products[at].title;
        assert_eq!(part(&draft, "title").replace("[MASK]", &words(&draft)[0]), *title);
        assert_eq!(draft.candidates.iter().filter(|c| title.contains(*c)).count(), 1, "{draft:?}");
    }
}

#[test]
fn open_types_leave_no_gap_and_unlisted_mentions_no_list() {
    for (block, at, draft) in made("A11") {
        let gap = words(&draft);
        assert!(!["颜色", "品牌", "color"].iter().any(|kind| really(&block.products[at], kind).contains(&gap[0])));
    }
    let mut block = entities();
    let (title, spans) = marked("[商品:花瓶]家用[商品:水壶][材质:玻璃]围巾");
    let product = Product { meta: meta("marks", 90, Lang::Zh), title, spans, ..Product::default() };
    block.push(Record::Product(product));
    let Make::From(make) = TASKS.iter().find(|t| t.id == "A09").unwrap().draft else { panic!() };
    let last = block.products.len() - 1;
    assert!((0..SEEDS).all(|seed| make(&block, last, &mut SplitMix::new(seed)).is_none()));
}

#[test]
fn a_text_must_tell_its_category() {
    let mut block = Block::new("copy", Split::Train, Lang::Zh);
    for (i, (leaf, text)) in
        [("裙", "一条红色的裙子"), ("裤", "一条裤子"), ("裙", "这款裤子很好"), ("裙", "很好看")].into_iter().enumerate()
    {
        block.push(Record::Product(Product {
            meta: meta("copy", i, Lang::Zh),
            description: Some(text.into()),
            category: vec![leaf.into()],
            ..Product::default()
        }));
    }
    let evident: Vec<bool> = block.products.iter().map(|p| category::evident(&block, p)).collect();
    assert_eq!(evident, [true, true, false, false]);
}

#[test]
fn names_without_a_value_are_asked_for_beside_a_description() {
    let described = |d: &&(&Block, usize, Draft)| d.2.input.len() == 2;
    let all = made("F02");
    let some: Vec<_> = all.iter().filter(described).collect();
    let asked_in_vain = some.iter().filter(|(_, _, draft)| {
        let Answer::Entities(found) = &draft.answer else { panic!("{draft:?}") };
        draft.candidates.iter().any(|name| !found.iter().any(|e| e.kind == *name))
    });
    assert!(!some.is_empty() && asked_in_vain.count() > 0);
}

#[test]
fn mentions_inside_mentions_and_like_names_are_passed_over() {
    let title = "Ostra oak desk lamp".to_owned();
    let attribute = |value: &str| Attribute { name: "type".into(), value: value.into(), span: place(&title, value) };
    let attributes = vec![attribute("lamp"), attribute("desk lamp")];
    let product = Product { title: title.clone(), attributes, attributes_complete: true, ..Product::default() };
    let found = facts::mentions(&product).unwrap();
    assert_eq!(found.iter().map(|m| m.text).collect::<Vec<_>>(), ["desk lamp"]);
    assert!(facts::is_similar("Pack size", "Net content") && !facts::is_similar("flavor", "volume"));
}

#[test]
fn values_that_are_denied_are_not_in_the_title() {
    for (_, _, draft) in made("A16") {
        let stated = place(part(&draft, "title"), fill(&draft, "value")).is_some();
        assert_eq!(says_yes(&draft), stated, "{draft:?}");
    }
    for (_, _, draft) in made("A13") {
        assert!(draft.candidates.len() >= 2 && words(&draft).len() == 1);
    }
}

#[test]
fn sheets_are_read_right() {
    for (_, _, draft) in made("A14") {
        let sheet = part(&draft, "attributes").to_owned();
        let said: Vec<&str> =
            entries(&sheet).into_iter().filter(|e| e.0 == fill(&draft, "attr")).map(|e| e.1).collect();
        assert_eq!(words(&draft), said, "{draft:?}");
    }
    for (_, _, draft) in made("A15") {
        let text = written(&draft);
        for line in text.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            assert!(part(&draft, "attributes").contains(name) && part(&draft, "attributes").contains(value));
        }
        assert!(text.lines().count() >= 3);
    }
    for (_, _, draft) in made("A17") {
        let title = part(&draft, "title");
        for (name, value) in entries(part(&draft, "attributes")) {
            let said = words(&draft).contains(&format!("{name}: {value}"));
            assert_eq!(said, fold(title).contains(&*fold(value)), "{draft:?}");
        }
    }
    for (_, _, draft) in made("A21") {
        let sheet = part(&draft, "attributes");
        let names: BTreeSet<&str> = entries(sheet).into_iter().map(|e| e.0).collect();
        let lacking: Vec<&String> = draft.candidates.iter().filter(|c| !names.contains(c.as_str())).collect();
        assert_eq!(words(&draft).iter().collect::<Vec<_>>(), lacking, "{draft:?}");
        assert!(lacking.len() < draft.candidates.len(), "{draft:?}");
    }
}

#[test]
fn compared_sheets_differ_and_agree_as_said() {
    for (_, _, draft) in made("A23") {
        let (a, b) = (entries(part(&draft, "attributes_a")), entries(part(&draft, "attributes_b")));
        let differing: Vec<&str> = a.iter().filter(|e| !b.contains(e)).map(|e| e.0).collect();
        assert_eq!(written(&draft), differing.join(", "), "{draft:?}");
        assert_eq!(a.len(), b.len());
    }
    for (_, _, draft) in made("A24") {
        let (a, b) = (entries(part(&draft, "attributes_a")), entries(part(&draft, "attributes_b")));
        let shared: Vec<String> = a.iter().filter(|e| b.contains(e)).map(|e| format!("{}: {}", e.0, e.1)).collect();
        assert_eq!(written(&draft), shared.join("\n"), "{draft:?}");
    }
}

#[test]
fn wrong_sheets_contradict_the_title() {
    for id in ["F06", "A18"] {
        for (block, at, draft) in made(id) {
            let product = &block.products[at];
            let own = |e: &(&str, &str)| product.attributes.iter().any(|a| (a.name.as_str(), a.value.as_str()) == *e);
            let sheet = entries(part(&draft, "attributes"));
            assert_eq!(says_yes(&draft), sheet.iter().all(own), "{draft:?}");
            let denied = |e: &&(&str, &str)| {
                let said = really(product, e.0);
                !said.is_empty() && !said.iter().any(|s| s == e.1) && !product.title.contains(e.1)
            };
            assert_eq!(says_yes(&draft), sheet.iter().find(denied).is_none(), "{draft:?}");
            assert_eq!(says_yes(&draft), draft.others.is_empty());
        }
    }
    for (block, at, draft) in made("A19") {
        let product = &block.products[at];
        let wrong: Vec<String> = entries(part(&draft, "attributes"))
            .into_iter()
            .filter(|e| !product.attributes.iter().any(|a| a.name == e.0 && a.value == e.1))
            .map(|e| format!("{}: {}", e.0, e.1))
            .collect();
        assert_eq!(words(&draft), wrong, "{draft:?}");
    }
    for (block, at, draft) in made("A20") {
        let product = &block.products[at];
        assert_eq!(words(&draft).concat(), product.title);
        assert_eq!(draft.candidates.len(), 4);
        assert!(draft.others.iter().all(|id| {
            let other = &block.products[block.product(id).unwrap()];
            product.attributes.iter().any(|a| a.span.is_some() && place(&other.title, &a.value).is_none())
        }));
    }
}

#[test]
fn categories_are_the_product_s_own() {
    for (block, at, draft) in made("A25") {
        let product = &block.products[at];
        assert_eq!(says_yes(&draft), product.leaf() == Some(fill(&draft, "cat")), "{draft:?}");
    }
    for (id, level) in [("F03", 0), ("F04", 1), ("A28", 0)] {
        for (block, at, draft) in made(id) {
            assert_eq!(words(&draft), [block.products[at].category[level].clone()], "{draft:?}");
        }
    }
    let leaf = |block: &Block, title: &str| {
        block.products.iter().find(|p| p.title == title).and_then(|p| p.leaf().map(str::to_owned)).unwrap()
    };
    for (block, _, draft) in made("A26") {
        let same = leaf(block, part(&draft, "item_a")) == leaf(block, part(&draft, "item_b"));
        assert_eq!(says_yes(&draft), same, "{draft:?}");
    }
    for (block, _, draft) in made("A27") {
        let leaves: Vec<String> = draft.candidates.iter().map(|t| leaf(block, t)).collect();
        let odd = leaf(block, &words(&draft)[0]);
        assert_eq!(leaves.iter().filter(|l| **l == odd).count(), 1, "{draft:?}");
        assert_eq!(leaves.iter().collect::<BTreeSet<_>>().len(), 2, "{draft:?}");
    }
    for (block, _, draft) in made("A29") {
        let there: Vec<&String> = draft.candidates.iter().filter(|t| leaf(block, t) == fill(&draft, "cat")).collect();
        assert_eq!(words(&draft).iter().collect::<Vec<_>>(), there, "{draft:?}");
    }
}

#[test]
fn offers_match_by_cluster_or_judgement() {
    let same = |block: &Block, a: &str, b: &str| {
        let find = |text: &str| block.products.iter().position(|p| text.starts_with(p.title.as_str())).unwrap();
        let (a, b) = (&block.products[find(a)], &block.products[find(b)]);
        let judged = |x: &Product, y: &Product| x.judged.iter().any(|j| j.same && j.other == y.meta.raw_id);
        judged(a, b) || judged(b, a) || (a.cluster.is_some() && a.cluster == b.cluster)
    };
    for (block, _, draft) in made("F05") {
        assert_eq!(says_yes(&draft), same(block, part(&draft, "item_a"), part(&draft, "item_b")), "{draft:?}");
    }
    for (block, _, draft) in made("A30") {
        let reference = part(&draft, "reference");
        let equal: Vec<&String> = draft.candidates.iter().filter(|c| same(block, reference, c)).collect();
        assert_eq!(words(&draft).iter().collect::<Vec<_>>(), equal, "{draft:?}");
        assert_eq!(draft.candidates.len(), 4);
    }
    for (block, _, draft) in made("A31") {
        let (a, b) = (part(&draft, "item_a"), part(&draft, "item_b"));
        assert!(!same(block, a, b));
        let Answer::Entities(details) = &draft.answer else { panic!("{draft:?}") };
        assert!(["A", "B"].iter().all(|kind| details.iter().any(|d| d.kind == *kind)), "{draft:?}");
        for Entity { kind, text } in details {
            let (own, other) = if kind == "A" { (a, b) } else { (b, a) };
            assert!(own.contains(text) && !other.contains(text), "{draft:?}");
        }
    }
}

#[test]
fn details_ignore_spacing() {
    let details = |a, b| offer::special(a, b);
    assert_eq!(details("nova s8 64 gb black", "nova s8 64gb"), [""; 0]);
    assert_eq!(details("nova s8 64 gb (5.8 inch)", "nova s9 128gb"), ["s8", "64 gb", "5.8 inch"]);
    assert_eq!(details("kit 8 pcs", "kit 128 pcs"), ["8 pcs"]);
}

#[test]
fn numbers_and_texts_belong_to_the_title() {
    for (block, at, draft) in made("A66") {
        let options: Vec<&str> = draft.input.iter().filter(|p| p.0 == "option").map(|p| p.1.as_str()).collect();
        let number: usize = words(&draft)[0].parse().unwrap();
        assert_eq!(Some(options[number - 1]), block.products[at].description.as_deref());
        assert_eq!(options.iter().collect::<BTreeSet<_>>().len(), 4);
    }
    for (_, _, draft) in made("A67") {
        let (shown, answer) = (part(&draft, "description"), written(&draft));
        let (text, title) = (fold(shown), fold(&answer));
        assert!(!text.contains(&*title) && tokens(&title).iter().all(|word| text.contains(word)), "{draft:?}");
    }
    let branded = Product { title: "Ostra lamp".into(), brand: Some("Ostra".into()), ..Product::default() };
    assert!(copy::hides_brand(&branded, "type: lamp") && !copy::hides_brand(&branded, "brand: Ostra"));
    for (block, at, draft) in made("F08") {
        assert_eq!(Some(written(&draft)), block.products[at].short_title);
    }
    for (block, at, draft) in made("F11") {
        assert_eq!(words(&draft), [really(&block.products[at], "brand"), really(&block.products[at], "品牌")].concat());
    }
}

#[test]
fn texts_are_compared_by_words() {
    assert_eq!(tokens("Qi-2 红色 lamp, 5W").iter().collect::<Vec<_>>(), ["qi", "2", "红", "色", "lamp", "5w"]);
    assert!(alike("8 oz", "8oz.") && alike("12 fluid ounces", "12oz") && alike("6 pack", "6 Count"));
    assert!(!alike("8 oz", "9 oz") && !alike("fluid", "oak"));
    assert!(same("A-B", "ab") && !same("5", "5%") && !same("HDR10", "HDR10+"));
    assert!(reads_as_title("Ostra desk lamp oak 10W") && reads_as_title("木叶茶杯大茶杯"));
    assert!(!reads_as_title("Ostra desk lamp 10W oak Ostra lamp") && !reads_as_title("Wholesale lamp"));
    assert!(alike("8 GB", "8GB") && alike("navy blue", "Navy") && !alike("10", "1"));
    assert!(touches("Mens shirt", "Men") && !touches("Mens shirt", "Women"));
    assert!(touches("米白色外套", "米白") && !touches("米白色外套", "灰色"));
    assert_eq!(form("12.5GB v3").collect::<String>(), "0.0gb v0");
    assert_eq!(coverage("oak desk lamp", "a lamp of oak"), 66);
    assert!(
        is_plain("1,000 g") && !is_plain("red, blue") && !is_plain("红、蓝") && !is_plain("None") && !is_plain("a{b")
    );
}

#[test]
fn a_type_that_may_occur_is_not_called_absent() {
    let mut block = catalogue();
    let title = "Ostra QX400 crimson oak desk lamp mains 10W".to_owned();
    let product = Product {
        meta: meta("shelf", 900, Lang::En),
        category: vec!["Lighting".into(), "Desk Lamps".into()],
        attributes: vec![Attribute { name: "brand".into(), value: "Ostra".into(), span: place(&title, "Ostra") }],
        attributes_complete: true,
        title,
        ..Product::default()
    };
    block.push(Record::Product(product.clone()));
    for seed in 0..SEEDS {
        let name = facts::absent(&block, &product, "brand", &["brand"], &mut SplitMix::new(seed));
        assert!(
            !["power source", "color", "material", "model number"].contains(&name.unwrap_or_default()),
            "{name:?} may occur in the title"
        );
    }
}

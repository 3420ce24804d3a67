//! What each query task promises, on a small shop.

use super::words::{covered, jaccard, words};
use super::*;
use crate::instruction::Lang;
use crate::raw::Split;
use crate::record::{Judged, Meta, Record, Span, TypedSpan};
use crate::task::dialogue::tests::{classes, drafts, part};
use crate::task::{Answer, Draft, either};

fn meta(raw_id: &str, lang: Lang) -> Meta {
    Meta { raw_id: raw_id.into(), group: raw_id.into(), lang }
}

const THINGS: [(&str, &str); 4] =
    [("lamp", "light"), ("kettle", "kitchen"), ("shelf", "furniture"), ("faucet", "bath")];
const COLOURS: [&str; 4] = ["red", "blue", "grey", "black"];

/// Four kinds of things in four colours, from two makers, and a red one of each that nobody judged. A query names a colour and a
/// thing, or the maker and a thing.
fn shop() -> Block {
    let mut block = Block::new("own", Split::Train, Lang::En);
    for (thing, department) in THINGS {
        for (c, colour) in COLOURS.iter().enumerate() {
            let maker = if c < 2 { "Norden" } else { "Sola" };
            let title = format!("{maker} {colour} steel {thing} model {}", c + 1);
            let meta = meta(&format!("p:{colour} {thing}"), Lang::En);
            block.push(Record::Product(Product {
                meta,
                title,
                category: vec![department.into()],
                ..Product::default()
            }));
        }
    }
    for (thing, department) in THINGS {
        let title = format!("Norden red steel {thing} with a long warranty");
        let meta = meta(&format!("p:unjudged {thing}"), Lang::En);
        block.push(Record::Product(Product { meta, title, category: vec![department.into()], ..Product::default() }));
    }
    let mut query = |text: String, department: &str, judged: Vec<(String, Grade)>| {
        let judged = judged.into_iter().map(|(product, grade)| Judged { product, grade }).collect();
        let meta = meta(&format!("q:{text}"), Lang::En);
        block.push(Record::Query(Query { meta, text, category: Some(department.into()), judged, ..Query::default() }));
    };
    for (thing, department) in THINGS {
        for (c, colour) in COLOURS.iter().enumerate() {
            let product = |i: usize| format!("p:{} {thing}", COLOURS[i % 4]);
            let judged =
                vec![(product(c), Grade::Exact), (product(c + 1), Grade::Partial), (product(c + 2), Grade::Irrelevant)];
            query(format!("{colour} {thing}"), department, judged);
        }
        let judged = [0, 1].map(|i| (format!("p:{} {thing}", COLOURS[i]), Grade::Exact));
        query(format!("norden {thing}"), department, judged.to_vec());
    }
    block
}

fn chinese() -> Block {
    let mut block = Block::new("own", Split::Train, Lang::Zh);
    let rows: [&[(&str, &str)]; 5] = [
        &[("山野", "品牌"), ("红茶", "商品"), ("二百克", "规格")],
        &[("木制", "材质"), ("书架", "商品")],
        &[("茶杯", "商品")],
        &[("新款", ""), ("雨衣", "商品"), ("大号", "规格")],
        &[("围巾", "商品"), ("手套", "商品")],
    ];
    for (i, row) in rows.iter().enumerate() {
        let text: String = row.iter().map(|r| r.0).collect();
        let mut segments = Vec::new();
        let mut start = 0;
        for (words, kind) in *row {
            let end = start + words.len();
            if !kind.is_empty() {
                segments.push(TypedSpan { span: Span { start, end }, kind: (*kind).into() });
            }
            start = end;
        }
        let meta = meta(&format!("zh:{i}"), Lang::Zh);
        block.push(Record::Query(Query { meta, text, segments, core: Some("商品".into()), ..Query::default() }));
    }
    block
}

fn made(block: &Block, id: &str) -> Vec<(usize, Draft)> {
    drafts(TASKS, block, block.queries.len(), id)
}

fn by_title<'a>(block: &'a Block, title: &str) -> &'a Product {
    block.products.iter().find(|p| p.title == title).unwrap()
}

fn grade_of(query: &Query, product: &Product) -> Option<Grade> {
    query.judged.iter().find(|j| j.product == product.meta.raw_id).map(|j| j.grade)
}

#[test]
fn every_task_makes_drafts_that_keep_the_laws() {
    let (shop, chinese) = (shop(), chinese());
    for task in TASKS {
        let block = if matches!(task.id, "F32" | "A59" | "A60" | "A63") { &chinese } else { &shop };
        let all = made(block, task.id);
        if matches!(all[0].1.answer, Answer::Nth(_)) {
            let classes = classes(&all);
            assert_eq!(classes.len(), if task.id == "F30" { 3 } else { 2 }, "{}: {classes:?}", task.id);
            assert!(classes.values().all(|n| n * 5 > all.len()), "{}: {classes:?}", task.id);
        }
    }
    assert_eq!(TASKS.len(), 13);
}

#[test]
fn a_wrong_product_lacks_a_word_of_the_query_and_is_never_exact() {
    let shop = shop();
    for (at, draft) in made(&shop, "A57") {
        let query = &shop.queries[at];
        let product = by_title(&shop, part(&draft, "title"));
        let grade = grade_of(query, product);
        assert_eq!(draft.answer, either(grade == Some(Grade::Exact)), "{draft:?}");
        assert_ne!(grade, Some(Grade::Partial), "neither right nor wrong");
        if grade.is_none() {
            assert!(covered(&words(&query.text), &words(&product.title)).contains(&false), "{draft:?}");
        }
    }
    for (at, draft) in made(&shop, "F30") {
        let grade = grade_of(&shop.queries[at], by_title(&shop, part(&draft, "title")));
        let grades = [Grade::Exact, Grade::Partial, Grade::Irrelevant];
        let Answer::Nth(n) = draft.answer else { panic!() };
        assert_eq!(grade.unwrap_or(Grade::Irrelevant), grades[n], "{draft:?}");
    }
    for (at, draft) in made(&shop, "F31") {
        let Answer::Spans(gold) = &draft.answer else { panic!() };
        let exact = |title: &str| grade_of(&shop.queries[at], by_title(&shop, title)) == Some(Grade::Exact);
        assert!((4..=8).contains(&draft.candidates.len()));
        assert!(draft.candidates.iter().all(|c| exact(c) == (c == &gold[0])), "{draft:?}");
    }
}

#[test]
fn only_the_right_query_leads_to_the_product() {
    let shop = shop();
    for (_, draft) in made(&shop, "A62") {
        let Answer::Spans(gold) = &draft.answer else { panic!() };
        let product = by_title(&shop, part(&draft, "title"));
        for text in &draft.candidates {
            let query = shop.queries.iter().find(|q| q.text == *text).unwrap();
            assert_eq!(grade_of(query, product), (*text == gold[0]).then_some(Grade::Exact), "{draft:?}");
        }
        assert_eq!(draft.candidates.len(), 4);
    }
    for (at, draft) in made(&shop, "A58") {
        assert_eq!(draft.answer, Answer::Text(shop.queries[at].text.clone()));
        assert_eq!(grade_of(&shop.queries[at], by_title(&shop, part(&draft, "title"))), Some(Grade::Exact));
    }
}

#[test]
fn equal_needs_share_an_exact_product_and_different_ones_none() {
    let shop = shop();
    let exact = |text: &str| {
        let query = shop.queries.iter().find(|q| q.text == text).unwrap();
        judged(&shop, query, Grade::Exact)
    };
    for (_, draft) in made(&shop, "A61") {
        let (a, b) = (exact(part(&draft, "query_a")), exact(part(&draft, "query_b")));
        assert_eq!(draft.answer, either(a.iter().any(|p| b.contains(p))), "{draft:?}");
    }
    for (at, draft) in made(&shop, "F34") {
        let Answer::Text(other) = &draft.answer else { panic!() };
        let own = &shop.queries[at].text;
        assert!(jaccard(&words(own), &words(other)) >= 30, "{draft:?}");
        assert!(own != other && exact(own).iter().any(|p| exact(other).contains(p)), "{draft:?}");
    }
}

#[test]
fn pieces_are_those_annotated() {
    let block = chinese();
    let answers = |id: &str| -> Vec<(usize, Answer)> {
        let mut all: Vec<(usize, Answer)> = made(&block, id).into_iter().map(|(at, d)| (at, d.answer)).collect();
        all.dedup();
        all
    };
    let spans = |list: &[&str]| Answer::Spans(list.iter().map(|&s| s.to_owned()).collect());
    assert_eq!(answers("A59"), [(0, spans(&["红茶"])), (1, spans(&["书架"])), (3, spans(&["雨衣"]))]);
    let text = |s: &str| Answer::Text(s.to_owned());
    let split = [(0, text("山野 / 红茶 / 二百克")), (1, text("木制 / 书架")), (4, text("围巾 / 手套"))];
    assert_eq!(answers("A60"), split);
    let narrowed = [(0, spans(&["山野", "二百克"])), (1, spans(&["木制"])), (2, spans(&[])), (4, spans(&[]))];
    assert_eq!(answers("A63"), narrowed);
    // All of the query is in pieces, and nothing else is in it.
    assert!(made(&block, "F32").iter().all(|(at, _)| *at != 3));
    let mut sold = chinese();
    sold.queries[0].text.push_str("[转卖]");
    assert!(made(&sold, "F32").iter().all(|(at, _)| *at != 0));
}

#[test]
fn a_department_is_the_products_own() {
    let shop = shop();
    for (at, draft) in made(&shop, "A64") {
        let product = by_title(&shop, part(&draft, "title"));
        let same = shop.queries[at].category.as_deref() == product.leaf();
        assert_eq!(draft.answer, either(same), "{draft:?}");
    }
    for (at, draft) in made(&shop, "F33") {
        assert_eq!(draft.answer, Answer::Labels(shop.queries[at].category.iter().cloned().collect()));
        assert_eq!(draft.candidates.len(), 4, "all departments of the shop");
    }
}

#[test]
fn a_query_is_written_for_its_own_size_and_thing() {
    let title = words("Sola 36 in. oak vanity with top");
    for (query, fits) in [
        ("36 inch oak vanity", true),
        ("30 inch oak vanity", false),
        ("oak mirror", false),
        // Joined, the two begin like a word of the title; the mirror is not in it all the same.
        ("oak vanity mirror", false),
        ("vanity", true),
        ("", false),
    ] {
        assert_eq!(relevance::names(&words(query), &title), fits, "{query}");
    }
}

//! What is too poorly annotated to ask about.

use super::*;
use crate::task::review::aspects::has_unmarked;

/// A block of one review, asked one question where there is one.
fn alone(lang: Lang, text: &str, stars: u8, told: &[Told]) -> Block {
    let mut block = Block::new("made", Split::Train, lang);
    block.push(Record::Review(review(lang, 0, text, stars, told)));
    block
}

#[test]
fn a_clause_that_judges_has_an_opinion() {
    let told = [("瓶子", "漂亮", "包装", '+')];
    for (text, unmarked) in [("瓶子漂亮", false), ("瓶子漂亮，很好用", true), ("瓶子漂亮，昨天收到", false)]
    {
        assert_eq!(has_unmarked(&alone(Lang::Zh, text, 5, &told).reviews[0]), unmarked, "{text}");
    }
    let left = drafts(&alone(Lang::Zh, "瓶子漂亮，很好用", 5, &told), "A34");
    assert!(left.is_empty());
}

#[test]
fn opinions_without_an_aspect_leave_no_list_of_aspects() {
    let told = [("瓶子", "漂亮", "包装", '+'), ("", "方便", "使用体验", '+')];
    let block = alone(Lang::Zh, "瓶子漂亮，按压也方便", 5, &told);
    assert!(drafts(&block, "F15").is_empty());
    assert!(drafts(&block, "A37").iter().all(|d| spans(&d.1).is_empty()));
    assert!(!drafts(&alone(Lang::Zh, "瓶子漂亮，按压也方便", 5, &told[..1]), "F15").is_empty());
}

#[test]
fn reviews_with_signs_for_words_are_not_written() {
    let told = [("瓶子", "漂亮", "包装", '+')];
    assert!(!drafts(&alone(Lang::Zh, "瓶子很漂亮", 5, &told), "A40").is_empty());
    for text in ["瓶子**漂亮", "瓶子漂亮？？", "瓶子漂亮，昨天下午收到的快递"] {
        assert!(drafts(&alone(Lang::Zh, text, 5, &told), "A40").is_empty(), "{text}");
    }
}

#[test]
fn a_source_without_neutral_opinions_offers_two_labels() {
    let answers = |text: &str, told: &[Told]| {
        drafts(&alone(Lang::Zh, text, 5, told), "F16").into_iter().map(|d| d.1.answer).collect::<Vec<_>>()
    };
    let two = answers("瓶子漂亮", &[("瓶子", "漂亮", "包装", '+')]);
    assert!(!two.is_empty() && two.iter().all(|a| *a == Answer::Nth(0)));
    let three = answers("瓶子漂亮", &[("瓶子", "漂亮", "包装", '0')]);
    assert!(!three.is_empty() && three.iter().all(|a| *a == Answer::NthOfThree(2)));
    assert!(answers("瓶子一般", &[("瓶子", "一般", "包装", '-')]).is_empty());
}

#[test]
fn crowded_and_neutral_sentences_are_not_asked_for_their_topics() {
    let text = "arm switch cord foot";
    let one = [("arm", "", "a", '+'), ("switch", "", "b", '-')];
    let neutral = [("arm", "", "a", '+'), ("switch", "", "b", '0')];
    let four = [("arm", "", "a", '+'), ("switch", "", "b", '-'), ("cord", "", "c", '+'), ("foot", "", "d", '+')];
    for (told, asked) in [(&one[..], true), (&neutral, false), (&four, false)] {
        let mut block = alone(Lang::En, text, 4, told);
        let other = [("lamp", "", "e", '+'), ("rug", "", "f", '+'), ("bed", "", "g", '+'), ("cup", "", "h", '+')];
        block.push(Record::Review(review(Lang::En, 1, "lamp rug bed cup", 4, &other)));
        assert_eq!(drafts(&block, "F18").iter().any(|d| d.0 == 0), asked, "{told:?}");
    }
}

#[test]
fn stars_are_told_by_whole_texts() {
    let long = format!("{}end", "word ".repeat(98));
    for (text, stars, asked) in [
        ("It is a warm and quiet lamp.", 5, true),
        ("It is a warm and quiet lamp.", 4, false),
        (&*long, 5, false),
        (&*format!("{long}."), 5, true),
    ] {
        assert_eq!(!drafts(&alone(Lang::En, text, stars, &[]), "F13").is_empty(), asked, "{text} {stars}");
    }
}

#[test]
fn a_headline_is_about_what_the_review_says() {
    let text = "The lamp gives a warm light and the arm is sturdy enough for me.";
    for (headline, asked) in [("Warm lamp", true), ("Velvet chairs forever", false)] {
        let mut block = alone(Lang::En, text, 5, &[]);
        block.reviews[0].headline = Some(headline.into());
        assert_eq!(!drafts(&block, "F21").is_empty(), asked, "{headline}");
    }
}

#[test]
fn questions_ask_for_one_thing_that_is_shown() {
    let text = "The arm is sturdy, but the switch feels flimsy and cheap to me.";
    let asked = |id: &str, question: &str, span: &str| {
        let mut block = alone(Lang::En, text, 2, &[]);
        ask(&mut block.reviews[0], question, span, true);
        !drafts(&block, id).is_empty()
    };
    assert!(asked("F20", "How is the switch?", "feels flimsy"));
    assert!(!asked("F20", "How is the switch and the arm?", "feels flimsy"));
    assert!(
        asked("F19", "How is the switch?", "feels flimsy") && !asked("F19", "How is the switch?", "but the switch")
    );
    assert!(!asked("F19", "How is the switch of the blanket?", "feels flimsy"));
    let span = "the switch feels flimsy";
    assert!(asked("A42", "How is the switch?", span) && !asked("A42", "How is the switch in a sandbox?", span));
}

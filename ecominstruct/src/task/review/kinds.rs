//! What kind of answer a question expects, by rule on its question word.

use crate::instruction::Lang;

/// Kinds of answer, in the order of the wording's labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AnswerKind {
    /// Yes or no.
    YesNo,
    /// A number or measure.
    Number,
    /// A time or duration.
    Time,
    /// A place.
    Place,
    /// A reason.
    Reason,
    /// A way of doing something.
    Way,
    /// A thing: what or which.
    Thing,
}

/// The kind that the question's words tell; `None` where they tell none, or two: questions for opinions, persons,
/// choices.
pub(super) fn answer_kind(question: &str, lang: Lang) -> Option<AnswerKind> {
    match lang {
        Lang::En => english(question),
        Lang::Zh => chinese(question),
    }
}

/// Whether the question plainly asks for an opinion, whatever its annotation says.
pub(super) fn asks_for_opinion(question: &str) -> bool {
    let lower = question.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let how = words.first() == Some(&"how") || words.starts_with(&["what", "about"]);
    let measured = words.get(1).is_some_and(|w| matches!(*w, "to" | "many" | "long" | "often") || MEASURES.contains(w));
    let told = ["think", "feel", "like", "opinion", "quality", "taste", "texture", "experience", "complaint"];
    (how && !measured)
        || told.iter().any(|w| words.contains(w))
        || ["怎么样", "觉得", "好不好"].iter().any(|w| lower.contains(w))
}

/// Whether the question asks for a measure, that any passage with numbers may seem to tell.
pub(super) fn asks_for_measure(question: &str, lang: Lang) -> bool {
    let lower = question.to_lowercase();
    matches!(answer_kind(question, lang), Some(AnswerKind::Number | AnswerKind::Time))
        || ["how long", "size", "dimension", "尺寸", "大小", "几"].iter().any(|w| lower.contains(w))
}

const VERBS: &[&str] = &[
    "am", "are", "arent", "can", "cant", "could", "did", "didnt", "do", "does", "doesnt", "dont", "had", "has", "have",
    "is", "isnt", "may", "might", "should", "was", "wasnt", "were", "will", "wont", "would", "wouldnt",
];

const MEASURES: &[&str] =
    &["many", "much", "big", "tall", "wide", "heavy", "deep", "thick", "high", "large", "far", "old", "tight", "small"];

/// Verbs of questions for an opinion: how would you rate.
const JUDGE: &[&str] = &["rate", "describe", "rank", "compare", "judge", "find", "enjoy", "evaluate", "review"];

fn english(question: &str) -> Option<AnswerKind> {
    use AnswerKind::{Number, Place, Reason, Thing, Time, Way, YesNo};
    // People often tell a story first; the question is the last sentence.
    let last = question.trim_end_matches(|c: char| !c.is_alphanumeric()).rsplit(['.', '!', '?', ';']).next()?;
    let plain: String = last.to_lowercase().chars().filter(|c| !matches!(c, '\'' | '’' | '"')).collect();
    let words: Vec<&str> = plain.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let (&first, rest) = words.split_first()?;
    let second = rest.first().copied().unwrap_or_default();
    let third = rest.get(1).copied().unwrap_or_default();
    let has = |w: &str| words.contains(&w);
    let opinion = ["think", "feel", "like", "opinion", "about", "quality", "best", "say", "happened", "happens"]
        .iter()
        .any(|w| has(w));
    if question.matches('?').count() > 1 || has("or") || words.len() < 3 {
        return None;
    }
    match first {
        "why" => Some(Reason),
        "how" if second == "come" => Some(Reason),
        "when" if VERBS.contains(&second) => Some(Time),
        "where" => Some(Place),
        "how" => match second {
            "soon" | "often" => Some(Time),
            "long" => (has("last") || has("take") || has("until") || has("battery")).then_some(Time),
            "much" if words.iter().any(|w| matches!(*w, "better" | "like" | "different")) => None,
            measure if MEASURES.contains(&measure) => Some(Number),
            "to" => Some(Way),
            "do" | "can" | "should" | "would" | "could" | "does" | "did"
                if !opinion && is_someone(third) && !rest.get(2).is_some_and(|w| JUDGE.contains(w)) =>
            {
                Some(Way)
            }
            _ => None,
        },
        "what" | "whats" | "which" => {
            let asked =
                rest.iter().copied().find(|w| !matches!(*w, "is" | "are" | "the" | "was" | "were" | "its" | "a" | "s"));
            match asked.unwrap_or_default() {
                "time" | "year" | "day" | "date" | "month" => Some(Time),
                "country" | "place" | "city" | "store" => Some(Place),
                "reason" => Some(Reason),
                "weight" | "length" | "width" | "height" | "diameter" | "thickness" | "dimensions" | "dimension"
                | "price" | "wattage" | "voltage" | "depth" | "capacity" | "maximum" | "minimum" | "measurements"
                | "distance" | "temperature" | "heat" | "speed" | "age" | "ages" | "range" | "circumference"
                | "radius" | "wingspan" | "amperage" => Some(Number),
                // "What size": a number, a letter or a name.
                "size" | "sizes" | "if" | "" => None,
                _ if opinion && !matches!(second, "kind" | "type" | "color" | "brand") => None,
                _ => Some(Thing),
            }
        }
        verb if VERBS.contains(&verb) && words.len() >= 3 => Some(YesNo),
        _ => None,
    }
}

/// Subjects of questions for a way of doing: how do I.
fn is_someone(word: &str) -> bool {
    matches!(word, "i" | "you" | "we" | "one" | "people" | "anyone" | "someone")
}

fn chinese(question: &str) -> Option<AnswerKind> {
    use AnswerKind::{Number, Place, Reason, Thing, Time, Way, YesNo};
    let has = |list: &[&str]| list.iter().any(|w| question.contains(w));
    if question.matches(['？', '?']).count() > 1 || has(&["还是", "怎么样", "怎样？", "如何？", "好不好", "怎么了"])
    {
        return None;
    }
    let reason = has(&["为什么", "为何", "为啥", "什么原因", "怎么回事"]);
    let time = has(&["什么时候", "何时", "几点", "多久", "几天", "多长时间", "哪天", "几号"]);
    let place = has(&["哪里", "哪儿", "何处", "在哪", "什么地方", "哪个城市", "哪发货"]);
    let number = !time
        && has(&[
            "多少", "几个", "几件", "几瓶", "几层", "几斤", "几克", "多大", "多高", "多重", "多长", "多宽", "多厚",
            "几寸",
        ]);
    let way = !reason && has(&["怎么", "如何", "怎样"]);
    let thing = !reason && !time && !place && has(&["什么", "哪个", "哪种", "哪款", "哪一", "啥"]);
    let end = question.trim_end_matches(|c: char| !c.is_alphanumeric());
    let closed = end.ends_with(['吗', '么', '嘛']) && !end.ends_with("什么") && !end.ends_with("怎么");
    let yes_no = closed || has(&["是否", "是不是", "有没有", "能不能", "会不会", "可不可以", "能否", "可否"]);
    let kinds =
        [(yes_no, YesNo), (number, Number), (time, Time), (place, Place), (reason, Reason), (way, Way), (thing, Thing)];
    let mut found = kinds.into_iter().filter(|k| k.0);
    match (found.next(), found.next()) {
        (Some((_, kind)), None) => Some(kind),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::AnswerKind::{Number, Place, Reason, Thing, Time, Way, YesNo};
    use super::*;

    #[test]
    fn english_questions() {
        for (question, kind) in [
            ("Does it fit a queen bed?", Some(YesNo)),
            ("I have a V2 grinder. Will this burr fit it?", Some(YesNo)),
            ("Isn't the lid included?", Some(YesNo)),
            ("Is it red or blue?", None),
            ("how many cups does it hold?", Some(Number)),
            ("What is the weight of the box?", Some(Number)),
            ("How long does the battery last?", Some(Time)),
            ("How long is the cord?", None),
            ("When will it be in stock again?", Some(Time)),
            ("Where is it made?", Some(Place)),
            ("What country is it made in?", Some(Place)),
            ("Why does the lamp flicker?", Some(Reason)),
            ("How do I clean the filter?", Some(Way)),
            ("How does it sound?", None),
            ("How would you rate the lamp?", None),
            ("How do you describe the lamp?", None),
            ("What is the temperature of the light?", Some(Number)),
            ("What age is this puzzle for?", Some(Number)),
            ("How is the taste?", None),
            ("What do you think about the taste?", None),
            ("What material is the strap?", Some(Thing)),
            ("Which bulb goes into this lamp?", Some(Thing)),
            ("Who makes this lamp?", None),
            ("Small? Or large?", None),
            ("", None),
        ] {
            assert_eq!(answer_kind(question, Lang::En), kind, "{question}");
        }
    }

    #[test]
    fn chinese_questions() {
        for (question, kind) in [
            ("这款台灯可以调光吗？", Some(YesNo)),
            ("有没有蓝色？", Some(YesNo)),
            ("一箱有多少瓶？", Some(Number)),
            ("充电要多长时间？", Some(Time)),
            ("什么时候发货？", Some(Time)),
            ("产地是哪里？", Some(Place)),
            ("为什么会漏水？", Some(Reason)),
            ("滤芯怎么清洗？", Some(Way)),
            ("是什么材质的？", Some(Thing)),
            ("质量怎么样？", None),
            ("红色还是蓝色？", None),
            ("为什么没有说明书吗", None),
            ("好的", None),
        ] {
            assert_eq!(answer_kind(question, Lang::Zh), kind, "{question}");
        }
    }
}

//! The wall between held-out texts and training: no text of an evaluation set, whole or in part, enters a built set.
//!
//! It is filled with every held-out text and its fields before anything else is made, and asked about every raw row
//! and every rendered prompt. Three rules, each on text without case, width, white space, punctuation and symbols:
//!
//! - **exact**: the letters and digits are those of a held-out text;
//! - **runs**: of the runs of 8 words (English) or 13 characters (Chinese), at least half of the row's are held out,
//!   or at least half of one held-out text's are in the row. So a held-out text within a longer row is found. A
//!   held-out text shorter than a run is one run itself;
//! - **near**: Jaccard similarity with a held-out text is at least 0.7, over runs of 3 words (English) or 5 characters
//!   (Chinese), and for texts below 20 words or 33 characters, where one changed word would break most of these, over
//!   finer pieces too: runs of 3 letters (English), single characters and pairs (Chinese).
//!
//! The held-out side is small, so the similarity is counted and not estimated: no text that near is missed.
//!
//! Texts below 4 words or 8 characters say too little ("very good", "red shoes") and are not indexed at all.
//! Takes about 80 bytes for each held-out word or Chinese character, fields included.

mod similar;
mod sketch;

use std::collections::{BTreeSet, HashSet};

use crate::instruction::{DataType, Instruction, Lang, is_han};
use crate::shingle::{Folded, Plain, distinct, grams, hash_letters};
use similar::{Postings, Similar};
use sketch::Hashes;

/// Share of runs that gives a leak away.
pub const SHARE: f64 = 0.5;
/// Jaccard similarity that gives a leak away.
pub const NEAR: f64 = 0.7;

/// Index of held-out texts and groups.
#[derive(Debug, Default)]
pub struct Firewall {
    exact: HashSet<u64, Plain>,
    groups: BTreeSet<String>,
    runs: Postings,
    /// Distinct runs of each text in `runs`.
    run_counts: Vec<u32>,
    /// Texts shorter than a run, whole, and the first few units of each.
    short: HashSet<u64, Plain>,
    short_starts: Hashes,
    /// Lengths of the texts in `short`, by language.
    short_lengths: [BTreeSet<usize>; 2],
    near: [Similar; 4],
}

/// Why a text may not enter training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Hit {
    /// It is a held-out text.
    Exact,
    /// It holds much of a held-out text, or is held by one.
    Grams {
        /// Share of the runs of either, in [0.5, 1].
        share: f64,
    },
    /// It is nearly a held-out text.
    Near {
        /// Jaccard similarity, in [0.7, 1].
        jaccard: f64,
    },
    /// Its product, query or dialogue is held out.
    Group,
}

impl Hit {
    /// `exact`, `grams`, `near` or `group`, for reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Grams { .. } => "grams",
            Self::Near { .. } => "near",
            Self::Group => "group",
        }
    }
}

impl Firewall {
    /// A wall that lets everything pass.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of texts indexed.
    pub fn len(&self) -> usize {
        self.exact.len()
    }

    /// Whether no text is indexed.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty()
    }

    /// Holds out `text`. Says whether it is indexed: too short a text is not.
    pub fn add(&mut self, text: &str) -> bool {
        let lang = Lang::detect(text);
        let size = Size::of(lang);
        let folded = Folded::new(text, lang);
        let length = folded.units.len();
        if length < size.least {
            return false;
        }
        if !self.exact.insert(folded.letters_hash()) {
            return true;
        }
        if length < size.run {
            self.short.extend(grams(&folded.units, length));
            self.short_starts.extend(grams(&folded.units, size.least).take(1));
            self.short_lengths[usize::from(lang == Lang::Zh)].insert(length);
        } else {
            let runs = distinct(grams(&folded.units, size.run));
            let id = self.run_counts.len() as u32;
            self.run_counts.push(runs.len() as u32);
            runs.iter().for_each(|run| self.runs.add(*run, id));
        }
        for fine in [true, false] {
            if if fine { length < size.few } else { length >= size.run } {
                let pieces = pieces(&folded, lang, fine);
                self.near[index(lang, fine)].add(distinct(pieces));
            }
        }
        true
    }

    /// Holds out `text` and each of its [`fields`]. Returns how many of these are long enough to be indexed.
    pub fn add_with_fields(&mut self, text: &str) -> usize {
        let mut indexed = usize::from(self.add(text));
        for field in fields(text) {
            indexed += usize::from(self.add(field));
        }
        indexed
    }

    /// Holds out a product, query, cluster or dialogue.
    pub fn add_group(&mut self, group: &str) {
        self.groups.insert(group.to_owned());
    }

    /// Whether `group` is held out ([`Hit::Group`]).
    pub fn check_group(&self, group: &str) -> bool {
        self.groups.contains(group)
    }

    /// The first rule that `text` breaks, in the order exact, runs, near; `None` where it may enter training.
    pub fn check(&self, text: &str) -> Option<Hit> {
        if self.is_empty() {
            return None;
        }
        let lang = Lang::detect(text);
        let folded = Folded::new(text, lang);
        if self.exact.contains(&folded.letters_hash()) {
            return Some(Hit::Exact);
        }
        let hit = self.check_as(&folded, lang);
        // Both languages in one text: a Chinese title in an English prompt is few letters among many.
        let other = || match lang {
            Lang::Zh if text.bytes().any(|b| b.is_ascii_alphabetic()) => Some(Lang::En),
            Lang::En if !text.is_ascii() && text.chars().any(is_han) => Some(Lang::Zh),
            _ => None,
        };
        hit.or_else(|| other().and_then(|lang| self.check_as(&Folded::new(text, lang), lang)))
    }

    /// Holds out what an instruction shows.
    pub fn add_row(&mut self, row: &Instruction) {
        for text in shown(row) {
            // However short, the whole of a question must not come twice.
            if !self.add(text) {
                let (hash, letters) = hash_letters(text);
                self.exact.extend((letters > 0).then_some(hash));
            }
        }
    }

    /// [`Firewall::check`] of what an instruction shows, with the text that was hit.
    pub fn check_row<'a>(&self, row: &'a Instruction) -> Option<(Hit, &'a str)> {
        shown(row).find_map(|text| Some((self.check(text)?, text)))
    }

    /// [`Firewall::check`] of a candidate, or of what fills a prompt. Too short a text may be any label and is nobody's.
    pub fn check_part(&self, text: &str) -> Option<Hit> {
        let lang = Lang::detect(text);
        let words = || text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).count();
        let least = Size::of(lang).least;
        // Most are a word or two: told without the work of folding.
        let short = text.is_ascii() && words() < least || Folded::new(text, lang).units.len() < least;
        if self.is_empty() || short { None } else { self.check(text) }
    }

    fn check_as(&self, folded: &Folded, lang: Lang) -> Option<Hit> {
        let size = Size::of(lang);
        let length = folded.units.len();
        if length < size.least {
            return None;
        }
        let share = self.share(folded, lang);
        if share >= SHARE {
            return Some(Hit::Grams { share });
        }
        let jaccard = [true, false].into_iter().map(|fine| {
            // A similar text is at most 1 / 0.7 times as long: 2 is room for words of other lengths.
            let possible = !fine || length <= 2 * size.few;
            let index = &self.near[index(lang, fine)];
            if !possible || index.is_empty() {
                return 0.0;
            }
            let pieces = pieces(folded, lang, fine);
            if index.is_far(&pieces) { 0.0 } else { index.best(&distinct(pieces)) }
        });
        let jaccard = jaccard.fold(0.0, f64::max);
        (jaccard >= NEAR).then_some(Hit::Near { jaccard })
    }

    /// The larger of: the share of the row's runs that are held out, the greatest share of one held-out text's runs
    /// that are in the row.
    fn share(&self, folded: &Folded, lang: Lang) -> f64 {
        let (size, lengths) = (Size::of(lang), &self.short_lengths[usize::from(lang == Lang::Zh)]);
        let starts = grams(&folded.units, size.least).enumerate().filter(|(_, gram)| self.short_starts.contains(*gram));
        let mut short = starts.flat_map(|(at, _)| lengths.iter().filter_map(move |n| folded.units.get(at..at + n)));
        if short.any(|run| grams(run, run.len()).any(|gram| self.short.contains(&gram))) {
            return 1.0;
        }
        let held = distinct(grams(&folded.units, size.run).filter(|gram| self.runs.holds(*gram)));
        if held.is_empty() {
            return 0.0;
        }
        let of_row = held.len() as f64 / distinct(grams(&folded.units, size.run)).len() as f64;
        let mut texts: Vec<u32> = held.iter().flat_map(|gram| self.runs.texts(*gram)).collect();
        texts.sort_unstable();
        let of_text = texts.chunk_by(|a, b| a == b).map(|same| {
            let runs = same.first().and_then(|&text| self.run_counts.get(text as usize));
            same.len() as f64 / f64::from(*runs.unwrap_or(&u32::MAX))
        });
        of_text.fold(of_row, f64::max)
    }
}

/// The texts of an instruction that must not be on both sides: the input, and the lines of it that are long enough to mean one
/// thing only. Single turns of a dialogue are often set phrases and do not count. Where there is no task, the text may be in
/// the prompt.
fn shown(row: &Instruction) -> impl Iterator<Item = &str> {
    let long = |line: &&str| {
        let (han, letters) = line.chars().fold((0, 0), |(han, letters), c| match c {
            c if is_han(c) => (han + 1, letters),
            c => (han, letters + usize::from(c.is_alphanumeric())),
        });
        han >= 20 || letters >= 60
    };
    let whole = if row.input.is_empty() && row.task.is_empty() { &row.prompt } else { &row.input };
    let lines = whole.lines().map(|line| line.split_once(": ").map_or(line, |l| l.1));
    let several = whole.contains('\n') && row.dtype != Some(DataType::Dialogue);
    std::iter::once(whole.as_str()).chain(lines.filter(move |line| several && long(line)))
}

/// What a released text is put together from: query, titles, attribute blocks, passage, question. Cut at line feeds,
/// tabs and the released sets' own labels, and Chinese also at a comma with a space, which stands between titles.
pub fn fields(text: &str) -> Vec<&str> {
    // The misspelled one is the data's.
    const CUTS: [&str; 11] = [
        "\n",
        "\t",
        "Context: ",
        "Question: ",
        "Query: ",
        "Candidate Document: ",
        "Doc: ",
        "Item 1: ",
        "Item 2: ",
        "Title: ",
        "Attritute: ",
    ];
    let mut pieces = vec![text];
    for cut in CUTS {
        pieces = pieces.iter().flat_map(|piece| piece.split(cut)).collect();
    }
    let comma = |piece: &&'_ str| if Lang::detect(piece) == Lang::Zh { ", " } else { "\n" };
    let pieces = pieces.iter().flat_map(|piece| piece.split(comma(piece)));
    pieces.map(|piece| piece.trim_matches([' ', ',', '.'])).filter(|piece| !piece.is_empty()).collect()
}

/// Lengths of a language, in words or characters.
struct Size {
    /// Below this a text says too little.
    least: usize,
    /// Length of the runs whose share counts.
    run: usize,
    /// Below this fine pieces are compared too: one changed unit takes 3 of `n − 2` word runs (5 of `n − 4` character
    /// runs) away and brings as many, which leaves 0.7 from 19 words (33 characters) on.
    few: usize,
}

impl Size {
    fn of(lang: Lang) -> Self {
        match lang {
            Lang::En => Self { least: 4, run: 8, few: 20 },
            Lang::Zh => Self { least: 8, run: 13, few: 33 },
        }
    }
}

fn index(lang: Lang, fine: bool) -> usize {
    2 * usize::from(lang == Lang::Zh) + usize::from(fine)
}

/// What similarity is counted over, in order of the text.
fn pieces(folded: &Folded, lang: Lang, fine: bool) -> Vec<u32> {
    let short = |hash: u64| (hash >> 32) as u32;
    match (lang, fine) {
        (Lang::En, false) => grams(&folded.units, 3).map(short).collect(),
        (Lang::Zh, false) => grams(&folded.units, 5).map(short).collect(),
        (Lang::En, true) => grams(&folded.letters(), 3).map(short).collect(),
        (Lang::Zh, true) => grams(&folded.units, 1).chain(grams(&folded.units, 2)).map(short).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EN: &str = "The brass lamp on my desk went dark after three quiet evenings of reading by the window";
    const ZH: &str = "复古黄铜台灯书房阅读护眼暖光可调亮度桌面小夜灯送礼物";

    fn wall(texts: &[&str]) -> Firewall {
        let mut wall = Firewall::new();
        texts.iter().for_each(|text| assert!(wall.add(text), "{text}"));
        wall
    }

    #[test]
    fn dressed_copies_are_exact() {
        let wall = wall(&[EN, ZH]);
        for text in [EN, ZH] {
            let spaced: String =
                text.chars().flat_map(|c| if c == ' ' || is_han(c) { [c, ' '] } else { [c, '\u{301}'] }).collect();
            assert_eq!(wall.check(text), Some(Hit::Exact));
            assert_eq!(wall.check(&text.to_uppercase()), Some(Hit::Exact));
            assert_eq!(wall.check(&spaced.replace('\u{301}', "")), Some(Hit::Exact));
            assert_eq!(wall.check(&format!("“{text}！”")), Some(Hit::Exact));
        }
        let wide = |c: char| if c.is_ascii_graphic() { char::from_u32(u32::from(c) + 0xFEE0).unwrap() } else { c };
        assert_eq!(wall.check(&EN.chars().map(wide).collect::<String>()), Some(Hit::Exact));
    }

    #[test]
    fn hidden_in_longer_rows_and_in_the_other_language() {
        let wall = wall(&[EN, ZH, "a lamp that hums softly", "黄铜台灯桌面摆件"]);
        let long = "one two three four five six seven eight nine ten ".repeat(9);
        for text in [EN, ZH, "a lamp that hums softly", "黄铜台灯桌面摆件"] {
            for row in
                [format!("{long}{text} {long}"), format!("这一款我已经用了很久还不错{text}真的可以再买一次谢谢老板")]
            {
                assert_eq!(wall.check(&row), Some(Hit::Grams { share: 1.0 }), "{row}");
            }
        }
        assert_eq!(wall.check(&long), None);
    }

    #[test]
    fn halves_count_both_ways() {
        let wall = wall(&[EN]);
        let words: Vec<&str> = EN.split(' ').collect();
        // 17 words are 10 runs; 12 of these words are 5 runs of the text, and all runs of the row.
        let half = words[..12].join(" ");
        assert_eq!(wall.check(&half), Some(Hit::Grams { share: 1.0 }));
        let tail = " and then a long tale about cats and dogs and rain and old bread".repeat(2);
        assert_eq!(wall.check(&format!("{half}{tail}")), Some(Hit::Grams { share: 0.5 }));
        assert_eq!(wall.check(&format!("{}{tail}", words[..11].join(" "))), None);
    }

    #[test]
    fn one_changed_word_is_near() {
        let wall = wall(&[EN, ZH, "slim navy chinos with hidden pocket", "儿童电动滑板车防滑"]);
        for (edited, least) in [
            (EN.replace("quiet", "noisy"), 0.7),
            (ZH.replace('暖', "冷"), 0.7),
            ("slim navy chinos with hidden pockets".to_owned(), 0.9),
            ("slim navy chinos with a hidden pocket".to_owned(), 0.7),
            ("儿童电动滑板车防震".to_owned(), 0.7),
        ] {
            let hit = wall.check(&edited);
            assert!(matches!(hit, Some(Hit::Near { jaccard }) if jaccard >= least), "{edited}: {hit:?}");
        }
        assert_eq!(wall.check("slim black jeans with hidden pocket"), None);
        assert_eq!(wall.check("成人电动摩托车头盔"), None);
    }

    #[test]
    fn short_and_ordinary_phrases_pass() {
        let mut wall = wall(&[EN, ZH]);
        for text in ["Very good!", "red shoes", "好评", "质量很好", "", "!!!"] {
            assert!(!wall.add(text), "{text}");
            assert_eq!(wall.check(text), None, "{text}");
        }
        assert_eq!(wall.len(), 2);
        assert_eq!(wall.check("The lamp on my desk is fine and I read by the window"), None);
        assert_eq!(Firewall::new().check(EN), None);
    }

    #[test]
    fn whole_questions_do_not_come_twice_however_short() {
        let mut wall = Firewall::new();
        for input in ["好评", "", "blue saw"] {
            wall.add_row(&Instruction { task: "F12".into(), input: input.into(), ..Instruction::default() });
        }
        assert_eq!([wall.check("好评！"), wall.check("Blue  SAW")], [Some(Hit::Exact); 2]);
        assert_eq!([wall.check("好评很多"), wall.check("a blue saw"), wall.check("!?")], [None; 3]);
    }

    #[test]
    fn parts_are_looked_at_where_they_are_long_enough_to_be_someones() {
        let mut wall = wall(&[EN, ZH]);
        for input in ["好评", "blue saw", "don't ask"] {
            wall.add_row(&Instruction { task: "F12".into(), input: input.into(), ..Instruction::default() });
        }
        for text in ["好评", "blue saw", "Don't ask!"] {
            assert_eq!((wall.check(text), wall.check_part(text)), (Some(Hit::Exact), None), "{text}");
        }
        for text in [EN.to_owned(), ZH.to_owned(), format!("Is it said that \"{EN}\"?"), EN.replace(' ', "-")] {
            assert!(wall.check_part(&text).is_some(), "{text}");
        }
        assert_eq!(wall.check_part("Is it said that the lamp is on?"), None);
    }

    #[test]
    fn fields_are_what_a_text_is_made_of() {
        assert_eq!(fields("Context: A lamp, red. It hums.\nQuestion: Why?"), ["A lamp, red. It hums", "Why?"]);
        assert_eq!(fields("Query: 台灯\nCandidate Document: 黄铜 灯, 书架."), ["台灯", "黄铜 灯", "书架"]);
        assert_eq!(fields("Title: 台灯, Attritute: 颜色#:#红"), ["台灯", "颜色#:#红"]);
        let mut wall = Firewall::new();
        assert_eq!(
            wall.add_with_fields("Item 1: 复古黄铜台灯书房, 颜色#:#红,\nItem 2: 护眼学习台灯可调光, 色#:#白"),
            3
        );
        assert_eq!(wall.check("复古黄铜台灯书房"), Some(Hit::Exact));
    }

    #[test]
    fn groups_are_held_out_by_name() {
        let mut wall = Firewall::new();
        wall.add_group("lamp-7");
        assert!(wall.check_group("lamp-7") && !wall.check_group("lamp-70") && wall.is_empty());
        assert_eq!(Hit::Group.name(), "group");
    }
}

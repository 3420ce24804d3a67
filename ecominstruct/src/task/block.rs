//! A block: records of one source, split and language, and what can be looked up among them.
//!
//! Everything that mixes records (distractors, recombination, label sets) stays within a block, so that nothing crosses from one
//! split or side of the held-out border to the other, and memory depends on the size of a block, not of the data.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::OnceLock;

use rustc_hash::FxHashMap;

use super::inventory::Inventory;
use super::near::Near;
use super::product::words::bare;
use super::texts::Texts;
use crate::instruction::{Lang, is_han};
use crate::raw::Split;
use crate::record::{Dialogue, Grade, Polarity, Product, Query, Record, Review, Speaker};
use crate::shingle::{Plain, hash_chars};

/// Records of one source, split and language.
#[derive(Debug, Default)]
pub struct Block {
    /// Name of the source.
    pub source: String,
    /// Published split.
    pub split: Split,
    /// Language of all texts.
    pub lang: Lang,
    /// Product listings.
    pub products: Vec<Product>,
    /// Reviews and passages.
    pub reviews: Vec<Review>,
    /// Dialogues.
    pub dialogues: Vec<Dialogue>,
    /// Search queries.
    pub queries: Vec<Query>,
    /// Where each product, review and query is, by its raw id.
    places: [FxHashMap<String, usize>; 3],
    lookup: Lookup,
}

/// What is worked out when it is first asked for.
#[derive(Debug, Default)]
struct Lookup {
    leaves: OnceLock<Inventory>,
    departments: OnceLock<Inventory>,
    kinds: OnceLock<Inventory>,
    attributes: OnceLock<BTreeMap<String, Inventory>>,
    topics: OnceLock<Inventory>,
    intents: OnceLock<Inventory>,
    acts: OnceLock<Inventory>,
    by_leaf: OnceLock<BTreeMap<String, Vec<usize>>>,
    by_cluster: OnceLock<BTreeMap<String, Vec<usize>>>,
    by_intent: OnceLock<BTreeMap<String, Vec<usize>>>,
    by_kind: OnceLock<BTreeMap<String, Vec<(usize, usize)>>>,
    words_of_kind: OnceLock<BTreeMap<String, Texts>>,
    values_of_name: OnceLock<BTreeMap<String, Texts>>,
    values_of_leaf: OnceLock<HashSet<u64, Plain>>,
    by_attribute: OnceLock<BTreeMap<String, Vec<(usize, usize)>>>,
    by_product: OnceLock<BTreeMap<usize, Vec<(usize, Grade)>>>,
    agents_say: OnceLock<HashMap<u64, Vec<usize>, Plain>>,
    neutral: OnceLock<bool>,
    neutral_opinions: OnceLock<bool>,
    aspects: OnceLock<Texts>,
    usual_mentions: OnceLock<Texts>,
    unmarked: OnceLock<Vec<OnceLock<bool>>>,
    said: OnceLock<Vec<OnceLock<Vec<u64>>>>,
    telling_leaf: OnceLock<Vec<OnceLock<bool>>>,
    doubles: OnceLock<Vec<OnceLock<Vec<usize>>>>,
    near_products: OnceLock<Near>,
    near_reviews: OnceLock<Near>,
    near_queries: OnceLock<Near>,
    near_dialogues: OnceLock<Near>,
}

/// Reviews looked at to see whether a source has a neutral polarity.
const LOOKED_AT: usize = 2_000;

/// Index of all attribute names, whatever the category, in the map behind [`Block::attribute_names`].
const ANY: &str = "";

impl Block {
    /// An empty block.
    pub fn new(source: impl Into<String>, split: Split, lang: Lang) -> Self {
        Self { source: source.into(), split, lang, ..Self::default() }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.products.len() + self.reviews.len() + self.dialogues.len() + self.queries.len()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a record. One that is there already (equal `raw_id` and type) only gains the new one's judgements, questions and
    /// opinions: sources repeat a listing for each pair it is judged in.
    pub fn push(&mut self, record: Record) {
        self.lookup = Lookup::default();
        let [products, reviews, queries] = &mut self.places;
        match record {
            Record::Product(new) => match products.entry(new.meta.raw_id.clone()) {
                std::collections::hash_map::Entry::Occupied(at) => {
                    let old = &mut self.products[*at.get()];
                    old.judged.extend(new.judged.into_iter().filter(|j| !old.judged.contains(j)).collect::<Vec<_>>());
                }
                std::collections::hash_map::Entry::Vacant(at) => {
                    at.insert(self.products.len());
                    self.products.push(new);
                }
            },
            Record::Review(new) => match reviews.entry(new.meta.raw_id.clone()) {
                std::collections::hash_map::Entry::Occupied(at) => {
                    let old = &mut self.reviews[*at.get()];
                    let questions: Vec<_> = new.questions.into_iter().filter(|q| !old.questions.contains(q)).collect();
                    old.questions.extend(questions);
                    let opinions: Vec<_> = new.opinions.into_iter().filter(|o| !old.opinions.contains(o)).collect();
                    old.opinions.extend(opinions);
                    old.opinions.sort_by_key(|o| (o.aspect, o.opinion));
                }
                std::collections::hash_map::Entry::Vacant(at) => {
                    at.insert(self.reviews.len());
                    self.reviews.push(new);
                }
            },
            Record::Dialogue(new) => self.dialogues.push(new),
            Record::Query(new) => match queries.entry(new.meta.raw_id.clone()) {
                std::collections::hash_map::Entry::Occupied(at) => {
                    let old = &mut self.queries[*at.get()];
                    old.judged.extend(new.judged.into_iter().filter(|j| !old.judged.contains(j)).collect::<Vec<_>>());
                }
                std::collections::hash_map::Entry::Vacant(at) => {
                    at.insert(self.queries.len());
                    self.queries.push(new);
                }
            },
        }
    }

    /// The product of this `raw_id`, if it is in the block.
    pub fn product(&self, raw_id: &str) -> Option<usize> {
        self.places[0].get(raw_id).copied()
    }

    /// Leaf categories of the products (else of the reviews), siblings being those of one parent.
    pub fn leaves(&self) -> &Inventory {
        self.lookup.leaves.get_or_init(|| {
            let last = |path: &[String]| -> Vec<(String, Option<String>)> {
                let parent = path.len().checked_sub(2).and_then(|i| path.get(i)).cloned();
                path.last().cloned().map(|leaf| (leaf, parent)).into_iter().collect()
            };
            let all: Vec<_> = self.categories().map(last).collect();
            Inventory::new(all.iter().map(|r| r.iter().map(|(l, p)| (l.as_str(), p.as_deref())).collect()))
        })
    }

    /// Top-level categories of the products (else of the reviews).
    pub fn departments(&self) -> &Inventory {
        self.lookup.departments.get_or_init(|| {
            Inventory::new(self.categories().filter_map(|c| c.first()).map(|c| vec![(c.as_str(), None)]))
        })
    }

    fn categories(&self) -> impl Iterator<Item = &[String]> {
        let products = self.products.iter().map(|p| p.category.as_slice());
        let reviews = self.reviews.iter().map(|r| r.category.as_slice());
        products.chain(reviews).filter(|c| !c.is_empty())
    }

    /// Types of the typed spans of products and of query segments.
    pub fn kinds(&self) -> &Inventory {
        self.lookup.kinds.get_or_init(|| {
            let products = self.products.iter().map(|p| &p.spans);
            let all = products.chain(self.queries.iter().map(|q| &q.segments));
            Inventory::new(all.map(|spans| spans.iter().map(|s| (s.kind.as_str(), None)).collect()))
        })
    }

    /// Attribute names of a leaf category; of the whole block where the category is none or has fewer than eight names.
    pub fn attribute_names(&self, leaf: Option<&str>) -> &Inventory {
        static NONE: OnceLock<Inventory> = OnceLock::new();
        let all = self.lookup.attributes.get_or_init(|| {
            type Rows<'a> = Vec<Vec<(&'a str, Option<&'a str>)>>;
            let mut groups: BTreeMap<&str, Rows<'_>> = BTreeMap::new();
            for product in &self.products {
                let names: Vec<_> = product.attributes.iter().map(|a| (a.name.as_str(), None)).collect();
                if let Some(leaf) = product.leaf() {
                    groups.entry(leaf).or_default().push(names.clone());
                }
                groups.entry(ANY).or_default().push(names);
            }
            groups.into_iter().map(|(leaf, rows)| (leaf.to_owned(), Inventory::new(rows))).collect()
        });
        leaf.and_then(|l| all.get(l))
            .filter(|names| names.len() >= 8)
            .or_else(|| all.get(ANY))
            .unwrap_or_else(|| NONE.get_or_init(Inventory::default))
    }

    /// Topics of the reviews (aspect categories), from their topics and opinions.
    pub fn topics(&self) -> &Inventory {
        self.lookup.topics.get_or_init(|| {
            Inventory::new(self.reviews.iter().map(|r| r.topics.iter().map(|t| (t.name.as_str(), None)).collect()))
        })
    }

    /// Intents of the dialogues.
    pub fn intents(&self) -> &Inventory {
        self.lookup.intents.get_or_init(|| {
            Inventory::new(self.dialogues.iter().filter_map(|d| d.intent.as_deref()).map(|i| vec![(i, None)]))
        })
    }

    /// Dialogue acts of the turns.
    pub fn acts(&self) -> &Inventory {
        self.lookup.acts.get_or_init(|| {
            let turns = self.dialogues.iter().flat_map(|d| &d.turns);
            Inventory::new(turns.map(|t| t.acts.iter().map(|a| (a.as_str(), None)).collect()))
        })
    }

    /// Products of each leaf category.
    pub fn products_of_leaf(&self, leaf: &str) -> &[usize] {
        let map = self.lookup.by_leaf.get_or_init(|| group(self.products.iter().map(|p| p.leaf().map(str::to_owned))));
        map.get(leaf).map_or(&[], Vec::as_slice)
    }

    /// Listings of each product cluster.
    pub fn products_of_cluster(&self, cluster: &str) -> &[usize] {
        let map = self.lookup.by_cluster.get_or_init(|| group(self.products.iter().map(|p| p.cluster.clone())));
        map.get(cluster).map_or(&[], Vec::as_slice)
    }

    /// Dialogues of each intent.
    pub fn dialogues_of_intent(&self, intent: &str) -> &[usize] {
        let map = self.lookup.by_intent.get_or_init(|| group(self.dialogues.iter().map(|d| d.intent.clone())));
        map.get(intent).map_or(&[], Vec::as_slice)
    }

    /// The dialogues in which an agent's turn is this text, in order, as often as there are such turns.
    pub(super) fn dialogues_where_agents_say(&self, text: &str) -> &[usize] {
        let map = self.lookup.agents_say.get_or_init(|| {
            let mut map: HashMap<u64, Vec<usize>, Plain> = HashMap::default();
            for (i, dialogue) in self.dialogues.iter().enumerate() {
                for turn in dialogue.turns.iter().filter(|t| t.speaker == Speaker::Agent) {
                    map.entry(hash_chars(turn.text.chars())).or_default().push(i);
                }
            }
            map
        });
        map.get(&hash_chars(text.chars())).map_or(&[], Vec::as_slice)
    }

    /// Spans of each type, as (product, span).
    pub fn spans_of_kind(&self, kind: &str) -> &[(usize, usize)] {
        let map = self.lookup.by_kind.get_or_init(|| {
            let mut map: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
            for (p, product) in self.products.iter().enumerate() {
                for (s, span) in product.spans.iter().enumerate() {
                    map.entry(span.kind.clone()).or_default().push((p, s));
                }
            }
            map
        });
        map.get(kind).map_or(&[], Vec::as_slice)
    }

    /// Attributes of each name, as (product, attribute).
    pub fn attributes_of_name(&self, name: &str) -> &[(usize, usize)] {
        let map = self.lookup.by_attribute.get_or_init(|| {
            let mut map: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
            for (p, product) in self.products.iter().enumerate() {
                for (a, attribute) in product.attributes.iter().enumerate() {
                    map.entry(attribute.name.clone()).or_default().push((p, a));
                }
            }
            map
        });
        map.get(name).map_or(&[], Vec::as_slice)
    }

    /// The words of all spans of a type.
    pub(super) fn words_of_kind(&self, kind: &str) -> &Texts {
        static NONE: OnceLock<Texts> = OnceLock::new();
        let map = self.lookup.words_of_kind.get_or_init(|| {
            let mut map: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for product in &self.products {
                for span in &product.spans {
                    map.entry(&span.kind).or_default().extend(span.span.of(&product.title));
                }
            }
            map.into_iter().map(|(kind, words)| (kind.to_owned(), words.into_iter().collect())).collect()
        });
        map.get(kind).unwrap_or_else(|| NONE.get_or_init(Texts::default))
    }

    /// The values of all attributes of a name, in lower case as far as ASCII goes.
    pub(super) fn values_of_name(&self, name: &str) -> &Texts {
        static NONE: OnceLock<Texts> = OnceLock::new();
        let map = self.lookup.values_of_name.get_or_init(|| {
            let mut map: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
            for attribute in self.products.iter().flat_map(|p| &p.attributes) {
                map.entry(&attribute.name).or_default().insert(attribute.value.to_ascii_lowercase());
            }
            map.into_iter().map(|(name, all)| (name.to_owned(), all.iter().map(String::as_str).collect())).collect()
        });
        map.get(name).unwrap_or_else(|| NONE.get_or_init(Texts::default))
    }

    /// Whether a product of a leaf category has this value of an attribute, whatever its case and punctuation.
    pub(super) fn leaf_has_value(&self, leaf: &str, name: &str, value: &str) -> bool {
        let key = |leaf: &str, name: &str, value: &str| {
            hash_chars(leaf.chars().chain(['\0']).chain(name.chars()).chain(['\0']).chain(bare(value)))
        };
        let all = self.lookup.values_of_leaf.get_or_init(|| {
            let all = self.products.iter().filter_map(|p| Some((p.leaf()?, &p.attributes)));
            all.flat_map(|(leaf, facts)| facts.iter().map(move |a| key(leaf, &a.name, &a.value))).collect()
        });
        all.contains(&key(leaf, name, value))
    }

    /// Queries that were judged against a product, with their grades.
    pub fn queries_of_product(&self, product: usize) -> &[(usize, Grade)] {
        let map = self.lookup.by_product.get_or_init(|| {
            let mut map: BTreeMap<usize, Vec<(usize, Grade)>> = BTreeMap::new();
            for (q, query) in self.queries.iter().enumerate() {
                for judged in &query.judged {
                    if let Some(p) = self.product(&judged.product) {
                        map.entry(p).or_default().push((q, judged.grade));
                    }
                }
            }
            map
        });
        map.get(&product).map_or(&[], Vec::as_slice)
    }

    /// Whether some of the first reviews are judged neither good nor bad.
    pub(super) fn judges_neutrally(&self) -> bool {
        let neutral = |r: &Review| r.polarity == Some(Polarity::Neutral);
        *self.lookup.neutral.get_or_init(|| self.reviews.iter().take(LOOKED_AT).any(neutral))
    }

    /// Whether some of the first reviews have an opinion that is neither praise nor blame.
    pub(super) fn has_neutral_opinions(&self) -> bool {
        let neutral = |r: &Review| r.opinions.iter().any(|o| o.polarity == Polarity::Neutral);
        *self.lookup.neutral_opinions.get_or_init(|| self.reviews.iter().take(LOOKED_AT).any(neutral))
    }

    /// The words of all aspects of opinions.
    pub(super) fn aspects(&self) -> &Texts {
        self.lookup.aspects.get_or_init(|| {
            let all = self.reviews.iter().flat_map(|r| r.opinions.iter().filter_map(|o| o.aspect?.of(&r.text)));
            all.collect()
        })
    }

    /// Words that are mentions, of whatever type, at least twice.
    fn usual_mentions(&self) -> &Texts {
        self.lookup.usual_mentions.get_or_init(|| {
            let mut seen: FxHashMap<&str, usize> = FxHashMap::default();
            let all = self.products.iter().flat_map(|p| p.spans.iter().filter_map(|s| s.span.of(&p.title)));
            all.for_each(|words| *seen.entry(words).or_default() += 1);
            seen.into_iter().filter(|(_, times)| *times >= 2).map(|(words, _)| words).collect()
        })
    }

    /// Whether a title with typed spans has words of two Chinese characters or more that are usual mentions and not
    /// annotated: annotators pass things over. Worked out once for each product.
    pub(super) fn has_unmarked(&self, product: &Product) -> bool {
        let work = || {
            let title = &product.title;
            let free =
                |start: usize, end: usize| product.spans.iter().all(|s| end <= s.span.start || s.span.end <= start);
            let long = |part: &str| part.chars().filter(|&c| is_han(c)).nth(1).is_some();
            let fits = |start, end| free(start, end) && title.get(start..end).is_some_and(long);
            !product.spans.is_empty() && self.usual_mentions().any_in(title, fits)
        };
        let all = self.lookup.unmarked.get_or_init(|| self.products.iter().map(|_| OnceLock::new()).collect());
        match self.products.element_offset(product).and_then(|at| all.get(at)) {
            Some(known) => *known.get_or_init(work),
            None => work(),
        }
    }

    /// `work`, worked out once for each product of the block: whether its leaf category says what it is.
    pub(super) fn telling_leaf(&self, product: &Product, work: impl FnOnce() -> bool) -> bool {
        let all = self.lookup.telling_leaf.get_or_init(|| self.products.iter().map(|_| OnceLock::new()).collect());
        match self.products.element_offset(product).and_then(|at| all.get(at)) {
            Some(known) => *known.get_or_init(work),
            None => work(),
        }
    }

    /// `work`, worked out once for product `at`: listings that are easily taken for it.
    pub(super) fn doubles(&self, at: usize, work: impl FnOnce() -> Vec<usize>) -> &[usize] {
        let all = self.lookup.doubles.get_or_init(|| self.products.iter().map(|_| OnceLock::new()).collect());
        all.get(at).map_or(&[], |known| known.get_or_init(work))
    }

    /// What review `at` says, as `content` tells it, worked out once.
    pub(super) fn said(&self, at: usize, content: fn(&str) -> Vec<u64>) -> &[u64] {
        let all = self.lookup.said.get_or_init(|| self.reviews.iter().map(|_| OnceLock::new()).collect());
        let Some((said, review)) = all.get(at).zip(self.reviews.get(at)) else { return &[] };
        said.get_or_init(|| content(&review.text))
    }

    /// Products by likeness of their titles (descriptions where there is no title).
    pub fn near_products(&self) -> &Near {
        let text = |p: &'_ Product| -> String {
            if p.title.is_empty() { p.description.clone().unwrap_or_default() } else { p.title.clone() }
        };
        self.lookup.near_products.get_or_init(|| {
            let texts: Vec<String> = self.products.iter().map(text).collect();
            Near::new(texts.iter().map(String::as_str))
        })
    }

    /// Reviews by likeness of their texts.
    pub fn near_reviews(&self) -> &Near {
        self.lookup.near_reviews.get_or_init(|| Near::new(self.reviews.iter().map(|r| r.text.as_str())))
    }

    /// Queries by likeness.
    pub fn near_queries(&self) -> &Near {
        self.lookup.near_queries.get_or_init(|| Near::new(self.queries.iter().map(|q| q.text.as_str())))
    }

    /// Dialogues by likeness of their last turns.
    pub fn near_dialogues(&self) -> &Near {
        let last = |d: &'_ Dialogue| d.turns.last().map(|t| t.text.clone()).unwrap_or_default();
        self.lookup.near_dialogues.get_or_init(|| {
            let texts: Vec<String> = self.dialogues.iter().map(last).collect();
            Near::new(texts.iter().map(String::as_str))
        })
    }
}

fn group(keys: impl Iterator<Item = Option<String>>) -> BTreeMap<String, Vec<usize>> {
    let mut map: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (i, key) in keys.enumerate() {
        if let Some(key) = key {
            map.entry(key).or_default().push(i);
        }
    }
    map
}

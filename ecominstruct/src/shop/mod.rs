//! The demo shop: products, reviews, searches and customer dialogues in English and Chinese, made from word tables and a seed.
//!
//! It gives a first training run something to learn without a download, and it is honest about what is held out: some
//! products appear, with all that is said about them, only in the test part, and one task is never trained.
//!
//! The tables (`words.*.txt`, `tasks.*.txt`) hold the vocabulary, the sentence and title patterns and the wording of the
//! questions. Since every text is put together from known parts, all labels and spans are known by construction.

mod build;
mod dialogue;
mod draft;
mod product;
mod query;
mod review;
mod task;
#[cfg(test)]
mod tests;
mod words;
mod world;

use crate::instruction::{Instruction, Lang};
use crate::splitmix::SplitMix;
use world::World;

/// A made-up shop. The same seed gives the same shop on every machine.
#[derive(Debug)]
pub struct Shop {
    /// All products, English ones first, by category.
    pub products: Vec<Product>,
    /// Reviews of the products.
    pub reviews: Vec<Review>,
    /// Judged pairs of a search and a product.
    pub queries: Vec<Query>,
    /// Talks of customers with the shop.
    pub dialogues: Vec<Dialogue>,
    seed: u64,
    worlds: [World; 2],
}

/// A product with the titles it is listed under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Unique name, such as `p-en-017`.
    pub id: String,
    /// Language of all its texts.
    pub lang: Lang,
    /// Category, one of ten per language.
    pub category: &'static str,
    /// Invented brand.
    pub brand: &'static str,
    /// What it is (jacket).
    pub item: &'static str,
    /// Another word for what it is (coat).
    pub alias: &'static str,
    /// The three attributes of its category, in the category's order.
    pub attributes: Vec<Attribute>,
    /// A selling point without a name (slim fit).
    pub modifier: &'static str,
    /// For whom or what it is.
    pub purpose: &'static str,
    /// Whether the product and all that is said about it stay out of training.
    pub heldout: bool,
    /// Its listings; the first names every attribute.
    pub listings: Vec<Listing>,
}

/// An attribute of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute {
    /// Name (color).
    pub name: &'static str,
    /// Value as titles write it (navy).
    pub value: &'static str,
    /// Wider term (blue), for attributes that have one.
    pub family: Option<&'static str>,
}

/// One title of a product; some leave out the brand or an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Unique name, such as `p-en-017-l2`.
    pub id: String,
    /// The title.
    pub title: String,
    /// Where the title names the brand and the attributes, in order of the text.
    pub spans: Vec<Span>,
}

/// Where a title names an attribute: `title[start..end]`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Attribute name, or the word for brand.
    pub name: &'static str,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// A review of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// Unique name, such as `p-en-017-r3`.
    pub id: String,
    /// Index into [`Shop::products`].
    pub product: usize,
    /// One to three sentences.
    pub text: String,
    /// What is judged and how, in order of the text; empty where the writer judges nothing.
    pub opinions: Vec<Opinion>,
}

impl Review {
    /// The polarity all opinions share; none where they differ or there are none.
    pub fn polarity(&self) -> Option<Polarity> {
        let first = self.opinions.first()?.polarity;
        self.opinions.iter().all(|o| o.polarity == first).then_some(first)
    }
}

/// One judgement in a review: bytes `aspect.0..aspect.1` are called `opinion.0..opinion.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opinion {
    /// First byte of the aspect term, and one past its last.
    pub aspect: (usize, usize),
    /// First byte of the opinion words, and one past their last; a negation stays outside.
    pub opinion: (usize, usize),
    /// Whether it is praise or blame, negations counted in.
    pub polarity: Polarity,
}

/// Praise or blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Polarity {
    /// Praise.
    Positive,
    /// Blame.
    Negative,
}

/// A search, judged against one product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Unique name, such as `p-en-017-q1`.
    pub id: String,
    /// Index into [`Shop::products`].
    pub product: usize,
    /// What was typed.
    pub text: String,
    /// What it asks for: slot names of the title patterns with a value, a wider term or another word.
    pub wants: Vec<(&'static str, &'static str)>,
    /// Whether the product is what was searched for; else one want is wrong.
    pub relevant: bool,
}

/// A short talk of a customer with the shop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialogue {
    /// Unique name, such as `p-en-017-d0`.
    pub id: String,
    /// Index into [`Shop::products`].
    pub product: usize,
    /// One turn a line, with the speaker.
    pub text: String,
    /// What the customer wants, one of nine per language.
    pub intent: &'static str,
}

/// The instructions of a shop, in three parts that share no product.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DemoData {
    /// To train on, shuffled.
    pub train: Vec<Instruction>,
    /// The trained tasks on products, reviews, searches and dialogues that training never saw.
    pub heldout_seen: Vec<Instruction>,
    /// A task that training never saw (product select), on the same held-out products.
    pub heldout_task: Vec<Instruction>,
}

/// The instructions of a shop: twelve trained tasks and one held-out task in both languages.
pub fn instructions(shop: &Shop) -> DemoData {
    task::instructions(shop)
}

impl Shop {
    /// Makes the shop of a seed: 600 products in ten categories and two languages, a fifth of them held out.
    pub fn open(seed: u64) -> Self {
        build::build(seed)
    }

    fn world(&self, lang: Lang) -> &World {
        match lang {
            Lang::En => &self.worlds[0],
            Lang::Zh => &self.worlds[1],
        }
    }
}

/// One of `items`, which must not be empty; the default of `T` if they are.
fn pick<T: Copy + Default>(rng: &mut SplitMix, items: &[T]) -> T {
    items.get(rng.below(items.len())).copied().unwrap_or_default()
}

/// True `percent` times in a hundred.
fn chance(rng: &mut SplitMix, percent: usize) -> bool {
    rng.below(100) < percent
}

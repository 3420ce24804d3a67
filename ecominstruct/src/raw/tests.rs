//! What all tests of adapters share, and a run over the real data where it lies beside the repository.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use super::*;
use crate::record::{Dialogue, Product, Review};

/// A file `name` with `content` in a folder of its own, which lives as long as the first of the two.
pub(super) fn raw_file(name: &str, content: &[u8]) -> (tempfile::TempDir, RawFile) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    (folder, RawFile { path, name: name.into(), split: Split::Train })
}

/// The counts of what `act` does.
pub(super) fn told(file: &RawFile, act: impl FnOnce(&mut Rows<'_>)) -> RowReport {
    let mut emit = |_| {};
    let mut rows = Rows::new(file, &mut emit);
    act(&mut rows);
    rows.finish()
}

pub(super) fn bad(report: &RowReport) -> &[String] {
    assert_eq!(report.bad.min(10), report.first_bad.len());
    &report.first_bad
}

pub(super) fn read(adapter: Read, name: &str, content: &str) -> (Vec<Record>, RowReport) {
    let (_folder, file) = raw_file(name, content.as_bytes());
    let mut found = Vec::new();
    let mut emit = |record| found.push(record);
    let mut rows = Rows::new(&file, &mut emit);
    adapter(&file, &mut rows).unwrap();
    let report = rows.finish();
    assert_eq!(report.records, found.len());
    (found, report)
}

pub(super) fn products(adapter: Read, name: &str, content: &str) -> (Vec<Product>, RowReport) {
    let (found, report) = read(adapter, name, content);
    let of = |record| if let Record::Product(r) = record { r } else { panic!("{record:?}") };
    (found.into_iter().map(of).collect(), report)
}

pub(super) fn reviews(adapter: Read, name: &str, content: &str) -> (Vec<Review>, RowReport) {
    let (found, report) = read(adapter, name, content);
    let of = |record| if let Record::Review(r) = record { r } else { panic!("{record:?}") };
    (found.into_iter().map(of).collect(), report)
}

pub(super) fn dialogues(adapter: Read, name: &str, content: &str) -> (Vec<Dialogue>, RowReport) {
    let (found, report) = read(adapter, name, content);
    let of = |record| if let Record::Dialogue(r) = record { r } else { panic!("{record:?}") };
    (found.into_iter().map(of).collect(), report)
}

#[test]
fn packed_files_are_found_and_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = adapters().iter().find(|a| a.name == "waimai_reviews").unwrap();
    let missing = adapter.locate(folder.path()).unwrap_err();
    assert!(
        missing.to_string().starts_with("waimai_reviews/waimai_10k.csv: wanted this file or waimai_reviews/"),
        "{missing}"
    );
    let path = folder.path().join("waimai_reviews/waimai_10k.csv.gz");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let mut gz = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
    gz.write_all("\u{FEFF}label,review\n1,好\n".as_bytes()).unwrap();
    gz.finish().unwrap();
    let files = adapter.locate(folder.path()).unwrap();
    assert_eq!((files[0].path.as_path(), files[0].name.as_str()), (path.as_path(), "waimai_reviews/waimai_10k.csv"));
    assert_eq!(told(&files[0], |rows| (adapter.read)(&files[0], rows).unwrap()).records, 1);
}

#[test]
fn what_does_not_hold_is_refused() {
    use crate::record::{Attribute, Opinion, Polarity, Span, TypedSpan};
    let product =
        Product { meta: Meta { raw_id: "x".into(), ..Meta::default() }, title: "Red é".into(), ..Product::default() };
    let attribute = |value: &str, start, end| Product {
        attributes: vec![Attribute { name: "n".into(), value: value.into(), span: Some(Span { start, end }) }],
        ..product.clone()
    };
    let mention = |start, end| TypedSpan { span: Span { start, end }, kind: "k".into() };
    let review =
        |text: &str, stars| Review { meta: product.meta.clone(), text: text.into(), stars, ..Review::default() };
    let opinion =
        Opinion { aspect: Some(Span { start: 0, end: 9 }), opinion: None, category: None, polarity: Polarity::Neutral };
    let cases = [
        (Record::Product(product.clone()), ""),
        (Record::Product(attribute("red", 0, 3)), ""),
        (Record::Product(attribute("É", 4, 6)), ""),
        (Record::Product(attribute("blue", 0, 3)), "wanted \"blue\" of \"n\" at 0..3, found \"Red\""),
        (Record::Product(attribute("é", 4, 5)), "wanted whole words as attribute, found bytes 4..5 of a text of 6"),
        (Record::Product(attribute("", 0, 3)), "wanted a clean text as attribute value, found nothing"),
        (
            Record::Product(Product { spans: vec![mention(0, 3), mention(2, 3)], ..product.clone() }),
            "wanted mentions in order without overlap, found one at 2 before 3",
        ),
        (
            Record::Product(Product { title: String::new(), ..product.clone() }),
            "wanted a title, a description or attributes, found none",
        ),
        (
            Record::Product(Product { meta: Meta::default(), ..product.clone() }),
            "wanted a raw id and a group, found none",
        ),
        (Record::Review(review("a\0b", None)), "wanted a clean text as review, found a NUL character"),
        (
            Record::Review(review("a\u{FFFD}", None)),
            "wanted a clean text as review, found a character that was lost before (U+FFFD)",
        ),
        (
            Record::Review(review("a  b", None)),
            "wanted a clean text as review, found control characters or white space that is not single spaces",
        ),
        (Record::Review(review("a", Some(6))), "wanted 1 to 5 stars, found 6"),
        (
            Record::Review(Review { opinions: vec![opinion], ..review("a", None) }),
            "wanted whole words as aspect, found bytes 0..9 of a text of 1",
        ),
        (
            Record::Dialogue(Dialogue { meta: product.meta.clone(), ..Dialogue::default() }),
            "wanted at least one turn, found none",
        ),
    ];
    let (_folder, file) = raw_file("set/a", b"");
    for (record, wanted) in cases {
        let report = told(&file, |rows| rows.push(7, record.clone()));
        let wanted: Vec<_> = (!wanted.is_empty()).then(|| format!("set/a:7: {wanted}")).into_iter().collect();
        assert_eq!((bad(&report), report.records), (&wanted[..], 1 - wanted.len()), "{record:?}");
    }
}

/// Records and bad rows of each folder, as the data's own description counts its rows. What is bad there: masks in
/// copy, attributes without a value, lost characters, a question without replies, values that the title does not have,
/// package weights and attributes that cannot be read as evidence, talk about a company, neutral labels on praise.
const REAL: [(&str, usize, usize); 24] = [
    ("absa_tv_tshirt", 6_993, 0),
    ("advertisegen", 1_070 - 341, 341),
    ("ae110k_attributes", 2_092, 0),
    ("amazon_pqa", 31_594 - 1_021, 1_021),
    ("cosmetics_reviews", 3_218, 0),
    ("fashion_attributes", 1_099, 0),
    ("fewsum_amazon", 60 * 8, 0),
    ("flipkart_products", 1_050 - 4, 4),
    ("hint3_curekart", 1_544, 0),
    ("home_depot_search", 2 * 20_000, 0),
    ("jd_title_ner", 3_999, 0),
    ("jddc_dialogues", 994 + 293 - 1, 1),
    ("laptop_acos", 4_036, 40),
    ("mg_shopdial", 64, 0),
    ("oa_mine_attributes", 1_943, 0),
    ("online_shopping_reviews", 20_000 - 2_021, 2_021),
    ("pricerunner_categories", 19_991, 0),
    ("product_matching_er", 2 * 31_277, 0),
    ("subjqa", 4_881, 0),
    ("taobao_ner", 5_499, 0),
    ("waimai_reviews", 11_980, 0),
    ("wdc_pave", 1_420 - 12, 12),
    ("womens_clothing_reviews", 12_000, 0),
    ("zh_product_absa", 12_830 - 1_215, 1_215),
];

#[test]
fn all_folders_give_the_rows_that_their_description_counts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/raw");
    assert!(adapters().iter().map(|a| a.name).eq(REAL.map(|(name, ..)| name)));
    if !root.is_dir() {
        eprintln!("passed over: {} is not there", root.display());
        return;
    }
    let mut wrong = Vec::new();
    for (adapter, (name, records, bad_rows)) in adapters().iter().zip(REAL) {
        let (mut found, mut bad, mut ids) = (0, Vec::new(), BTreeSet::new());
        let mut bad_count = 0;
        for file in adapter.locate(&root).unwrap() {
            let mut emit = |record: Record| {
                ids.insert(record.meta().raw_id.clone());
            };
            let mut rows = Rows::new(&file, &mut emit);
            (adapter.read)(&file, &mut rows).unwrap();
            let report = rows.finish();
            found += report.records;
            bad_count += report.bad;
            bad.extend(report.first_bad);
        }
        eprintln!("{name}: {found} records, {} raw ids, {bad_count} bad rows", ids.len());
        bad.iter().take(12).for_each(|line| eprintln!("    {}", line.chars().take(200).collect::<String>()));
        if (found, bad_count) != (records, bad_rows) {
            wrong.push(format!("{name}: wanted {records} and {bad_rows}, found {found} and {bad_count}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

use std::fs::File;
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::*;
use crate::raw::RowReport;
use crate::raw::tests::{bad, raw_file};
use crate::record::{Record, Speaker};

fn read_all(file: &RawFile, mapping: &str) -> Result<(Vec<Record>, RowReport), String> {
    let mapping: Mapping = serde_json::from_str(mapping).map_err(|e| e.to_string())?;
    let mut found = Vec::new();
    let mut emit = |record| found.push(record);
    let mut rows = Rows::new(file, &mut emit);
    read(file, &mapping, &mut rows).map_err(|e| e.to_string())?;
    let report = rows.finish();
    Ok((found, report))
}

fn records(name: &str, content: &str, mapping: &str) -> Result<(Vec<Record>, RowReport), String> {
    let (_folder, file) = raw_file(name, content.as_bytes());
    read_all(&file, mapping)
}

const PRODUCT: &str = r#"{"product": {"id": "sku", "title": "name", "category": "path", "category_separator": ">",
    "attribute_columns": ["color"], "attributes": "facts", "brand": "maker", "cluster": "model"}}"#;

#[test]
fn products_come_from_csv_and_jsonl_alike() {
    let csv = "sku,name,path,color,facts,maker,model\n\
               1,Red  lamp,Home > Lamps,red,size: 5;  power:,Acme,m1\n,x,,,,,\n2,y,,,oops,,\n";
    let jsonl = concat!(
        r#"{"sku": 1, "name": "Red  lamp", "path": ["Home", "Lamps"], "#,
        r#""color": "red", "facts": {"size": 5, "power": null}, "maker": "Acme", "model": "m1"}"#,
        "\n\n",
        r#"{"sku": "", "name": "x"}"#,
        "\n",
        r#"{"sku": 2, "name": "y", "facts": "oops"}"#,
        "\n[\n",
    );
    let (mut from_csv, csv_report) = records("own/a.csv", csv, PRODUCT).unwrap();
    let (from_jsonl, jsonl_report) = records("own/a.jsonl", jsonl, PRODUCT).unwrap();
    let Record::Product(product) = &mut from_csv[0] else { panic!() };
    assert_eq!((product.title.as_str(), product.meta.raw_id.as_str()), ("Red lamp", "own/a.csv#1"));
    assert_eq!((product.meta.group.as_str(), product.category.join("/").as_str()), ("m1", "Home/Lamps"));
    let facts: Vec<_> =
        product.attributes.iter().map(|a| (a.name.as_str(), a.value.as_str(), a.span.is_some())).collect();
    assert_eq!(facts, [("size", "5", false), ("color", "red", true)]);
    assert_eq!(product.attributes[1].span.and_then(|s| s.of(&product.title)), Some("Red"));
    product.meta.raw_id = "own/a.jsonl#1".into();
    assert_eq!(from_csv, from_jsonl);
    let oops = "wanted name:value in column \"facts\", found \"oops\"";
    assert_eq!(
        bad(&csv_report),
        ["own/a.csv:3: wanted an id in column \"sku\", found nothing".to_owned(), format!("own/a.csv:4: {oops}")]
    );
    assert_eq!(bad(&jsonl_report)[1], format!("own/a.jsonl:4: {oops}"));
    assert!(bad(&jsonl_report)[2].starts_with("own/a.jsonl:5: wanted one JSON object per line: "));
}

#[test]
fn reviews_have_polarities_by_table_or_by_stars() {
    let csv = "body,rate,mood,rec,votes,q,a\n很好,5,+,yes,2,好吗,很好\n差,,?,no,,怎样,不行\n中,7,,,,,\n";
    let mapping = r#"{"review": {"text": "body", "stars": "rate", "polarity": "mood",
        "polarity_values": {"+": "positive"},
        "recommended": "rec", "helpful": "votes", "question": "q", "answer": "a"}}"#;
    let (found, report) = records("own/a.csv", csv, mapping).unwrap();
    let Record::Review(review) = &found[0] else { panic!() };
    assert_eq!((review.polarity, review.recommended, review.helpful), (Some(Polarity::Positive), Some(true), Some(2)));
    assert_eq!(
        (review.meta.lang, review.questions[0].span.is_some(), &review.questions[0].answer),
        (Lang::Zh, true, &None)
    );
    assert_eq!(bad(&report)[0], "own/a.csv:3: wanted one of + in column \"mood\", found \"?\"");
    assert_eq!(bad(&report)[1], "own/a.csv:4: wanted 1 to 5 stars in column \"rate\", found \"7\"");
    let mapping = r#"{"language": "en", "review": {"text": "body", "stars": "rate", "question": "q", "answer": "a"}}"#;
    let (found, _) = records("own/a.csv", csv, mapping).unwrap();
    let [Record::Review(first), Record::Review(second)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((first.polarity, first.meta.lang, second.polarity), (Some(Polarity::Positive), Lang::En, None));
    assert_eq!(second.questions[0].answer.as_deref(), Some("不行"));
}

#[test]
fn dialogues_are_lists_or_grouped_rows() {
    let listed = r#"{"talk": [{"who": "user", "says": "hi"}, {"who": "agent", "says": "hello"}], "want": "greet"}
{"talk": [{"who": "cat", "says": "hi"}]}
{"talk": 5}
"#;
    let mapping = r#"{"dialogue": {"turns": "talk", "speaker": "who", "text": "says", "intent": "want"}}"#;
    let (found, report) = records("own/a.jsonl", listed, mapping).unwrap();
    let Record::Dialogue(dialogue) = &found[0] else { panic!() };
    assert_eq!((dialogue.turns[1].speaker, dialogue.intent.as_deref()), (Speaker::Agent, Some("greet")));
    let who = "wanted a speaker that customer or agent in [dialogue] names, found \"cat\"";
    assert_eq!(bad(&report)[0], format!("own/a.jsonl:2: {who}"));
    assert_eq!(bad(&report)[1], "own/a.jsonl:3: wanted a list of turns in column \"talk\", found something else");

    let grouped = "n\twho\tsays\n1\tC\t\"hi\n1\tS\thello\n2\tC\t\n2\tS\tx\n3\tC\tbye\n";
    let mapping = r#"{"format": "plain-tsv", "dialogue": {
        "id": "n", "speaker": "who", "text": "says", "customer": ["C"], "agent": ["S"]}}"#;
    let (found, report) = records("own/a.txt", grouped, mapping).unwrap();
    let turns: Vec<_> = found.iter().map(|r| if let Record::Dialogue(d) = r { d.turns.len() } else { 0 }).collect();
    assert_eq!(turns, [2, 1]);
    assert_eq!(bad(&report), ["own/a.txt:4: wanted a text in column \"says\", found nothing"]);
}

#[test]
fn queries_come_with_judged_products() {
    let csv = "q,item,grade\nred lamp,Acme lamp,2\nred lamp,Pot,0\nred lamp,Pot,9\n";
    let mapping = r#"{"query": {"text": "q", "product": "item", "grade": "grade",
        "grade_values": {"2": "exact", "0": "irrelevant"}}}"#;
    let (found, report) = records("own/a.csv", csv, mapping).unwrap();
    let [Record::Product(a), Record::Query(q), Record::Product(_), Record::Query(r)] = &found[..] else { panic!() };
    assert_eq!((q.judged[0].product.as_str(), q.judged[0].grade), (a.meta.raw_id.as_str(), Grade::Exact));
    assert_eq!((&q.meta.raw_id, r.judged[0].grade), (&r.meta.raw_id, Grade::Irrelevant));
    assert_eq!(bad(&report), ["own/a.csv:4: wanted one of 0, 2 in column \"grade\", found \"9\""]);
}

#[test]
fn parquet_files_round_trip() {
    let (_folder, file) = raw_file("own/a.parquet", b"");
    let schema = "message m { REQUIRED BYTE_ARRAY name (UTF8); REQUIRED INT32 year; REQUIRED INT32 extra; \
                  OPTIONAL GROUP tags (LIST) { REPEATED GROUP list { OPTIONAL BYTE_ARRAY element (UTF8); } } }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(parquet::basic::Compression::SNAPPY).build());
    let mut writer = SerializedFileWriter::new(File::create(&file.path).unwrap(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let names = ["Lamp 2020", "  "].map(ByteArray::from);
    column.typed::<ByteArrayType>().write_batch(&names, None, None).unwrap();
    column.close().unwrap();
    for values in [[2020, 2021], [1, 2]] {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int32Type>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    let mut column = group.next_column().unwrap().unwrap();
    let tags = ["Home", "Lamps"].map(ByteArray::from);
    column.typed::<ByteArrayType>().write_batch(&tags, Some(&[3, 3, 0]), Some(&[0, 1, 0])).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();

    let mapping = r#"{"product": {"title": "name", "category": "tags", "attribute_columns": ["year"]}}"#;
    let (found, report) = read_all(&file, mapping).unwrap();
    let [Record::Product(first), Record::Product(second)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((first.title.as_str(), first.category.join("/").as_str()), ("Lamp 2020", "Home/Lamps"));
    assert_eq!(first.attributes[0].span.and_then(|s| s.of(&first.title)), Some("2020"));
    assert_eq!((second.title.as_str(), second.category.len(), second.attributes[0].value.as_str()), ("", 0, "2021"));
    assert_eq!((report.bad, second.meta.raw_id.as_str()), (0, "own/a.parquet:2"));
    let error = read_all(&file, r#"{"product": {"title": "names"}}"#).unwrap_err();
    assert_eq!(
        error,
        "own/a.parquet: wanted a column \"names\", found name, year, extra, tags; did you mean \"name\"?"
    );
}

#[test]
fn what_a_mapping_lacks_is_said() {
    let cases = [
        ("a.csv", r#"{"product": {"titel": "x"}}"#, "unknown field `titel`"),
        ("a.csv", "{}", "own/a.csv: wanted one of [product], [review], [dialogue] and [query] in the mapping"),
        ("a.csv", r#"{"product": {}, "query": {"text": "x"}}"#, "own/a.csv: wanted one of [product]"),
        (
            "a.csv",
            r#"{"query": {"text": "name", "product": "x"}}"#,
            "own/a.csv: wanted both product and grade in [query]",
        ),
        ("a.csv", r#"{"dialogue": {"id": "name"}}"#, "own/a.csv: wanted turns in [dialogue], or id, speaker and text"),
        (
            "a.csv",
            r#"{"product": {"title": "nome"}}"#,
            "own/a.csv: wanted a column \"nome\", found name; did you mean \"name\"?",
        ),
        ("a.jsonl", r#"{"product": {"title": "zzz"}}"#, "own/a.jsonl: wanted a column \"zzz\", found name"),
        ("a.txt", r#"{"product": {"title": "name"}}"#, "own/a.txt: wanted a name that ends in .csv"),
        ("a.parquet", r#"{"product": {"title": "name"}}"#, "own/a.parquet: not a Parquet file that can be read: "),
    ];
    for (name, mapping, wanted) in cases {
        let content = if name == "a.jsonl" { "{\"name\": \"x\"}\n" } else { "name\nx\n" };
        let error = records(&format!("own/{name}"), content, mapping).unwrap_err();
        assert!(error.starts_with(wanted), "{error}");
    }
}

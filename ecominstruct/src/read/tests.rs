use super::*;
use crate::instruction::Lang;
use proptest::prelude::*;

const GOOD: &str = r#"{"description":"d","prompt":"p","input":"i","output":"o"}"#;

fn read(bytes: &[u8], format: Format, bad: BadRows) -> (Vec<Instruction>, Option<String>, ReadReport) {
    let mut reader = Reader::new(bytes, "x.jsonl", format, bad);
    let (mut rows, mut error) = (Vec::new(), None);
    for row in &mut reader {
        match row {
            Ok(row) => rows.push(row),
            Err(e) => error = Some(e.to_string()),
        }
    }
    (rows, error, reader.report().clone())
}

#[test]
fn marks_line_ends_and_blank_lines_are_accepted() {
    let text = format!("\u{FEFF}{GOOD}\r\n\r\n   \n{GOOD}");
    let (rows, error, report) = read(text.as_bytes(), Format::Auto, BadRows::Error);
    assert_eq!((rows.len(), error), (2, None));
    assert_eq!((report.lines, report.blank, report.rows), (4, 2, 2));
    assert_eq!((rows[0].id.as_str(), rows[1].id.as_str()), ("x-1", "x-4"));
}

#[test]
fn every_fault_has_its_message() {
    let deep = format!(r#"{{"description":"","prompt":"","input":"","output":{}"#, "[".repeat(100_000));
    let closed = format!("{deep}{}}}", "]".repeat(100_000));
    let cases: &[(&[u8], &str)] = &[
        (br#"{"prompt": "#, "x.jsonl:1: broken JSON at column 10: EOF while parsing a value"),
        (br#"{"description":"d","prompt":"p","input":"i","output":"o",}"#, "broken JSON at column 58: trailing comma"),
        (
            br#"{"description":"d","prompt":"p","input":"i","output":"o"} x"#,
            "broken JSON at column 59: trailing characters",
        ),
        (b"[]", "x.jsonl:1: wanted one JSON object per line, found an array"),
        (b"3", "found a number"),
        (b"hello", "found something else"),
        (br#"{"description":"d","prompt":"p","input":"i"}"#, "missing field `output`"),
        (
            br#"{"description":"d","prompt":7,"input":"i","output":"o"}"#,
            r#"key "prompt": invalid type: integer `7`, expected a string"#,
        ),
        (
            br#"{"description":"d","prompt":"p","input":"i","output":"o","lang":"fr"}"#,
            r#"key "lang": unknown variant `fr`"#,
        ),
        (br#"{"description":"d","prompt":"p","input":"i","output":"o","outputs":1}"#, "unknown field `outputs`"),
        (br#"{"description":"d","prompt":"p","input":"i","output":"o","prompt":"q"}"#, r#"key "prompt" appears twice"#),
        (b"{\"description\":\"\xFF\"}", "invalid UTF-8 at byte 16 of the line"),
        (br#"{"description":"d","prompt":"p","input":"i","output":" "}"#, "output is empty"),
        (b"{\"description\":\"\0\"}", "NUL character in the line"),
        (br#"{"description":"d","prompt":"p","input":"\u0000","output":"o"}"#, r#"NUL character in "input""#),
        (br#"{"description":"d","prompt":"p","input":"\ud800","output":"o"}"#, "broken JSON"),
        (deep.as_bytes(), "EOF while parsing"),
        (closed.as_bytes(), "broken JSON"),
    ];
    for (bytes, wanted) in cases {
        let (rows, error, _) = read(bytes, Format::Instruct, BadRows::Error);
        let error = error.unwrap_or_default();
        assert!(rows.is_empty() && error.contains(wanted), "{error:?} does not say {wanted:?}");
        assert!(error.len() < 2000 && !error.contains('\n'));
    }
}

#[test]
fn long_lines_are_refused_without_being_kept() {
    let mut bytes = vec![b'x'; MAX_LINE + 1];
    bytes.extend_from_slice(format!("\n{GOOD}\n").as_bytes());
    let (_, error, _) = read(&bytes, Format::Auto, BadRows::Error);
    assert_eq!(error.unwrap(), "x.jsonl:1: line is longer than 16 MiB");
    let (rows, error, report) = read(&bytes, Format::Auto, BadRows::Skip(1));
    assert_eq!((rows.len(), error, report.skipped), (1, None, 1));
    let mut line = Vec::new();
    let mut endless = BufReader::new(io::Read::take(io::repeat(b'y'), 64 << 20));
    assert!(matches!(next_line(&mut endless, &mut line), Ok(Line::TooLong)));
    assert!(line.capacity() <= 2 * MAX_LINE);
}

#[test]
fn bad_rows_are_counted_up_to_the_limit() {
    let text = format!("{GOOD}\nbad\n{GOOD}\n[]\n{GOOD}\n");
    let (rows, error, report) = read(text.as_bytes(), Format::Auto, BadRows::Skip(2));
    assert_eq!((rows.len(), error, report.skipped), (3, None, 2));
    assert!(report.first_skipped[0].starts_with("x.jsonl:2: "));
    let (rows, error, _) = read(text.as_bytes(), Format::Auto, BadRows::Skip(1));
    assert_eq!(rows.len(), 2);
    assert!(error.unwrap().starts_with("x.jsonl:4: wanted one JSON object per line, found an array (bad row number 2"));
}

#[test]
fn alpaca_and_messages_become_instructions() {
    let alpaca = r#"{"instruction":"Name the colour.","input":"红色丝绸围巾","output":"红色"}"#;
    let (rows, _, _) = read(alpaca.as_bytes(), Format::Auto, BadRows::Error);
    assert_eq!((rows[0].prompt.as_str(), rows[0].lang, rows[0].prompt_lang), ("Name the colour.", Lang::Zh, Lang::En));
    let chat = r#"{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"},
        {"role":"assistant","content":"Hello"},{"role":"user","content":"Price?"},{"role":"assistant","content":"5"}]}"#
        .replace('\n', "");
    let (rows, error, _) = read(chat.as_bytes(), Format::Auto, BadRows::Error);
    assert_eq!(error, None);
    assert_eq!(rows[0].input, "Be brief.\nUser: Hi\nAssistant: Hello");
    assert_eq!((rows[0].prompt.as_str(), rows[0].output.as_str()), ("Price?", "5"));
    for (id, wanted) in [("\"a-7\"", "a-7"), ("7", "7"), ("-1", "-1")] {
        for row in
            [alpaca.replacen('{', &format!("{{\"id\":{id},"), 1), chat.replacen('{', &format!("{{\"id\":{id},"), 1)]
        {
            let (rows, error, _) = read(row.as_bytes(), Format::Auto, BadRows::Error);
            assert_eq!((rows[0].id.as_str(), error), (wanted, None));
        }
    }
    for (text, wanted) in [
        (r#"{"id":[1],"messages":[]}"#, "key \"id\": a text or a whole number"),
        (r#"{"messages":[]}"#, "the last message must be the assistant's"),
        (r#"{"messages":[{"role":"assistant","content":"x"}]}"#, "wanted a user message"),
        (r#"{"messages":[{"role":"user","content":"x"}]}"#, "the last message must be"),
        (r#"{"messages":[{"role":"tool","content":"x"}]}"#, "unknown variant `tool`"),
        (r#"{"messages":[{"role":"user"}]}"#, "missing field `content`"),
        (r#"{"instruction":"x","output":"y","history":[]}"#, "unknown field `history`"),
    ] {
        let (_, error, _) = read(text.as_bytes(), Format::Auto, BadRows::Error);
        assert!(error.clone().unwrap_or_default().contains(wanted), "{error:?}");
    }
}

proptest! {
    #[test]
    fn never_panics_and_ends(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (rows, _, report) = read(&bytes, Format::Auto, BadRows::Skip(usize::MAX));
        prop_assert_eq!(rows.len() + report.skipped + report.blank, report.lines);
    }

    #[test]
    fn records_round_trip(prompt in "\\PC*", input in "[^\0]*", output in "\\PC+") {
        prop_assume!(!output.trim().is_empty());
        let row = Instruction { id: "1".into(), prompt, input, output, ..Instruction::default() };
        let text = serde_json::to_string(&row).unwrap();
        let (rows, error, _) = read(text.as_bytes(), Format::Instruct, BadRows::Error);
        prop_assert_eq!(error, None);
        prop_assert_eq!(&rows[0], &row);
    }
}

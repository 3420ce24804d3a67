//! `ecom eval --decode`: answers that are ranked, constrained or free.

use super::cli::with_model;
use super::*;

/// Ranked answers are labels, constrained ones labels or spans of the input, and free ones as ever; for any batch and threads; and saved
/// answers score the same.
#[test]
fn answers_are_made_as_decode_says() {
    let dir = with_model();
    let dir = dir.path();
    let run = |more: &str| ecom(dir, &format!("eval rows.jsonl --model model {more}")).ok().out;
    let saved = |more: &str| {
        let table = run(&format!("--save saved.jsonl {more}"));
        (table, fs::read_to_string(dir.join("saved.jsonl")).unwrap())
    };
    let of =
        |saved: &str, set: &str| -> Vec<Value> { json_lines(saved).into_iter().filter(|a| a["set"] == set).collect() };
    let (free_table, free) = saved("");
    assert!(!free_table.contains("free answers:"), "nothing is said of what is the rule: {free_table}");
    for (decode, says) in [
        ("free", ""),
        ("rank", "rank answers: F01-en\nfree answers: F02-en, F03-en\n"),
        ("constrained", "constrained answers: F01-en, F02-en\nfree answers: F03-en\n"),
    ] {
        let (table, answers) = saved(&format!("--decode {decode}"));
        assert!(table.ends_with(says) && table.contains("mean over sets"), "{table}");
        for more in ["--batch 1", "--batch 3 --threads 1", "--batch 40"] {
            let again = saved(&format!("--decode {decode} {more}"));
            assert_eq!(again, (table.clone(), answers.clone()), "{decode} {more}");
        }
        let scored = ecom(dir, "eval rows.jsonl --predictions saved.jsonl").ok().out;
        assert_eq!(scored, table.strip_suffix(says).unwrap());
        let json: Value = serde_json::from_str(&run(&format!("--decode {decode} --json"))).unwrap();
        let found: Vec<&str> = json["sets"].as_array().unwrap().iter().map(|s| s["decode"].as_str().unwrap()).collect();
        let wanted = match decode {
            "rank" => ["rank", "free", "free"],
            "constrained" => ["constrained", "constrained", "free"],
            _ => ["free"; 3],
        };
        assert_eq!(found, wanted);
        for (set, found) in ["F01-en", "F02-en", "F03-en"].iter().zip(found) {
            let own = of(&answers, set);
            if found == "free" {
                assert_eq!(own, of(&free, set), "{decode}: {set}");
            }
            for (row, answer) in rows(40).iter().filter(|r| set.starts_with(r["task"].as_str().unwrap())).zip(own) {
                let answer = answer["prediction"].as_str().unwrap();
                match (found, *set) {
                    ("free", _) => {}
                    (_, "F01-en") => assert!(["red", "blue", "green", "black"].contains(&answer), "{decode}: {answer}"),
                    _ => assert!(row["input"].as_str().unwrap().contains(answer) && !answer.is_empty(), "{answer}"),
                }
            }
        }
    }
    // Where no set has such a form, too.
    let free: Vec<Value> = rows(40).into_iter().filter(|row| row["task"] == "F03").collect();
    fs::write(dir.join("free.jsonl"), lines(&free)).unwrap();
    let table = ecom(dir, "eval free.jsonl --model model --decode rank").ok().out;
    assert!(table.ends_with("free answers: F03-en\n"), "{table}");
    // A model that says anything: its free answers are no labels.
    let (_, wild) = saved("--temperature 100");
    assert!(
        of(&wild, "F01-en")
            .iter()
            .all(|a| !["red", "blue", "green", "black"].contains(&a["prediction"].as_str().unwrap()))
    );
    let (_, tame) = saved("--temperature 100 --decode constrained");
    let tame = of(&tame, "F01-en");
    assert!(tame.iter().all(|a| ["red", "blue", "green", "black"].contains(&a["prediction"].as_str().unwrap())));
    assert!(tame.iter().any(|a| a["prediction"] != tame[0]["prediction"]), "drawn among the labels");
    for (line, says) in [
        ("--decode rank --beams 2", "--decode rank: wanted no --beams"),
        ("--decode constrained --beams 2", "--decode constrained: wanted no --beams"),
    ] {
        ecom(dir, &format!("eval rows.jsonl --model model {line}")).refused(2, says);
    }
    for line in ["--model model --decode best", "--predictions saved.jsonl --decode rank"] {
        let ran = ecom(dir, &format!("eval rows.jsonl {line}"));
        assert!(ran.code == Some(2) && ran.err.starts_with("error:") && ran.out.is_empty(), "{line}: {}", ran.err);
    }
    let long = json!({ "id": "one", "task": "F09", "paradigm": "CLS", "description": "", "prompt": "Which?", "input": "x",
                       "candidates": ["wonderfully yellowish", "quite another"], "output": "quite another" });
    fs::write(dir.join("long.jsonl"), lines(&[long])).unwrap();
    let freely = ecom(dir, "eval long.jsonl --model model --decode constrained --max-new-tokens 2").ok();
    assert!(freely.err.contains("F09-en: 1 of 1 items are answered freely"), "{}", freely.err);
    ecom(dir, "eval long.jsonl --model model --decode constrained --max-new-tokens 0")
        .refused(2, "--max-new-tokens: wanted at least 1 for constrained answers");
}

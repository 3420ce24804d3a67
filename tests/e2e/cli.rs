//! `ecom` as its users meet it: what the commands print and where, the forms they read, and that an answer or a score does
//! not depend on how it was computed.

use super::*;

pub fn with_model() -> TempDir {
    let dir = folder();
    copy(&trained().join("run/model"), &dir.path().join("model"));
    copy(&trained().join("rows.jsonl"), &dir.path().join("rows.jsonl"));
    dir
}

#[test]
fn help_teaches() {
    let dir = folder();
    let dir = dir.path();
    snapshot("help", &ecom(dir, "--help"));
    for (command, parts) in [
        (
            "train",
            ["Examples:", "ecom train --config run.toml --resume", "[default: 2e-5; new model: 2e-3; demo: 3e-3]"],
        ),
        ("generate", ["Examples:", "--from", "[default: runs/demo/model, which `ecom train` makes]"]),
        ("eval", ["Examples:", "--predictions", "--json"]),
        ("plan", ["560m, 1b1, 1b7, 3b, 7b1", "--tokens", "--json"]),
        ("inspect", ["Model folder, or instruction file", "--tensors", "--skip-bad-rows"]),
        ("tokenizer train", ["--vocab", "--output", "special ones"]),
    ] {
        let help = ecom(dir, &format!("{command} --help")).ok();
        for part in parts {
            assert!(help.out.contains(part), "{command}: no {part:?} in\n{}", help.out);
        }
        // Every flag is explained: beside it, or on the line below.
        let all: Vec<&str> = help.out.lines().collect();
        for (i, line) in all.iter().enumerate().filter(|(_, l)| l.trim_start().starts_with("--")) {
            let beside = line.trim().split_once("  ").is_some_and(|(_, text)| !text.trim().is_empty());
            let below = all.get(i + 1).is_some_and(|next| next.starts_with("          ") && !next.trim().is_empty());
            assert!(beside || below, "{command}: {line:?} says nothing");
        }
        assert_eq!(help.err, "");
    }
    let bare = ecom(dir, "");
    assert_eq!((bare.code, bare.out.as_str()), (Some(2), ""));
    assert!(bare.err.contains("Usage: ecom"), "{}", bare.err);
}

#[test]
fn version_and_completions_go_to_stdout() {
    let dir = folder();
    let dir = dir.path();
    let version = ecom(dir, "--version").ok();
    assert_eq!(version.out, format!("ecom {}\n", env!("CARGO_PKG_VERSION")));
    for name in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = ecom(dir, &format!("completions {name}")).ok();
        assert!(script.out.contains("generate") && script.out.contains("max-new-tokens"), "{name}");
        assert_eq!(script.err, "");
    }
    let bash = shell(dir, "\"$ECOM\" completions bash > script && bash -n script");
    assert_eq!((bash.code, bash.err.as_str()), (Some(0), ""));
}

#[test]
fn colour_is_left_out_where_asked() {
    let dir = folder();
    let forced = |no_color: Option<&str>| {
        let mut help = command(dir.path(), "--help");
        help.env("CLICOLOR_FORCE", "1");
        no_color.map(|v| help.env("NO_COLOR", v));
        finish(help).ok().out
    };
    assert!(forced(None).contains('\u{1b}'), "the control: colour can be forced");
    assert!(!forced(Some("1")).contains('\u{1b}'));
    assert!(!ecom(dir.path(), "--help").out.contains('\u{1b}'), "and there is none in a pipe");
}

/// A reader that has seen enough ends the command without a word.
#[test]
fn a_closed_pipe_is_quiet() {
    let dir = with_model();
    for line in [
        "completions bash",
        "plan 560m",
        "inspect rows.jsonl --show 40",
        "eval rows.jsonl --predictions answers",
        "generate --model model x --max-new-tokens 4",
    ] {
        let answers = rows(40)
            .iter()
            .map(|r| json!({ "set": format!("{}-en", r["task"].as_str().unwrap()), "id": r["id"], "prediction": "" }))
            .collect::<Vec<_>>();
        fs::write(dir.path().join("answers"), lines(&answers)).unwrap();
        // The reader ends at once; the writer starts when that is sure.
        let ran = shell(
            dir.path(),
            &format!(
                "{{ sleep 0.2; \"$ECOM\" {line}; echo $? > code; }} | true; sleep 0.1; while [ ! -s code ]; do sleep 0.05; done; cat code; rm code"
            ),
        );
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("141\n", ""), "{line}");
    }
}

#[test]
fn a_prompt_is_answered_on_stdout() {
    let dir = with_model();
    let dir = dir.path();
    let row = &rows(40)[0];
    let asked = format!(
        "generate --model model '{}' --input '{}' --task 'product colour' --max-new-tokens 8",
        row["prompt"].as_str().unwrap(),
        row["input"].as_str().unwrap()
    );
    let answer = ecom(dir, &asked).ok();
    assert_eq!((answer.out.lines().count(), answer.err.as_str()), (1, ""));
    // The same question as a raw prompt, in the layout that training uses.
    let layout = format!(
        "Here is an instruction for the product colour task. Answer with a response that completes it.\n### Instruction:\n{}\n{} \n### Response:\n",
        row["input"].as_str().unwrap(),
        row["prompt"].as_str().unwrap()
    );
    let raw = ecom(dir, &format!("generate --model model --raw '{layout}' --max-new-tokens 8")).ok();
    assert_eq!(raw.out, answer.out);
    // Without a model named, the demo's is taken, where there is one.
    fs::create_dir_all(dir.join("runs/demo")).unwrap();
    fs::rename(dir.join("model"), dir.join("runs/demo/model")).unwrap();
    assert_eq!(ecom(dir, &asked.replace("--model model ", "")).ok().out, answer.out);
}

/// Instructions in three forms and raw prompts, from a file and from stdin, to stdout and to a file.
#[test]
fn files_of_questions_are_answered_in_order() {
    let dir = with_model();
    let dir = dir.path();
    let (prompt, input) = ("Name the brand.", "Bex green lamp no. 6");
    let forms = [
        ("own", json!({ "id": "a-1", "description": "", "prompt": prompt, "input": input })),
        ("alpaca", json!({ "instruction": prompt, "input": input })),
        ("answered", json!({ "instruction": prompt, "input": input, "output": "whatever" })),
        (
            "messages",
            json!({ "messages": [{ "role": "system", "content": input }, { "role": "user", "content": prompt }] }),
        ),
        (
            "raw",
            json!({ "text": format!("Here is an instruction. Answer with a response that completes it.\n### Instruction:\n{input}\n{prompt} \n### Response:\n") }),
        ),
    ];
    let all: Vec<Value> = forms.iter().map(|(_, value)| value.clone()).collect();
    fs::write(dir.join("q.jsonl"), format!("\u{feff}{}", lines(&all).replace('\n', "\r\n\n"))).unwrap();
    let line = "generate --model model --max-new-tokens 8 --from";
    let ran = ecom(dir, &format!("{line} q.jsonl")).ok();
    let found = json_lines(&ran.out);
    assert_eq!(found.len(), forms.len());
    for (i, (form, answer)) in forms.iter().zip(&found).enumerate() {
        assert_eq!(
            answer.as_object().unwrap().keys().collect::<Vec<_>>(),
            ["id", "output", "finish", "tokens"],
            "{}",
            form.0
        );
        assert_eq!((&answer["output"], &answer["tokens"]), (&found[0]["output"], &found[0]["tokens"]), "{}", form.0);
        // A row without a name is called by its line; there is a blank one after each.
        let id = if i == 0 { json!("a-1") } else { json!(format!("line {}", 2 * i + 1)) };
        assert_eq!(answer["id"], id);
    }
    let piped = shell(dir, &format!("exec \"$ECOM\" {line} - < q.jsonl")).ok();
    assert_eq!(piped.out, ran.out);
    let to = ecom(dir, &format!("{line} q.jsonl --to made.jsonl")).ok();
    assert_eq!((to.out.as_str(), fs::read_to_string(dir.join("made.jsonl")).unwrap()), ("", ran.out));
}

#[test]
fn drawn_answers_follow_the_seed_and_nothing_else() {
    let dir = with_model();
    let dir = dir.path();
    let draw = |more: &str| {
        ecom(
            dir,
            &format!(
                "generate --model model --from rows.jsonl --temperature 1.5 --max-new-tokens 6 --answers 3 {more}"
            ),
        )
        .ok()
        .out
    };
    let first = draw("");
    let found = json_lines(&first);
    assert_eq!(found.len(), 120);
    assert!(found.iter().enumerate().all(|(i, a)| a["answer"] == i % 3 + 1));
    for more in ["", "--seed 0", "--batch 1", "--batch 7", "--threads 1", "--top-p 1", "--top-k 0"] {
        assert_eq!(draw(more), first, "{more}");
    }
    for more in ["--seed 1", "--temperature 0.7", "--top-k 2", "--top-p 0.5", "--min-p 0.3"] {
        let more = if more.starts_with("--temperature") { draw_at(dir, "0.7") } else { draw(more) };
        assert_ne!(more, first);
    }
    let distinct =
        |of: &[Value]| of.iter().map(|a| a["output"].to_string()).collect::<std::collections::BTreeSet<_>>().len();
    assert!(
        found.chunks(3).filter(|three| distinct(three) > 1).count() > 20,
        "three answers to a prompt are three draws"
    );
}

fn draw_at(dir: &Path, temperature: &str) -> String {
    ecom(
        dir,
        &format!("generate --model model --from rows.jsonl --temperature {temperature} --max-new-tokens 6 --answers 3"),
    )
    .ok()
    .out
}

#[test]
fn a_stop_text_ends_an_answer_and_is_left_out() {
    let dir = with_model();
    let dir = dir.path();
    let ask = |more: &str| {
        json_lines(&ecom(dir, &format!("generate --model model --from rows.jsonl --max-new-tokens 8 {more}")).ok().out)
    };
    let free = ask("");
    let cut = ask("--stop ' by' --stop zzz");
    let mut stopped = 0;
    for (free, cut) in free.iter().zip(&cut) {
        let (free_text, cut_text) = (free["output"].as_str().unwrap(), cut["output"].as_str().unwrap());
        if let Some(at) = free_text.find(" by") {
            assert_eq!((cut_text, &cut["finish"]), (&free_text[..at], &json!("stop")));
            stopped += 1;
        } else {
            assert_eq!((cut_text, &cut["finish"]), (free_text, &free["finish"]));
        }
    }
    assert!(stopped > 0 && stopped < 40, "{stopped} of 40 answers have the stop text: {free:?}");
}

/// On a terminal an answer comes piece by piece. Together the pieces are what a pipe gets, also where the tokens are parts
/// of characters, and nothing of a stop text has been shown. `script` (util-linux) makes the terminal.
#[test]
fn a_terminal_gets_the_pieces_of_the_same_answer() {
    let dir = with_model();
    let dir = dir.path();
    let mut broken = 0;
    for seed in 0..12 {
        // So hot that any token may come.
        let line = format!(
            "generate --model model x --temperature 30 --seed {seed} --max-new-tokens 60 --stop re --stop '\u{fffd}\u{fffd}a'"
        );
        let piped = ecom(dir, &line).ok().out;
        broken += usize::from(piped.contains('\u{fffd}'));
        let live =
            shell(dir, &format!("exec script --quiet --echo never --return --command \"$ECOM {line}\" /dev/null")).ok();
        assert_eq!(live.out.replace("\r\n", "\n"), piped, "seed {seed}");
    }
    assert!(broken > 3, "the control: some answers hold broken characters, {broken} did");
}

#[test]
fn beams_come_best_first_and_the_first_is_no_worse_than_greedy() {
    let dir = with_model();
    let dir = dir.path();
    let ask = |more: &str| json_lines(&ecom(dir, &format!("generate --model model --from rows.jsonl {more}")).ok().out);
    let beams = ask("--beams 4 --answers 3 --length-penalty 0 --max-new-tokens 6");
    assert_eq!(beams.len(), 120);
    for three in beams.chunks(3) {
        let scores: Vec<f64> = three.iter().map(|a| a["score"].as_f64().unwrap()).collect();
        assert!(scores.windows(2).all(|pair| pair[0] >= pair[1]) && scores[0] <= 0.0, "{scores:?}");
        assert_ne!(three[0]["output"], three[1]["output"]);
    }
    assert_eq!(ask("--beams 4 --answers 3 --length-penalty 0 --max-new-tokens 6 --batch 3"), beams);
    // One beam is greedy.
    let output = |all: Vec<Value>| all.into_iter().map(|a| a["output"].clone()).collect::<Vec<_>>();
    assert_eq!(output(ask("--beams 1 --max-new-tokens 6")), output(ask("--max-new-tokens 6")));
    assert_eq!(
        ask("--beams 2 --max-new-tokens 0").len(),
        ask("--max-new-tokens 0").len(),
        "an empty answer is one too"
    );
}

/// R30: the same bytes for any batch size and number of threads, and answers saved and scored again score the same.
#[test]
fn scores_do_not_depend_on_how_they_were_computed() {
    let dir = with_model();
    let dir = dir.path();
    let run = |more: &str| ecom(dir, &format!("eval rows.jsonl --model model --max-new-tokens 8 {more}")).ok().out;
    let table = run("--save saved.jsonl");
    let saved = fs::read_to_string(dir.join("saved.jsonl")).unwrap();
    let answers: std::collections::BTreeSet<_> =
        json_lines(&saved).iter().map(|a| a["prediction"].to_string()).collect();
    assert!(answers.len() > 4, "answers that differ, so that a mix-up shows: {answers:?}");
    for batch in [1, 3, 8] {
        for threads in [1, 2] {
            let more = format!("--batch {batch} --threads {threads} --save other.jsonl");
            assert_eq!(run(&more), table, "{more}");
            assert_eq!(fs::read_to_string(dir.join("other.jsonl")).unwrap(), saved, "{more}");
        }
    }
    for more in ["--beams 2", "--beams 2 --batch 3 --threads 1"] {
        assert_eq!(run(more), run("--beams 2 --batch 1"), "{more}");
    }
    let again = ecom(dir, "eval rows.jsonl --predictions saved.jsonl").ok();
    assert_eq!((again.out.as_str(), again.err.as_str()), (table.as_str(), ""));
    // One task alone scores as it does among others.
    let one: Vec<Value> = rows(40).into_iter().filter(|r| r["task"] == "F02").collect();
    fs::write(dir.join("one.jsonl"), lines(&one)).unwrap();
    let alone = ecom(dir, "eval one.jsonl --model model --max-new-tokens 8 --json").ok().out;
    let (alone, all): (Value, Value) =
        (serde_json::from_str(&alone).unwrap(), serde_json::from_str(&run("--json")).unwrap());
    assert_eq!(alone["sets"][0], all["sets"][1]);
}

/// Gold answers score 100, beside the trivial ones; the table and the JSON say the same.
#[test]
fn scores_are_printed_beside_the_trivial_ones() {
    let dir = folder();
    let dir = dir.path();
    write_rows(&dir.join("rows.jsonl"), 40);
    let gold = |r: &Value| json!({ "set": format!("{}-en", r["task"].as_str().unwrap()), "id": r["id"], "prediction": r["output"] });
    fs::write(dir.join("gold.jsonl"), lines(&rows(40).iter().map(gold).collect::<Vec<_>>())).unwrap();
    let table = ecom(dir, "eval rows.jsonl --predictions gold.jsonl").ok();
    snapshot("eval-gold", &table);
    let json = ecom(dir, "eval rows.jsonl --predictions gold.jsonl --json").ok();
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["schema"], "ecom-eval-1");
    let sets = json["sets"].as_array().unwrap();
    assert_eq!(sets.iter().map(|s| s["set"].as_str().unwrap()).collect::<Vec<_>>(), ["F01-en", "F02-en", "F03-en"]);
    for set in sets {
        let who: Vec<_> = set["scores"].as_array().unwrap().iter().map(|s| s["who"].as_str().unwrap()).collect();
        assert!(who.starts_with(&["model", "constant", "random"]), "{who:?}");
        assert_eq!(set["scores"][0]["strict"]["score"], 100.0);
    }
}

#[test]
fn plan_and_inspect_describe() {
    let dir = with_model();
    let dir = dir.path();
    let mut plan = ecom(dir, "plan 560m").ok();
    // What fits depends on the machine.
    plan.out = plan.out.replace("  does not fit here", "").replace("  fits here", "");
    snapshot("plan-560m", &plan);
    let json: Value = serde_json::from_str(&ecom(dir, "plan 560m --json").ok().out).unwrap();
    assert_eq!(json["parameters"], 559_214_592);
    for job in json["jobs"].as_object().unwrap().values() {
        let parts: u64 = job["parts"].as_object().unwrap().values().map(|b| b.as_u64().unwrap()).sum();
        assert_eq!(job["bytes"], parts);
    }
    let folder: Value = serde_json::from_str(&ecom(dir, "plan model --json").ok().out).unwrap();
    let file: Value = serde_json::from_str(&ecom(dir, "plan model/config.json --json").ok().out).unwrap();
    assert_eq!((&folder["jobs"], &folder["parameters"]), (&file["jobs"], &file["parameters"]));
    // Numbers beyond reason are large, not wrapped around.
    let huge: Value =
        serde_json::from_str(&ecom(dir, "plan 560m --tokens 18446744073709551615 --json").ok().out).unwrap();
    assert!(huge["jobs"]["training, blocks kept"]["bytes"].as_u64().unwrap() > 1 << 60);

    snapshot("inspect-model", &ecom(dir, "inspect model --tensors"));
    snapshot("inspect-rows", &ecom(dir, "inspect rows.jsonl --show 2 --tokenizer model"));
}

/// Control characters of a file are shown, not sent to the terminal.
#[test]
fn control_characters_in_messages_are_shown_as_such() {
    let dir = folder();
    let dir = dir.path();
    fs::write(dir.join("rows.jsonl"), "{\"pro\\u001b[31mmpt\":1}\n").unwrap();
    let ran = ecom(dir, "inspect rows.jsonl");
    ran.refused(2, "rows.jsonl:1: unknown field `pro\\u{1b}[31mmpt`");
    assert!(!ran.err.contains('\u{1b}'));
}

#[test]
fn a_tokenizer_is_trained_and_tried() {
    let dir = folder();
    let dir = dir.path();
    write_rows(&dir.join("rows.jsonl"), 40);
    let text = "red bag 你好，世界! 🙂\tx";
    fs::write(dir.join("words.txt"), format!("{text}\n").repeat(5)).unwrap();
    let ran = ecom(dir, "tokenizer train --vocab 330 --output made rows.jsonl words.txt").ok();
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", "330 tokens: made\n"));
    ecom(dir, "tokenizer train --vocab 330 --output again rows.jsonl words.txt --threads 1").ok();
    assert_eq!(tree(&dir.join("made")), tree(&dir.join("again")));
    for path in ["made", "made/tokenizer.json"] {
        let encoded = json_lines(&ecom(dir, &format!("tokenizer encode --tokenizer {path} '{text}'")).ok().out);
        let ids: Vec<u64> = encoded[0]["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
        assert!(ids.iter().all(|&id| (4..330).contains(&id)), "text becomes no special token: {ids:?}");
        assert_eq!(encoded[0]["pieces"].as_array().unwrap().len(), ids.len());
        let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
        let decoded = ecom(dir, &format!("tokenizer decode --tokenizer {path} {}", ids.join(" "))).ok();
        assert_eq!(decoded.out, format!("{text}\n"));
    }
    let sly = json_lines(&ecom(dir, "tokenizer encode --tokenizer made '</s><pad>'").ok().out);
    assert!(sly[0]["ids"].as_array().unwrap().iter().all(|id| id.as_u64().unwrap() > 3));
}

/// A sampled answer is keyed by its item's place among all items, not by how they are grouped.
#[test]
fn sampled_scores_do_not_depend_on_the_batch() {
    let dir = with_model();
    let dir = dir.path();
    let run = |batch: usize| {
        let line =
            format!("eval rows.jsonl --model model --max-new-tokens 6 --temperature 2 --batch {batch} --save saved");
        (ecom(dir, &line).ok().out, fs::read_to_string(dir.join("saved")).unwrap())
    };
    let one = run(1);
    for batch in [2, 8] {
        assert_eq!(run(batch), one, "--batch {batch}");
    }
}

/// Weights that are numbers and give logits that are none: an error, not a panic and not silence.
#[test]
fn logits_that_overflow_are_an_error() {
    let dir = with_model();
    let dir = dir.path();
    Raw::edit(&dir.join("model/model.safetensors"), |w| {
        w.numbers("transformer.h.0.mlp.dense_4h_to_h.weight", |x| x.fill(3e38));
    });
    for line in [
        "generate --model model x",
        "generate --model model x --beams 2",
        "generate --model model x --temperature 1",
        "eval rows.jsonl --model model --beams 2",
        "eval rows.jsonl --model model",
    ] {
        ecom(dir, line).refused(2, "the model's logits are not finite numbers: its weights overflow");
    }
}

/// Flags that would do nothing are refused, and so is a place for the answers where none can be written, before any is made.
#[test]
fn what_cannot_be_done_is_said_at_once() {
    let dir = with_model();
    let dir = dir.path();
    for (line, code, says) in [
        ("generate --model model x --to made.jsonl", 2, "cannot be used with"),
        ("generate --model model --from rows.jsonl --raw", 2, "cannot be used with"),
        ("inspect rows.jsonl --tensors", 2, "--tensors: wanted a model folder"),
        ("inspect model --show 5", 2, "--show: wanted an instruction file"),
        ("inspect model --tokenizer model", 2, "--tokenizer: wanted an instruction file"),
        ("inspect model --skip-bad-rows 0", 2, "--skip-bad-rows: wanted an instruction file"),
        ("eval rows.jsonl --model model --prompt-tokens 0", 2, "--prompt-tokens: wanted at least 1, found 0"),
        ("tokenizer train --vocab 2000000000 --output made rows.jsonl", 2, "wanted at most 1000000 entries"),
        // The model would be missed next.
        ("eval rows.jsonl --model none --save none/saved", 4, "none: cannot create a temporary file in it"),
        ("generate --model none --from rows.jsonl --to none/made", 4, "none: cannot create a temporary file in it"),
    ] {
        let ran = ecom(dir, line);
        // Wrong arguments are clap's to explain, in several lines.
        if says == "cannot be used with" {
            assert!(ran.code == Some(code) && ran.err.contains(says) && ran.out.is_empty(), "{line}: {}", ran.err);
        } else {
            ran.refused(code, says);
        }
    }
    assert!(!dir.join("made").exists());
}

/// What a question may lack, and what it may not hold.
#[test]
fn questions_may_lack_answers_and_nothing_else() {
    let dir = with_model();
    let dir = dir.path();
    let ask = |rows: &str| {
        fs::write(dir.join("q.jsonl"), rows).unwrap();
        ecom(dir, "generate --model model --from q.jsonl --max-new-tokens 4")
    };
    let own = r#"{"description":"","prompt":"Name it.","input":"Bex lamp","output":"#;
    let forms = [
        format!("{own}\"\"}}"),
        format!("{own}null}}"),
        format!("{own}\"Bex\"}}"),
        r#"{"prompt":"Name it.","input":"Bex lamp"}"#.into(),
        r#"{"instruction":"Name it.","input":"Bex lamp","output":null}"#.into(),
    ];
    let found = json_lines(&ask(&forms.join("\n")).ok().out);
    assert_eq!(found.len(), forms.len());
    assert!(found.iter().all(|a| a["output"] == found[0]["output"] && a["tokens"] == found[0]["tokens"]), "{found:?}");
    assert_eq!(json_lines(&ask(r#"{"prompt":"Name it."}"#).ok().out).len(), 1);
    for (row, says) in [
        (r#"{"prompt":"a","prompt":"b","input":""}"#, r#"key "prompt" appears twice"#),
        (r#"{"text":"a","text":"b"}"#, r#"key "text" appears twice"#),
        (r#"{"messages":[{"role":"user","content":"a","content":"b"}]}"#, "duplicate field `content`"),
        (r#"{"text":"a","input":"b"}"#, r#"unknown key "input""#),
        (r#"{"text":5}"#, r#"key "text": wanted a string"#),
        (r#"{"text":"a\u0000b"}"#, r#"NUL character in "text""#),
        (r#"{"prompt":"a\u0000b"}"#, r#"NUL character in "prompt""#),
        (r#"{"text":""}"#, "is empty"),
        (r#"{"prompt":"a","output":5}"#, r#"key "output""#),
        (r#"{"promt":"a"}"#, "unknown field `promt`"),
    ] {
        ask(&format!("{{\"text\":\"a\"}}\n\n{row}\n"))
            .refused(2, &format!("q.jsonl:3: {says}").replace("3: is", "3: prompt 2 is"));
    }
}

#[test]
fn several_answers_are_told_apart() {
    let dir = with_model();
    let ran = ecom(dir.path(), "generate --model model x --temperature 1 --answers 3 --max-new-tokens 4").ok();
    for n in 1..=3 {
        assert_eq!(ran.out.lines().filter(|l| *l == format!("--- answer {n}")).count(), 1, "{}", ran.out);
    }
}

/// Records of one task make one set whichever files they are in; an id that comes twice, or an answer to nothing, is named.
#[test]
fn files_of_records_make_common_sets() {
    let dir = folder();
    let dir = dir.path();
    let row = |prompt: &str| json!({ "instruction": prompt, "output": "yes" });
    fs::write(dir.join("one.jsonl"), lines(&[row("a"), row("b")])).unwrap();
    fs::write(dir.join("two.jsonl"), lines(&[row("c")])).unwrap();
    let answer = |id: &str| json!({ "set": "untitled-en", "id": id, "prediction": "yes" });
    let answers = [answer("one-1"), answer("one-2"), answer("two-1")];
    fs::write(dir.join("answers"), lines(&answers)).unwrap();
    let line = "eval one.jsonl two.jsonl --json --predictions answers";
    let found: Value = serde_json::from_str(&ecom(dir, line).ok().out).unwrap();
    assert_eq!((found["sets"].as_array().unwrap().len(), &found["sets"][0]["items"]), (1, &json!(3)));
    // Answers to items that a limit leaves out are no mistake.
    ecom(dir, &format!("{line} --limit 1")).ok();

    let more = |value: Value| fs::write(dir.join("answers"), lines(&[&answers[..], &[value]].concat())).unwrap();
    more(answer("two-2"));
    ecom(dir, line).refused(2, "answers:4: no item two-2 is in untitled-en");
    more(json!({ "set": "other-en", "id": "one-1", "prediction": "yes" }));
    ecom(dir, line).refused(2, "answers:4: no set other-en");
    more(json!({ "set": "other-en", "id": 1, "prediction": "yes" }));
    let ran = ecom(dir, line);
    ran.refused(2, "answers:4: invalid type");
    assert!(!ran.err.contains("column"), "{}", ran.err);
    ecom(dir, "eval one.jsonl two.jsonl one.jsonl --predictions answers")
        .refused(2, "one.jsonl:1: record one-1 of set untitled-en was already in one.jsonl:1");
}

/// A released task folder whose name is `EN-Shop-CLS-feeling`.
fn task_folder(at: &Path) -> PathBuf {
    let folder = at.join("Shop/tasks/EN-Shop-CLS-feeling");
    fs::create_dir_all(&folder).unwrap();
    let meta = json!({
        "defi": "feeling", "label_key": "feeling", "label_set": { "feeling": ["good", "bad"] },
        "test_prompt": { "instruction": "### Instruction:\n{sentences}\nHow is it? {label_set}\n### Response:\n" },
    });
    fs::write(folder.join("meta-info.json"), meta.to_string()).unwrap();
    let row = |text: &str, label: &str| json!({ "sentences": text, "labels": { "feeling": [label] } });
    fs::write(folder.join("test.json"), lines(&[row("A fine lamp.", "good"), row("It broke.", "bad")])).unwrap();
    folder
}

#[test]
fn data_folders_are_described() {
    let dir = folder();
    let dir = dir.path();
    let task = task_folder(&dir.join("sets"));
    let ran = ecom(dir, "inspect sets").ok();
    assert_eq!(ran.out.lines().next(), Some("1 evaluation sets, 2 items"));
    assert!(ran.out.contains("EN-Shop-CLS-feeling") && ran.out.contains("2 labels: good, bad"), "{}", ran.out);
    assert_eq!(ecom(dir, "inspect sets/Shop/tasks/EN-Shop-CLS-feeling").ok().out, ran.out);
    fs::create_dir(dir.join("none")).unwrap();
    ecom(dir, "inspect none").refused(2, "none: wanted a model folder with config.json, or an instruction file");
    ecom(dir, "inspect sets --show 1").refused(2, "--show: wanted an instruction file");

    // One position, in the file; and half a task is not no task.
    let mut rows = fs::read_to_string(task.join("test.json")).unwrap();
    rows.push_str("{\"sentences\": 5}\n");
    fs::write(task.join("test.json"), rows).unwrap();
    let ran = ecom(dir, "inspect sets");
    ran.refused(2, "test.json:3: invalid type");
    assert!(!ran.err.contains("column"), "{}", ran.err);
    fs::remove_file(task.join("meta-info.json")).unwrap();
    ecom(dir, "inspect sets").refused(2, "meta-info.json");
}

/// What a file holds is shown, not sent to the terminal.
#[test]
fn control_characters_in_texts_are_shown_as_such() {
    let dir = folder();
    let row = json!({ "instruction": "Is it\nred?", "input": "a \u{1b}[31mlamp", "output": "yes" });
    fs::write(dir.path().join("rows.jsonl"), lines(&[row])).unwrap();
    let out = ecom(dir.path(), "inspect rows.jsonl").ok().out;
    assert!(out.contains("a \\u{1b}[31mlamp\nIs it\nred?") && !out.contains('\u{1b}'), "{out}");
}

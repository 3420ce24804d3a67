//! Damages, one by one: what is broken, the command that meets it, its exit code and the words of its one line. Always
//! asserted as well: no panic, nothing on stdout, and every file and folder as it was before, with nothing half-written.

use super::*;

/// One damage. The folder it happens in has `model`, `rows.jsonl` (40 instructions), `answers.jsonl` (predictions for
/// them) and, where the command needs it, `run` (a finished training run).
struct Fault {
    name: &'static str,
    damage: fn(&Path),
    command: &'static str,
    code: i32,
    says: &'static str,
}

const fn fault(name: &'static str, damage: fn(&Path), command: &'static str, code: i32, says: &'static str) -> Fault {
    Fault { name, damage, command, code, says }
}

const ASK: &str = "generate --model model 'Which colour is it?' --max-new-tokens 4";
const TRAIN: &str =
    "train --data rows.jsonl --output out --hidden 32 --layers 2 --heads 4 --vocab 400 --tokens 512 --steps 2";
const SCORE: &str = "eval rows.jsonl --predictions answers.jsonl";
const ANSWER: &str = "generate --model model --from questions.jsonl --to made.jsonl --max-new-tokens 4";
const NORM: &str = "transformer.ln_f.weight";

fn check(faults: &[Fault]) {
    let mut wrong = Vec::new();
    for fault in faults {
        let dir = folder();
        let dir = dir.path();
        copy(&trained().join("run/model"), &dir.join("model"));
        copy(&trained().join("rows.jsonl"), &dir.join("rows.jsonl"));
        fs::write(dir.join("answers.jsonl"), answers()).unwrap();
        if fault.command.contains("--resume") || fault.command.contains("--output run") {
            copy(&trained().join("run"), &dir.join("run"));
        }
        (fault.damage)(dir);
        let mut before = tree(dir);
        let ran = ecom(dir, fault.command);
        if let Err(what) = ran.refusal(fault.code, fault.says) {
            wrong.push(format!("{}: {what}", fault.name));
        }
        // A run that stops early leaves its lock file and its log, and nothing else.
        let mut after = tree(dir);
        before.remove("run/.lock");
        after.remove("run/.lock");
        after.retain(|name, _| before.contains_key(name) || !is_log(name));
        if after != before {
            let new: Vec<_> = after.iter().filter(|(n, h)| before.get(*n) != Some(*h)).map(|(n, _)| n).collect();
            let gone: Vec<_> = before.keys().filter(|n| !after.contains_key(*n)).collect();
            wrong.push(format!("{}: left or changed {new:?}, removed {gone:?}", fault.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {} are wrong\n\n{}", wrong.len(), faults.len(), wrong.join("\n"));
}

fn is_log(name: &str) -> bool {
    name == "out" || name == "out/.lock" || name == "out/log.jsonl" || name.starts_with("out/tensorboard")
}

/// An answer to each of the 40 rows.
fn answers() -> String {
    let row =
        |r: &Value| json!({ "set": format!("{}-en", r["task"].as_str().unwrap()), "id": r["id"], "prediction": "red" });
    lines(&rows(40).iter().map(row).collect::<Vec<_>>())
}

fn edit(dir: &Path, name: &str, change: fn(&mut Raw)) {
    Raw::edit(&dir.join("model").join(name), change);
}

fn weights(dir: &Path, change: fn(&mut Raw)) {
    edit(dir, "model.safetensors", change);
}

fn config(dir: &Path, key: &str, value: Value) {
    edit_json(&dir.join("model/config.json"), |map| drop(map.insert(key.into(), value)));
}

fn truncate(path: &Path, by: u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - by).unwrap();
}

fn put(dir: &Path, name: &str, content: impl AsRef<[u8]>) {
    fs::write(dir.join(name), content).unwrap();
}

fn add(dir: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = dir.join(name);
    fs::write(&path, [&fs::read(&path).unwrap(), content.as_ref()].concat()).unwrap();
}

/// The weights in a shard with an index that says `map`.
fn shards(dir: &Path, map: &Value) {
    fs::rename(dir.join("model/model.safetensors"), dir.join("model/one.safetensors")).unwrap();
    put(dir, "model/model.safetensors.index.json", json!({ "weight_map": map }).to_string());
}

fn nothing(_: &Path) {}

#[rustfmt::skip] // A damage a line.
#[test]
fn a_damaged_weights_file_is_named() {
    check(&[
        fault("cut in the numbers", |d| truncate(&d.join("model/model.safetensors"), 4), ASK, 2, "bytes of numbers, found"),
        fault("cut in the header", |d| fs::File::options().write(true).open(d.join("model/model.safetensors")).unwrap().set_len(900).unwrap(), ASK, 2, "found 892 after the length"),
        fault("cut in the length", |d| put(d, "model/model.safetensors", [1, 2, 3]), ASK, 2, "wanted at least 8 bytes, found 3"),
        fault("an empty file", |d| put(d, "model/model.safetensors", ""), ASK, 2, "wanted at least 8 bytes, found 0"),
        fault("longer than its header says", |d| add(d, "model/model.safetensors", [0; 4]), ASK, 2, "bytes of numbers, found"),
        fault("a header of 2^63 bytes", |d| put(d, "model/model.safetensors", (1u64 << 63).to_le_bytes()), ASK, 2, "is this a safetensors file?"),
        fault("a header that is no JSON", |d| put(d, "model/model.safetensors", b"\x04\0\0\0\0\0\0\0{{{{"), ASK, 2, "model.safetensors: header:"),
        fault("a header nested deeply", |d| put(d, "model/model.safetensors", [&40_000u64.to_le_bytes(), "{\"a\":".repeat(8000).as_bytes()].concat()), ASK, 2, "model.safetensors: header:"),
        fault("a shape that overflows", |d| weights(d, |w| drop(w.info(NORM).insert("shape".into(), json!([u64::MAX, 9])))), ASK, 2, NORM),
        fault("overlapping tensors", |d| weights(d, |w| drop(w.info(NORM).insert("data_offsets".into(), json!([0, 128])))), ASK, 2, "header:"),
        fault("offsets beyond the file", |d| weights(d, |w| drop(w.info(NORM).insert("data_offsets".into(), json!([1u64 << 40, (1u64 << 40) + 128])))), ASK, 2, "header:"),
        fault("offsets that run backwards", |d| weights(d, |w| drop(w.info(NORM).insert("data_offsets".into(), json!([128, 0])))), ASK, 2, NORM),
        fault("a name twice", |d| {
            let raw = Raw::read(&d.join("model/model.safetensors"));
            let header = Value::from(raw.header).to_string();
            let header = header.replacen("transformer.ln_f.weight", "transformer.ln_f.bias", 1);
            put(d, "model/model.safetensors", [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &raw.data].concat());
        }, ASK, 2, "transformer.ln_f.bias is there twice"),
        fault("an unknown number format", |d| weights(d, |w| drop(w.info(NORM).insert("dtype".into(), json!("F33")))), ASK, 2, "header:"),
        fault("integers for weights", |d| weights(d, |w| drop(w.info(NORM).insert("dtype".into(), json!("U32")))), ASK, 2, NORM),
        fault("a missing tensor", |d| weights(d, |w| {
            let info = w.header.remove(NORM).unwrap();
            w.header.insert("transformer.ln_g.weight".into(), info);
        }), ASK, 2, "missing tensors: transformer.ln_f.weight; unexpected tensors: transformer.ln_g.weight"),
        fault("an unexpected tensor", |d| weights(d, |w| w.add("transformer.extra", &[2])), ASK, 2, "unexpected tensors: transformer.extra"),
        fault("a misshaped tensor", |d| weights(d, |w| drop(w.info(NORM).insert("shape".into(), json!([4, 8])))), ASK, 2, "transformer.ln_f.weight: wanted [32], found [4, 8]"),
        fault("a tensor of five axes", |d| weights(d, |w| drop(w.info(NORM).insert("shape".into(), json!([1, 1, 2, 4, 4])))), ASK, 2, NORM),
        fault("no embedding", |d| weights(d, |w| {
            let info = w.header.remove("transformer.word_embeddings.weight").unwrap();
            w.header.insert("transformer.words.weight".into(), info);
        }), ASK, 2, "no tensor transformer.word_embeddings.weight"),
        fault("a head that is not the embedding", |d| weights(d, |w| w.add("lm_head.weight", &[448, 32])), ASK, 2, "lm_head.weight differs"),
        fault("not a number", |d| weights(d, |w| w.numbers(NORM, |x| x[7] = f32::NAN)), ASK, 2, "ln_f.weight: element 7 is not a finite number"),
        fault("infinity, in training", |d| weights(d, |w| w.numbers(NORM, |x| x[0] = f32::INFINITY)), "train --model model --data rows.jsonl --output out", 2, "ln_f.weight: element 0 is not a finite number"),
        fault("infinity, inspected", |d| weights(d, |w| w.numbers(NORM, |x| x[0] = f32::INFINITY)), "inspect model", 2, "element 0 is not a finite number"),
        fault("a folder for a file", |d| {
            fs::remove_file(d.join("model/model.safetensors")).unwrap();
            fs::create_dir(d.join("model/model.safetensors")).unwrap();
        }, ASK, 2, "wanted a file, found something else"),
    ]);
}

#[rustfmt::skip] // A damage a line.
#[test]
fn a_damaged_model_folder_is_named() {
    check(&[
        fault("no folder", nothing, "generate --model nowhere x", 2, "nowhere/config.json: cannot read"),
        fault("no model at all", nothing, "generate x", 2, "no model: name one with --model, or make the demo's with `ecom train`"),
        fault("no weights", |d| fs::remove_file(d.join("model/model.safetensors")).unwrap(), ASK, 2, "found neither"),
        fault("a pickle", |d| fs::rename(d.join("model/model.safetensors"), d.join("model/pytorch_model.bin")).unwrap(), ASK, 2, "convert it to safetensors first"),
        fault("an index that climbs out", |d| shards(d, &json!({ NORM: "../one.safetensors" })), ASK, 2, "plain file name ending in .safetensors, found ../one.safetensors"),
        fault("an absolute index", |d| shards(d, &json!({ NORM: "/etc/passwd" })), ASK, 2, "plain file name"),
        fault("an index of a missing shard", |d| shards(d, &json!({ NORM: "two.safetensors" })), ASK, 2, "two.safetensors: cannot open"),
        fault("an index that lacks tensors", |d| shards(d, &json!({ NORM: "one.safetensors" })), ASK, 2, "which the index does not place here"),
        fault("an index that is no JSON", |d| {
            shards(d, &json!({}));
            put(d, "model/model.safetensors.index.json", "{");
        }, ASK, 2, "index.json: EOF"),
        fault("no config.json", |d| fs::remove_file(d.join("model/config.json")).unwrap(), ASK, 2, "model/config.json: cannot read"),
        fault("a broken config.json", |d| put(d, "model/config.json", "{\"n_layer\": "), ASK, 2, "config.json: broken JSON"),
        fault("a config.json that is not UTF-8", |d| put(d, "model/config.json", b"{\"\xff\"}"), ASK, 2, "valid UTF-8"),
        fault("another kind of model", |d| config(d, "model_type", json!("gpt2")), ASK, 2, "model_type: wanted \"bloom\", found \"gpt2\""),
        fault("heads that do not divide", |d| config(d, "n_head", json!(5)), ASK, 2, "wanted a multiple of the 5 heads"),
        fault("a size that is no number", |d| config(d, "n_layer", json!("two")), ASK, 2, "n_layer: wanted a whole number, found \"two\""),
        fault("a negative size", |d| config(d, "n_layer", json!(-1)), ASK, 2, "n_layer: wanted a whole number, found -1"),
        fault("more layers than there are", |d| config(d, "n_layer", json!(3)), ASK, 2, "missing tensors: transformer.h.2."),
        fault("fewer layers than there are", |d| config(d, "n_layer", json!(1)), ASK, 2, "unexpected tensors: transformer.h.1."),
        fault("another hidden size", |d| config(d, "hidden_size", json!(64)), ASK, 2, "wanted [vocabulary, 64], found [448, 32]"),
        fault("layers without end", |d| config(d, "n_layer", json!(4096)), ASK, 2, "missing tensors"),
        fault("a model that is too large", |d| config(d, "hidden_size", json!(1 << 20)), ASK, 3, "not enough memory"),
        fault("no tokenizer", |d| fs::remove_file(d.join("model/tokenizer.json")).unwrap(), ASK, 2, "model/tokenizer.json: cannot open"),
        fault("a broken tokenizer", |d| put(d, "model/tokenizer.json", "{"), ASK, 2, "tokenizer.json: not a tokenizer"),
        fault("a tokenizer that pads with the end", |d| edit_json(&d.join("model/tokenizer_config.json"), |c| drop(c.insert("pad_token".into(), json!("</s>")))), ASK, 2, "both pad and eos"),
        fault("a tokenizer without its end", |d| edit_json(&d.join("model/tokenizer_config.json"), |c| drop(c.insert("eos_token".into(), json!("<end>")))), ASK, 2, "wanted the eos token <end>, found none"),
        fault("a tokenizer larger than the model", |d| {
            put(d, "words.txt", (0..3000).map(|i| format!("w{i}x ")).collect::<String>());
            ecom(d, "tokenizer train --vocab 1000 --output large words.txt").ok();
        }, "generate --model model --tokenizer large x", 2, "but the model only 448 rows"),
        fault("the same in training", |d| {
            put(d, "words.txt", (0..3000).map(|i| format!("w{i}x ")).collect::<String>());
            ecom(d, "tokenizer train --vocab 1000 --output large words.txt").ok();
        }, "train --model model --data rows.jsonl --tokenizer large --output out", 2, "but the model only 448 rows"),
    ]);
}

#[rustfmt::skip] // A damage a line.
#[test]
fn a_damaged_data_file_is_named_with_its_line() {
    let bad = |name, damage, says| fault(name, damage, TRAIN, 2, says);
    check(&[
        bad("broken JSON", |d| add(d, "rows.jsonl", "{\"prompt\": \n"), "rows.jsonl:41: broken JSON at column"),
        bad("bad UTF-8", |d| add(d, "rows.jsonl", b"{\"prompt\": \"\xff\"}\n"), "rows.jsonl:41: invalid UTF-8 at byte 12"),
        bad("an unknown key", |d| add(d, "rows.jsonl", "{\"description\":\"\",\"prompt\":\"a\",\"input\":\"\",\"output\":\"b\",\"answr\":1}\n"), "rows.jsonl:41: unknown field `answr`"),
        bad("a missing key", |d| add(d, "rows.jsonl", "{\"description\":\"\",\"prompt\":\"a\",\"input\":\"\"}\n"), "rows.jsonl:41: missing field `output`"),
        bad("a key of the wrong type", |d| add(d, "rows.jsonl", "{\"description\":\"\",\"prompt\":7,\"input\":\"\",\"output\":\"b\"}\n"), "rows.jsonl:41: key \"prompt\": invalid type"),
        bad("the same key twice", |d| add(d, "rows.jsonl", "{\"prompt\":\"a\",\"prompt\":\"b\",\"description\":\"\",\"input\":\"\",\"output\":\"b\"}\n"), "rows.jsonl:41: key \"prompt\" appears twice"),
        bad("nothing to learn", |d| add(d, "rows.jsonl", "{\"description\":\"\",\"prompt\":\"a\",\"input\":\"\",\"output\":\" \"}\n"), "rows.jsonl:41: output is empty"),
        bad("a NUL", |d| add(d, "rows.jsonl", "{\"description\":\"\",\"prompt\":\"a\\u0000\",\"input\":\"\",\"output\":\"b\"}\n"), "rows.jsonl:41: NUL character"),
        bad("an array", |d| add(d, "rows.jsonl", "[1]\n"), "rows.jsonl:41: wanted one JSON object per line, found an array"),
        bad("nested without end", |d| add(d, "rows.jsonl", format!("{{\"prompt\":{}\n", "[".repeat(100_000))), "rows.jsonl:41: "),
        bad("a surrogate alone", |d| add(d, "rows.jsonl", "{\"description\":\"\",\"prompt\":\"\\ud800\",\"input\":\"\",\"output\":\"b\"}\n"), "rows.jsonl:41: broken JSON"),
        bad("a line of 17 MiB", |d| add(d, "rows.jsonl", format!("{{\"prompt\":\"{}\"}}\n", "x".repeat(17 << 20))), "rows.jsonl:41: line is longer than 16 MiB"),
        bad("two forms in one file", |d| add(d, "rows.jsonl", "{\"messages\":[]}\n"), "rows.jsonl:41: unknown field `messages`"),
        bad("messages without an answer", |d| put(d, "rows.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n"), "rows.jsonl:1: the last message must be the assistant's"),
        bad("an empty file", |d| put(d, "rows.jsonl", ""), "rows.jsonl: wanted at least one instruction, found none"),
        bad("only blank lines", |d| put(d, "rows.jsonl", "\n \r\n"), "rows.jsonl: wanted at least one instruction, found none"),
        bad("no file", |d| fs::remove_file(d.join("rows.jsonl")).unwrap(), "rows.jsonl: cannot read: No such file"),
        bad("a folder", |d| {
            fs::remove_file(d.join("rows.jsonl")).unwrap();
            fs::create_dir(d.join("rows.jsonl")).unwrap();
        }, "rows.jsonl: cannot read: Is a directory"),
        fault("one bad row too many", |d| add(d, "rows.jsonl", "{\n{\n{\n"), "train --data rows.jsonl --output out --skip-bad-rows 2", 2, "rows.jsonl:43: broken JSON at column 1"),
        fault("prompts that fill the length", nothing, "train --data rows.jsonl --output out --vocab 400 --length 8", 2, "no target token left: of 40 examples 40 are over 8 tokens"),
        fault("a row over the length, under error", nothing, "train --data rows.jsonl --output out --vocab 400 --length 40 --overflow error", 2, "row-00: "),
        fault("no held-out file", nothing, "train --data rows.jsonl --heldout held.jsonl --output out --vocab 400", 2, "held.jsonl"),
        fault("inspecting broken JSON", |d| add(d, "rows.jsonl", "{"), "inspect rows.jsonl", 2, "rows.jsonl:41: broken JSON"),
        fault("inspecting nothing", nothing, "inspect nowhere", 2, "nowhere: wanted a model folder with config.json, or an instruction file"),
        fault("text that is not UTF-8", |d| put(d, "words.txt", b"one\n\xff\n"), "tokenizer train --output made words.txt", 2, "words.txt:2: "),
        fault("text that is empty", |d| put(d, "words.txt", ""), "tokenizer train --output made words.txt", 2, "no text to train on"),
    ]);
}

#[rustfmt::skip] // A damage a line.
#[test]
fn wrong_settings_are_named() {
    let with = |name, command, says| fault(name, nothing, command, 2, says);
    check(&[
        fault("an unknown key", |d| put(d, "run.toml", "lr = 0.1\nbacth = 3\n"), "train --config run.toml", 2, "run.toml:2: unknown key `bacth`; did you mean `batch`?"),
        fault("text for a number", |d| put(d, "run.toml", "lr = 0.1\n\nbatch = \"3\"\n"), "train --config run.toml", 2, "run.toml:3: invalid type: string \"3\""),
        fault("a negative number", |d| put(d, "run.toml", "batch = -3\n"), "train --config run.toml", 2, "run.toml:1: invalid value"),
        fault("no TOML", |d| put(d, "run.toml", "batch 3\n"), "train --config run.toml", 2, "run.toml:1: "),
        fault("not UTF-8", |d| put(d, "run.toml", b"batch = 3 # \xff\n"), "train --config run.toml", 2, "run.toml: cannot read"),
        fault("an unknown choice", |d| put(d, "run.toml", "overflow = \"dorp\"\n"), "train --config run.toml", 2, "run.toml:1: unknown variant `dorp`"),
        with("no such file", "train --config none.toml", "none.toml: cannot read"),
        with("an unknown flag", "train --bacth 3", "unexpected argument '--bacth'"),
        with("an unknown command", "trian", "unrecognized subcommand 'trian'"),
        with("a negative batch", "train --batch=-1", "invalid value '-1'"),
        with("a batch of nothing", "train --data rows.jsonl --output out --batch 0", "batch: wanted at least 1, found 0"),
        with("no number for a rate", "train --data rows.jsonl --output out --lr nan", "lr: wanted 0 to 1, found NaN"),
        with("heads that do not divide", "train --data rows.jsonl --output out --hidden 30 --heads 4", "hidden size 30: wanted a multiple of the 4 heads"),
        with("a vocabulary too small", "train --data rows.jsonl --output out --vocab 100", "vocab: wanted from 300"),
        with("a tokenizer too small", "tokenizer train --vocab 100 --output made rows.jsonl", "wanted at least 260 entries, found 100"),
        with("a shape for a given model", "train --model model --data rows.jsonl --output out --hidden 64", "they cannot go with --model"),
        with("a given model without data", "train --model model --output out", "--model needs --data"),
        with("both ways of going on", "train --resume --overwrite", "cannot be used with"),
        fault("a model too large to make", nothing, "train --data rows.jsonl --output out --vocab 400 --hidden 1048576 --heads 1024 --layers 4096", 3, "not enough memory"),
        with("beams of nothing", "generate --model model x --beams 0", "beams: wanted 1 to half the vocabulary, found 0"),
        with("more beams than tokens", "generate --model model x --beams 300", "beams: wanted 1 to half the vocabulary, found 300"),
        fault("beams without end", nothing, "generate --model model x --beams 18446744073709551615", 3, "not enough memory"),
        with("beams with a temperature", "generate --model model x --beams 2 --temperature 1", "cannot be used with"),
        with("more answers than beams", "generate --model model x --beams 2 --answers 3", "3 answers from 2 beams"),
        with("two greedy answers", "generate --model model x --answers 2", "greedy decoding has one answer"),
        with("answers of nothing", "generate --model model x --answers 0", "answers: wanted 1 to"),
        with("answers without end", "generate --model model x --temperature 1 --answers 18446744073709551615", "answers: wanted"),
        with("answers by the billion", "generate --model model x --temperature 1 --answers 1000000000000", "answers: wanted"),
        with("a batch of nothing to generate", "generate --model model x --batch 0", "batch: wanted at least 1"),
        with("a batch of nothing to evaluate", "eval rows.jsonl --model model --batch 0", "batch: wanted at least 1"),
        fault("a batch without end", nothing, "eval rows.jsonl --model model --batch 18446744073709551615", 3, "not enough memory"),
        fault("tokens without end", nothing, "generate --model model x --max-new-tokens 18446744073709551615", 3, "not enough memory"),
        with("a temperature of 0", "generate --model model x --temperature 0", "temperature: wanted a positive number, found 0"),
        with("a share over 1", "generate --model model x --top-p 1.5", "top-p: wanted 0 to 1, found 1.5"),
        with("a negative share", "generate --model model x --min-p=-0.5", "min-p: wanted 0 to 1, found -0.5"),
        with("a penalty of 0", "generate --model model x --repetition-penalty 0", "repetition penalty: wanted a positive number, found 0"),
        with("an empty stop", "generate --model model x --stop ''", "--stop: wanted some text, found none"),
        with("an empty prompt", "generate --model model --raw ''", "prompt 1 is empty"),
        with("no prompt", "generate --model model", "required"),
        with("a share of responses over 1", "plan 560m --response 2", "--response: wanted 0 to 1, found 2"),
        with("no such size", "plan 561m", "561m: cannot read"),
    ]);
}

#[rustfmt::skip] // A damage a line.
#[test]
fn damaged_questions_and_answers_are_named() {
    let asked = |name, damage, says| fault(name, damage, ANSWER, 2, says);
    let scored = |name, damage, says| fault(name, damage, SCORE, 2, says);
    check(&[
        asked("no questions", |d| put(d, "questions.jsonl", "\n"), "questions.jsonl: wanted at least one line, found none"),
        asked("no file of questions", nothing, "questions.jsonl: cannot read"),
        asked("a broken question", |d| put(d, "questions.jsonl", "{\"text\":\"a\"}\n{\"text\":\n"), "questions.jsonl:2: broken JSON"),
        asked("a question that is not UTF-8", |d| put(d, "questions.jsonl", b"{\"text\":\"a\"}\n{\"text\":\"\xff\"}\n"), "questions.jsonl:2: invalid UTF-8"),
        asked("an array of questions", |d| put(d, "questions.jsonl", "[{\"text\":\"a\"}]\n"), "questions.jsonl:1: wanted one JSON object per line, found an array"),
        asked("a question with an unknown key", |d| put(d, "questions.jsonl", "{\"description\":\"\",\"prompt\":\"a\",\"input\":\"\",\"lnag\":1}\n"), "questions.jsonl:1: unknown field `lnag`"),
        asked("an empty question", |d| put(d, "questions.jsonl", "{\"text\":\"\"}\n"), "prompt 1 is empty"),
        scored("an answer short", |d| put(d, "answers.jsonl", answers().lines().skip(1).fold(String::new(), |a, l| a + l + "\n")), "answers.jsonl: no answer to row-00 of F01-en"),
        scored("an answer twice", |d| add(d, "answers.jsonl", answers().lines().next().unwrap()), "answers.jsonl:41: a second answer to row-00 of F01-en"),
        scored("a broken answer", |d| add(d, "answers.jsonl", "{"), "answers.jsonl:41: "),
        scored("an answer with an unknown key", |d| add(d, "answers.jsonl", "{\"set\":\"\",\"id\":\"\",\"prediction\":\"\",\"x\":1}"), "answers.jsonl:41: unknown field `x`"),
        scored("answers that are not UTF-8", |d| add(d, "answers.jsonl", b"\xff"), "answers.jsonl: "),
        scored("no answers", |d| fs::remove_file(d.join("answers.jsonl")).unwrap(), "answers.jsonl: cannot read"),
        fault("nothing to evaluate", |d| fs::create_dir(d.join("none")).unwrap(), "eval none --model model", 2, "none: no evaluation items"),
        fault("a limit of nothing", nothing, "eval rows.jsonl --model model --limit 0", 2, "--limit leaves no item"),
        fault("no such set", nothing, "eval nowhere --model model", 2, "nowhere"),
        fault("a prompt cut to nothing", nothing, "eval rows.jsonl --model model --prompt-tokens 0", 2, "empty"),
        fault("a broken task folder", |d| {
            fs::create_dir(d.join("EN-ABSA-CLS-topic")).unwrap();
            put(d, "EN-ABSA-CLS-topic/meta-info.json", "{");
        }, "eval EN-ABSA-CLS-topic --model model", 2, "meta-info.json"),
    ]);
}

#[rustfmt::skip] // A damage a line.
#[test]
fn what_cannot_be_written_is_said_and_the_rest_stays() {
    let disk = |name, damage, command, says| fault(name, damage, command, 4, says);
    check(&[
        disk("a file in the way of a run", |d| put(d, "out", "x"), TRAIN, "out: cannot create the folder"),
        disk("a folder that nobody can make", nothing, "train --data rows.jsonl --output /proc/none/run", "/proc/none/run: cannot create the folder"),
        disk("answers in a folder that is not there", |d| put(d, "questions.jsonl", "{\"text\":\"a\"}"), "generate --model model --from questions.jsonl --to none/made.jsonl --max-new-tokens 2", "none: cannot create a temporary file in it"),
        disk("answers over a folder", |d| put(d, "questions.jsonl", "{\"text\":\"a\"}"), "generate --model model --from questions.jsonl --to model --max-new-tokens 2", "model: cannot write: there is something else than a file"),
        disk("a tokenizer over a file", |d| put(d, "made", "x"), "tokenizer train --vocab 300 --output made rows.jsonl", "made: cannot create the folder: there is a file of that name"),
        disk("a tokenizer below a file", nothing, "tokenizer train --vocab 300 --output rows.jsonl/made rows.jsonl", "rows.jsonl/made"),
        fault("an earlier run", nothing, "train --data rows.jsonl --output run", 2, "go on with --resume, replace it with --overwrite, or name another --output"),
        fault("going on with another rate", nothing, "train --data rows.jsonl --output run --resume --hidden 32 --layers 2 --heads 4 --vocab 400 --batch 8 --tokens 512 --epochs 100 --steps 60 --lr 0.02 --seed 1", 2, "run/checkpoint-60: lr was 0.01"),
        fault("going on with other data", |d| write_rows(&d.join("rows.jsonl"), 39), "train --data rows.jsonl --output run --resume --hidden 32 --layers 2 --heads 4 --vocab 400 --batch 8 --tokens 512 --epochs 100 --steps 60 --lr 0.01", 2, "run/checkpoint-60: the training data is another"),
    ]);
}

/// A limit on the size of files stands for a full disk; the write fails with an error of its own and the old checkpoint
/// stays as it was.
#[test]
fn a_full_disk_ends_a_run_and_leaves_whole_checkpoints() {
    let dir = folder();
    let dir = dir.path();
    write_rows(&dir.join("rows.jsonl"), 40);
    let limited =
        |blocks: u32, command: &str| shell(dir, &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$ECOM\" {command}"));
    // Blocks are of 512 or 1,024 bytes: the log fits, a checkpoint of half a million bytes does not.
    let train = format!("train --data rows.jsonl --output out {TINY} --steps 4 --save-every 2");
    limited(200, &train).refused(4, "cannot save the checkpoint of step 2");
    assert_eq!(names(&dir.join("out")), [".lock", "log.jsonl", "tensorboard"]);

    ecom(dir, &format!("{train} --overwrite")).ok();
    let before = tree(dir);
    limited(5, "tokenizer train --vocab 400 --output out/words rows.jsonl").refused(4, "File too large");
    limited(1, "generate --model out/model --from rows.jsonl --to out/log.jsonl --max-new-tokens 2")
        .refused(4, "out/log.jsonl");
    assert_eq!(tree(dir), before);
    // With room again, the run goes on.
    fs::remove_dir_all(dir.join("out/checkpoint-4")).unwrap();
    let went_on = ecom(dir, &format!("{train} --resume")).ok();
    assert!(went_on.err.contains("resuming from out/checkpoint-2"), "{}", went_on.err);
    assert_eq!(tree(&dir.join("out/checkpoint-4")), before_of(&before, "out/checkpoint-4/"));
}

/// A file system that is really full, where one may be mounted.
#[test]
fn a_full_file_system_ends_a_run_and_is_left_clean() {
    let dir = folder();
    let dir = dir.path();
    write_rows(&dir.join("rows.jsonl"), 40);
    fs::create_dir(dir.join("small")).unwrap();
    let script = |inner: &str| format!("exec unshare -rm sh -c 'mount -t tmpfs -o size=1m none small && {inner}'");
    if shell(dir, &script("true")).code != Some(0) {
        eprintln!("no file system may be mounted here; the limit on file sizes stands for it");
        return;
    }
    let train = format!(
        "\"$ECOM\" train --data rows.jsonl --output small/out {TINY} --steps 4 --save-every 1 2>&1; echo exit $?"
    );
    let ran = shell(dir, &script(&format!("{train}; ls -A small/out")));
    assert!(
        ran.out.contains("error: cannot save the checkpoint of step 2: ") && ran.out.contains("No space left"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("\nexit 4\n"), "{}", ran.out);
    let left = ran.out.split("exit 4\n").nth(1).unwrap();
    assert_eq!(left, ".lock\ncheckpoint-1\nlog.jsonl\ntensorboard\n");

    let full = shell(dir, "\"$ECOM\" plan 560m > /dev/full");
    full.refused(4, "No space left on device");
}

/// What does not fit under a limit on memory is refused before it is allocated.
#[test]
fn a_memory_limit_is_met_by_the_plan() {
    let dir = folder();
    let dir = dir.path();
    write_rows(&dir.join("rows.jsonl"), 40);
    copy(&trained().join("run/model"), &dir.join("model"));
    let limited = |command: &str| shell(dir, &format!("ulimit -v 400000; exec \"$ECOM\" --threads 1 {command}"));
    let large = "--hidden 1024 --heads 8 --layers 8 --vocab 400 --tokens 512 --steps 1";
    let ran = limited(&format!("train --data rows.jsonl --output out {large}"));
    ran.refused(3, "try fewer --tokens in a row, --recompute on, or a smaller model");
    assert!(ran.err.contains("memory: weights (f32)"), "the plan is shown first: {}", ran.err);
    assert_eq!(names(&dir.join("out")), [".lock"]);
    limited("generate --model model x --batch 100000 --max-new-tokens 1000")
        .refused(3, "try --dtype bf16, a smaller --batch");
    limited("generate --model model x --max-new-tokens 2").ok();
    // Whatever the limit, a run is either refused or does not fail.
    for limit in (60_000..=300_000).step_by(40_000) {
        let command = "train --data rows.jsonl --overwrite --output near --hidden 512 --heads 8 --vocab 400 --tokens 512 --steps 1";
        let ran = shell(dir, &format!("ulimit -v {limit}; exec \"$ECOM\" --threads 1 {command}"));
        if ran.code != Some(0) {
            ran.refused(3, "not enough memory");
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn before_of(all: &BTreeMap<String, String>, prefix: &str) -> BTreeMap<String, String> {
    all.iter().filter_map(|(n, h)| Some((n.strip_prefix(prefix)?.to_string(), h.clone()))).collect()
}

//! `ecom train` from outside: its logs, that the same run gives the same bits, that a run goes on where it stopped, and
//! what it does with rows that are too long or a loss that is no number.

use std::io::Write as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::*;

/// A folder with `rows.jsonl`.
fn shop(n: usize) -> TempDir {
    let dir = folder();
    write_rows(&dir.path().join("rows.jsonl"), n);
    dir
}

fn train(dir: &Path, output: &str, more: &str) -> Ran {
    ecom(dir, &format!("train --data rows.jsonl --output {output} {}", tiny(more)))
}

fn log(output: &Path) -> Vec<Value> {
    json_lines(&fs::read_to_string(output.join("log.jsonl")).unwrap())
}

fn weights(output: &Path) -> String {
    sha256(&output.join("model/model.safetensors"))
}

#[test]
fn the_log_has_every_step_with_every_field() {
    let dir = shop(40);
    let dir = dir.path();
    write_rows(&dir.join("held.jsonl"), 7);
    let ran = train(dir, "out", "--steps 12 --save-every 5 --heldout held.jsonl").ok();
    assert_eq!(ran.out, "", "the result of training is a folder, not text");
    for part in ["data: 40 of 40 instructions", "memory: weights (f32)", "step 5: held-out loss", "model: out/model"] {
        assert!(ran.err.contains(part), "no {part:?} in\n{}", ran.err);
    }
    let log = log(&dir.join("out"));
    assert_eq!(log.len(), 12);
    for (i, entry) in log.iter().enumerate() {
        let step = i as u64 + 1;
        let heldout = [5, 10, 12].contains(&step);
        let mut keys = vec!["step", "epoch", "loss", "lr", "grad_norm", "tokens_per_second", "useful"];
        keys.extend(heldout.then_some("heldout_loss"));
        assert_eq!(entry.as_object().unwrap().keys().collect::<Vec<_>>(), keys);
        assert_eq!(entry["step"], step);
        // 40 rows in batches of 8.
        assert_eq!(entry["epoch"], step as f64 / 5.0);
        let number = |key: &str| entry[key].as_f64().unwrap();
        assert!(number("loss") > 0.0 && number("grad_norm") > 0.0 && number("tokens_per_second") > 0.0);
        assert!((0.0..=1.0).contains(&number("useful")) && (0.0..=0.002_001).contains(&number("lr")));
    }
    let ends = |key: &str| (log[0][key].as_f64().unwrap(), log[11][key].as_f64().unwrap());
    let ((loss, last_loss), (lr, last_lr)) = (ends("loss"), ends("lr"));
    assert!(last_loss < loss && last_lr < lr / 10.0, "the loss falls and so does the rate: {log:?}");
}

/// TensorBoard's framing (tensorflow, `record_writer.cc`): length, its masked CRC-32C, data, the data's.
#[test]
fn the_event_file_is_framed_as_tensorboard_reads_it() {
    let masked = |bytes: &[u8]| crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8);
    let bytes = fs::read(trained().join("run/tensorboard/events.out.tfevents.0000000001.ecom")).unwrap();
    let (mut rest, mut records) = (bytes.as_slice(), Vec::new());
    while !rest.is_empty() {
        let (length, after) = rest.split_at(8);
        let (length_crc, after) = after.split_at(4);
        assert_eq!(length_crc, masked(length).to_le_bytes());
        let (data, after) = after.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
        let (data_crc, after) = after.split_at(4);
        assert_eq!(data_crc, masked(data).to_le_bytes());
        records.push(data);
        rest = after;
    }
    let holds = |data: &[u8], text: &str| data.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(holds(records[0], "brain.Event:2"));
    // The version, then five values for each of 60 steps.
    assert_eq!(records.len(), 1 + 5 * 60);
    assert_eq!(records.iter().filter(|r| holds(r, "train/loss")).count(), 60);
}

#[test]
fn the_saved_folder_names_its_special_ids() {
    let model = trained().join("run/model");
    for (file, keys) in [
        ("config.json", [("bos_token_id", 1), ("eos_token_id", 2), ("pad_token_id", 3)]),
        ("generation_config.json", [("bos_token_id", 1), ("eos_token_id", 2), ("pad_token_id", 3)]),
    ] {
        let json = read_json(&model.join(file));
        for (key, id) in keys {
            assert_eq!(json[key], id, "{file} {key}");
        }
    }
    let config = read_json(&model.join("config.json"));
    assert_eq!((&config["model_type"], &config["architectures"]), (&json!("bloom"), &json!(["BloomForCausalLM"])));
    let raw = Raw::read(&model.join("model.safetensors"));
    assert_eq!(raw.header["__metadata__"]["format"], "pt");
    assert!(raw.header.keys().all(|name| name == "__metadata__" || name.starts_with("transformer.")));
    for (key, name) in [("eos_token", "</s>"), ("pad_token", "<pad>"), ("padding_side", "left")] {
        assert_eq!(read_json(&model.join("tokenizer_config.json"))[key], name);
    }
}

#[test]
fn a_model_that_ended_otherwise_is_saved_with_the_end_it_learnt() {
    let dir = shop(8);
    let dir = dir.path();
    copy(&trained().join("run/model"), &dir.join("model"));
    edit_json(&dir.join("model/config.json"), |config| drop(config.insert("eos_token_id".into(), json!(9))));
    ecom(dir, "train --model model --data rows.jsonl --output run --batch 4 --steps 1").ok();
    assert_eq!(read_json(&dir.join("run/model/config.json"))["eos_token_id"], 2);
}

/// Permissions are the process's usual ones, also where a file is a renamed temporary.
#[test]
#[cfg(unix)]
fn files_follow_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let dir = shop(8);
    let dir = dir.path();
    for (umask, file, folder) in [("022", 0o644, 0o755), ("077", 0o600, 0o700)] {
        let ran = shell(
            dir,
            &format!("umask {umask}; exec \"$ECOM\" train --data rows.jsonl --output u{umask} {TINY} --steps 1"),
        );
        ran.ok();
        for name in [
            "model",
            "checkpoint-1",
            "model/config.json",
            "model/model.safetensors",
            "checkpoint-1/manifest.json",
            "log.jsonl",
        ] {
            let found = fs::metadata(dir.join(format!("u{umask}")).join(name)).unwrap();
            let wanted = if found.is_dir() { folder } else { file };
            assert_eq!(found.permissions().mode() & 0o777, wanted, "{name} under umask {umask}");
        }
    }
}

/// What must not matter for the bits does not, and what must matter does.
#[test]
fn the_same_run_gives_the_same_bits() {
    let dir = shop(40);
    let dir = dir.path();
    let run = |output: &str, more: &str| {
        train(dir, output, &format!("--steps 8 {more}")).ok();
        weights(&dir.join(output))
    };
    let first = run("first", "");
    for (name, more) in [
        ("again", ""),
        ("one-thread", "--threads 1"),
        ("two-threads", "--threads 2"),
        ("three-threads", "--threads 3"),
        ("recomputed", "--recompute on"),
        ("kept", "--recompute off"),
        ("saving", "--save-every 1 --keep 1 --log-every 3"),
    ] {
        assert_eq!(run(name, more), first, "{name}");
    }
    let rounded = run("rounded", "--bf16");
    assert_eq!(rounded != first, kernels::linear::Products::has_bf16(), "in bf16 if it can be");
    assert_eq!(run("rounded-again", "--bf16 --threads 1 --recompute on"), rounded);
    let unlike = train(dir, "rounded", "--steps 8 --resume");
    unlike.refused(2, "bf16 was true, is false");
    for (name, more) in [("other-seed", "--seed 1"), ("other-rate", "--lr 0.003"), ("other-batch", "--batch 7")] {
        assert_ne!(run(name, more), first, "{name}");
    }
}

/// A step's loss and gradient are over all its targets, however its rows are cut into packs. A mean of the packs' means
/// would be another number, which the control shows to be far outside the tolerance.
#[test]
fn how_a_step_is_cut_does_not_matter() {
    let dir = folder();
    let dir = dir.path();
    // Answers of very different lengths, so that means of means are wrong.
    let mut all = rows(8);
    for (i, row) in all.iter_mut().enumerate() {
        row["output"] = json!("red lamp by Aro ".repeat(1 + i * i / 4));
    }
    fs::write(dir.join("rows.jsonl"), lines(&all)).unwrap();
    // A model that knows such rows, so that their losses differ.
    copy(&trained().join("run/model"), &dir.join("model"));
    let entries = |output: &str, more: &str| {
        let fixed = "train --model model --data rows.jsonl --lr 0 --log-every 1";
        ecom(dir, &format!("{fixed} --output {output} {more}")).ok();
        log(&dir.join(output))
    };
    let whole = entries("whole", "--steps 1 --tokens 100000");
    // A pack for each instruction, and packs of a few.
    for (name, tokens) in [("single", 1), ("few", 200)] {
        let cut = entries(name, &format!("--steps 1 --tokens {tokens}"));
        for key in ["loss", "grad_norm"] {
            let (a, b) = (whole[0][key].as_f64().unwrap(), cut[0][key].as_f64().unwrap());
            assert!((a - b).abs() <= rounding() * a, "{name} {key}: {a} and {b}");
        }
        assert_eq!(whole[0]["useful"], cut[0]["useful"]);
    }
    // At rate 0 the weights stay, so eight steps of one row each give each row's own mean loss.
    let apart = entries("apart", "--batch 1 --steps 8");
    let mean_of_means = apart.iter().map(|e| e["loss"].as_f64().unwrap()).sum::<f64>() / 8.0;
    let loss = whole[0]["loss"].as_f64().unwrap();
    assert!((mean_of_means - loss).abs() > 10.0 * rounding() * loss, "the control: {mean_of_means} and {loss}");
}

/// How far two f32 computations of the tiny model's loss may be apart, relatively: the roundings of all sums that lead to
/// it, one after the other (Higham, Accuracy and Stability, section 3.1: n additions are within n units), twice, for
/// forward and backward each run in two orders.
fn rounding() -> f64 {
    let (c, layers, tokens, vocabulary) = (32.0, 2.0, 1000.0, 448.0);
    // A block: two norms (2c each), qkv and dense (c each), attention's scores and values (c/4 and t), the wide layer.
    let sums = layers * (4.0 * c + 2.0 * c + c / 4.0 + tokens + c + 4.0 * c) + 4.0 * c + c + vocabulary + tokens;
    2.0 * 2.0 * sums * f64::from(f32::EPSILON) / 2.0
}

#[test]
fn rows_that_are_too_long_follow_the_policy() {
    let dir = folder();
    let dir = dir.path();
    let mut all = rows(8);
    all[3]["input"] = json!("a very long description of it ".repeat(40));
    all[5]["output"] = json!("red and blue and green ".repeat(40));
    fs::write(dir.join("rows.jsonl"), lines(&all)).unwrap();
    let with = |policy: &str| train(dir, policy, &format!("--steps 1 --length 150 --overflow {policy}"));
    for (policy, report) in [
        ("drop", "data: 6 of 8 instructions, 2 too long;"),
        // The long answer does not fit behind any prompt.
        ("truncate-prompt", "data: 7 of 8 instructions, 1 too long, 1 cut;"),
        // The long prompt leaves no room for any of its answer.
        ("truncate", "data: 7 of 8 instructions, 1 too long, 1 cut;"),
    ] {
        let ran = with(policy).ok();
        assert!(ran.err.contains(report), "{policy}: wanted {report:?} in\n{}", ran.err);
        assert!(ran.err.contains("tokens of prompts: median ") && ran.err.contains("; of responses: "), "{}", ran.err);
    }
    with("error").refused(2, "row-03: ");
}

#[test]
fn bad_rows_are_skipped_only_where_allowed_and_then_named() {
    let dir = shop(40);
    let dir = dir.path();
    let text = fs::read_to_string(dir.join("rows.jsonl")).unwrap();
    fs::write(dir.join("rows.jsonl"), format!("\u{feff}{}{{\"prompt\"\r\n\r\n[]\n", text.replace('\n', "\r\n")))
        .unwrap();
    let ran = train(dir, "out", "--steps 1 --skip-bad-rows 2").ok();
    for part in [
        "skipped rows.jsonl:41: broken JSON",
        "skipped rows.jsonl:43: wanted one JSON object",
        "rows.jsonl: 2 bad lines skipped",
    ] {
        assert!(ran.err.contains(part), "no {part:?} in\n{}", ran.err);
    }
    assert!(ran.err.contains("data: 40 of 40"), "{}", ran.err);
}

/// One row holds a token whose weights make infinity of it. Its loss is not a number, its neighbours' in the same pack
/// are, and the run stops before the update and names that row alone.
#[test]
fn a_loss_that_is_no_number_names_its_row_and_updates_nothing() {
    let dir = folder();
    let dir = dir.path();
    copy(&trained().join("run/model"), &dir.join("model"));
    let mut all = rows(20);
    all[13]["input"] = json!("Aro red bag Ω");
    fs::write(dir.join("rows.jsonl"), lines(&all)).unwrap();
    let ids = json_lines(&ecom(dir, "tokenizer encode --tokenizer model Ω").ok().out)[0]["ids"].clone();
    let poison = ids.as_array().unwrap().last().unwrap().as_u64().unwrap() as usize;
    Raw::edit(&dir.join("model/model.safetensors"), |raw| {
        // Channel 0 is the mean of the others, so that the norm after the embedding makes 0 of it, but for the poison,
        // where it is all there is: √31, which the norm's weight takes beyond f32.
        raw.numbers("transformer.word_embeddings.weight", |x| {
            for (id, row) in x.chunks_exact_mut(32).enumerate() {
                if id == poison {
                    row.fill(0.0);
                    row[0] = 1.0;
                } else {
                    row[0] = (row[1..].iter().map(|&v| f64::from(v)).sum::<f64>() / 31.0) as f32;
                }
            }
        });
        raw.numbers("transformer.word_embeddings_layernorm.weight", |x| x[0] = 1e38);
        raw.numbers("transformer.word_embeddings_layernorm.bias", |x| x[0] = 0.0);
    });
    let ran = ecom(dir, "train --model model --data rows.jsonl --output out --batch 20 --tokens 100000 --log-every 1");
    ran.refused(2, "step 1: the loss is not a finite number; rows row-13; nothing was updated");
    assert!(!dir.join("out/model").exists() && !dir.join("out/checkpoint-1").exists());
    assert_eq!(fs::read_to_string(dir.join("out/log.jsonl")).unwrap(), "");
}

#[test]
fn a_folder_in_use_is_left_alone() {
    let dir = shop(8);
    let dir = dir.path();
    fs::create_dir(dir.join("out")).unwrap();
    let mut lock = fs::File::create(dir.join("out/.lock")).unwrap();
    lock.lock().unwrap();
    writeln!(lock, "4711").unwrap();
    train(dir, "out", "--steps 1").refused(5, "out: another process is training here (pid 4711)");
    train(dir, "out", "--steps 1 --resume").refused(5, "another process");
    drop(lock);
    train(dir, "out", "--steps 1").ok();
}

/// A signal ends a run with a checkpoint, and the run that goes on from there ends as if nothing had happened.
#[test]
fn a_signal_leaves_a_checkpoint_and_resuming_gives_the_same_bits() {
    let dir = shop(40);
    let dir = dir.path();
    let settings = "--steps 60 --save-every 0 --batch 32 --tokens 4096";
    train(dir, "whole", settings).ok();
    for (signal, code, lines_seen) in [("TERM", 143, 0), ("TERM", 143, 3), ("INT", 130, 20)] {
        let output = format!("{signal}-{lines_seen}");
        let out = dir.join(&output);
        let mut child = command(dir, &format!("train --data rows.jsonl --output {output} {}", tiny(settings)))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // At 0, as soon as the log is there: before the first step is done.
        wait_for(|| fs::read_to_string(out.join("log.jsonl")).is_ok_and(|l| l.lines().count() >= lines_seen));
        let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().unwrap();
        assert!(sent.success());
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(code), "{output}");
        let found: Vec<_> =
            tree(&out).into_keys().filter(|n| n.starts_with("checkpoint-") && !n.contains('/')).collect();
        assert_eq!(found.len(), 1, "{output}: {found:?}");
        assert!(!out.join("model").exists());

        let ran = train(dir, &output, &format!("{settings} --resume")).ok();
        assert!(ran.err.contains(&format!("resuming from {output}/{}", found[0])), "{}", ran.err);
        for file in
            ["model/model.safetensors", "checkpoint-60/optimizer.safetensors", "checkpoint-60/model.safetensors"]
        {
            assert_eq!(sha256(&out.join(file)), sha256(&dir.join("whole").join(file)), "{output} {file}");
        }
        // Every step is in the log once, with the same numbers but for the speed.
        let numbers = |output: &Path| {
            let mut log = log(output);
            log.iter_mut().for_each(|e| drop(e.as_object_mut().unwrap().remove("tokens_per_second")));
            log
        };
        assert_eq!(numbers(&out), numbers(&dir.join("whole")), "{output}");
    }
}

#[track_caller]
fn wait_for(done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed().as_secs() < 60, "waited a minute");
        sleep(Duration::from_millis(1));
    }
}

/// From every checkpoint of a run, also across the borders of epochs, going on gives the run's own end.
#[test]
fn every_checkpoint_leads_to_the_same_end() {
    let dir = shop(20);
    let dir = dir.path();
    let settings = "--steps 10 --batch 6 --tokens 200 --save-every 1 --keep 10";
    train(dir, "whole", settings).ok();
    let wanted = tree(&dir.join("whole/checkpoint-10"));
    for step in 1..10 {
        let output = format!("from-{step}");
        copy(&dir.join(format!("whole/checkpoint-{step}")), &dir.join(&output).join(format!("checkpoint-{step}")));
        train(dir, &output, &format!("{settings} --resume")).ok();
        assert_eq!(tree(&dir.join(&output).join("checkpoint-10")), wanted, "from step {step}");
    }
}

#[test]
fn a_damaged_checkpoint_is_passed_over_with_a_warning() {
    let damages: [(&str, fn(&Path)); 5] = [
        ("optimizer.safetensors: its SHA-256", |newest| {
            let path = newest.join("optimizer.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("model.safetensors: wanted", |newest| fs::write(newest.join("model.safetensors"), "x").unwrap()),
        ("training.json: missing", |newest| fs::remove_file(newest.join("training.json")).unwrap()),
        ("manifest.json: cannot read", |newest| fs::remove_file(newest.join("manifest.json")).unwrap()),
        ("manifest.json: broken", |newest| fs::write(newest.join("manifest.json"), "{").unwrap()),
    ];
    let whole = trained().join("run");
    for (says, damage) in damages {
        let dir = folder();
        let dir = dir.path();
        copy(&trained().join("rows.jsonl"), &dir.join("rows.jsonl"));
        copy(&whole, &dir.join("run"));
        fs::remove_dir_all(dir.join("run/model")).unwrap();
        // What a killed writer leaves is swept away.
        fs::create_dir(dir.join("run/.tmp-1-0")).unwrap();
        damage(&dir.join("run/checkpoint-60"));
        let ran = ecom(dir, &format!("train --data rows.jsonl --output run {TRAINED_AS} --resume")).ok();
        let warning = format!("warning: passing over run/checkpoint-60: {says}");
        assert!(ran.err.contains(&warning), "wanted {warning:?} in\n{}", ran.err);
        assert!(ran.err.contains("resuming from run/checkpoint-58"), "{}", ran.err);
        assert_eq!(weights(&dir.join("run")), weights(&whole));
        assert_eq!(tree(&dir.join("run/checkpoint-60")), tree(&whole.join("checkpoint-60")));
        assert!(!dir.join("run/.tmp-1-0").exists());
    }
}

#[test]
fn only_the_newest_checkpoints_are_kept() {
    let dir = shop(8);
    let dir = dir.path();
    train(dir, "out", "--steps 7 --save-every 2 --keep 3").ok();
    let found: Vec<_> =
        tree(&dir.join("out")).into_keys().filter(|n| n.starts_with("checkpoint-") && !n.contains('/')).collect();
    assert_eq!(found, ["checkpoint-4", "checkpoint-6", "checkpoint-7"]);
    train(dir, "none", "--steps 3 --save-every 0").ok();
    assert!(dir.join("none/checkpoint-3").is_dir() && !dir.join("none/checkpoint-2").exists());
}

/// One instruction learnt by heart is answered word for word, and the answer ends by itself.
#[test]
fn what_is_learnt_by_heart_is_said_and_ends() {
    let dir = shop(3);
    let dir = dir.path();
    let one = &rows(3)[2];
    fs::write(dir.join("rows.jsonl"), lines(std::slice::from_ref(one))).unwrap();
    train(dir, "out", "--steps 60 --lr 0.01 --weight-decay 0").ok();
    let last = log(&dir.join("out")).last().unwrap()["loss"].as_f64().unwrap();
    assert!(last < 1e-2, "loss {last}");
    let answers = json_lines(&ecom(dir, "generate --model out/model --from rows.jsonl").ok().out);
    assert_eq!((&answers[0]["output"], &answers[0]["finish"]), (&one["output"], &json!("eos")));
}

/// A given model is trained on, not made anew, and a file of settings does what the flags do.
#[test]
fn a_given_model_goes_on_and_settings_come_from_a_file() {
    let dir = shop(40);
    let dir = dir.path();
    copy(&trained().join("run/model"), &dir.join("model"));
    let before = log(&trained().join("run")).last().unwrap()["loss"].as_f64().unwrap();
    fs::write(
        dir.join("run.toml"),
        "model = \"model\"\ndata = [\"rows.jsonl\"]\noutput = \"out\"\nbatch = 8\nsteps = 3\nlr = 0.5\nlog_every = 1\n",
    )
    .unwrap();
    ecom(dir, "train --config run.toml --lr 1e-4 --steps 2").ok();
    let found = log(&dir.join("out"));
    assert_eq!((found.len(), &found[0]["lr"]), (2, &json!(1e-4)));
    let first = found[0]["loss"].as_f64().unwrap();
    assert!(first < 2.0 * before, "it starts at {first}, where it was left at {before}");
    let recipe = read_json(&dir.join("out/checkpoint-2/training.json"))["recipe"].clone();
    // From the file, from the flags over the file, and the paper's.
    assert_eq!(
        (&recipe["batch"], &recipe["steps"], &recipe["length"], &recipe["epochs"]),
        (&json!(8), &json!(2), &json!(1024), &json!(3))
    );
    ecom(dir, "train --model model --data rows.jsonl --output flags --batch 8 --steps 2 --lr 1e-4 --log-every 1").ok();
    assert_eq!(weights(&dir.join("out")), weights(&dir.join("flags")));
    // Tokenizer and shape are the given model's.
    for file in ["tokenizer.json", "config.json"] {
        assert_eq!(sha256(&dir.join("out/model").join(file)), sha256(&dir.join("model").join(file)), "{file}");
    }
}

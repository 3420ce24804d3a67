//! `ecom quantize`, and what the other commands make of its folders.

use super::*;

/// A trained model in 8 and 4 bits.
fn quantized() -> TempDir {
    let dir = folder();
    copy(&trained().join("run/model"), &dir.path().join("model"));
    fs::copy(trained().join("rows.jsonl"), dir.path().join("rows.jsonl")).unwrap();
    for bits in [8, 4] {
        let ran = ecom(dir.path(), &format!("quantize --model model --bits {bits} --output q{bits}")).ok();
        assert!(ran.out.is_empty() && ran.err.contains(&format!("q{bits}: ")), "{}", ran.err);
    }
    dir
}

#[test]
fn quantised_folders_load_everywhere_but_in_training() {
    let dir = quantized();
    let dir = dir.path();
    let weights = |folder: &str| fs::metadata(dir.join(folder).join("model.safetensors")).unwrap().len();
    assert!(weights("q4") < weights("q8") && 2 * weights("q8") < weights("model"));
    for q in ["q8", "q4"] {
        let once = ecom(dir, &format!("generate --model {q} --max-new-tokens 8 hello")).ok();
        assert_eq!(once.out, ecom(dir, &format!("generate --model {q} --max-new-tokens 8 hello --threads 1")).ok().out);
        for dtype in ["f32", "bf16"] {
            ecom(dir, &format!("generate --model {q} --dtype {dtype} --max-new-tokens 8 hello")).ok();
        }
        let inspected = ecom(dir, &format!("inspect {q} --tensors")).ok();
        assert!(inspected.out.contains(&format!(" {q} [")), "{}", inspected.out);
        ecom(dir, &format!("eval --model {q} rows.jsonl --limit 4 --max-new-tokens 4")).ok();
        ecom(dir, &format!("train --model {q} --data rows.jsonl --output out"))
            .refused(2, &format!("{q}: its weights are in {q}: train what they were made of"));
        ecom(dir, &format!("quantize --model {q} --output again"))
            .refused(2, &format!("{q}: its weights are in {q} already"));
    }
    ecom(dir, "quantize --model model --output q8").refused(2, "q8: it is there already");
    ecom(dir, "quantize --model model --bits 5 --output q5").refused(2, "--bits: wanted 8 or 4, found 5");
    ecom(dir, "quantize --model none --output q5").refused(2, "none");
    ecom(dir, "quantize --model model --output q5 --verify none.jsonl").refused(2, "none.jsonl");
    assert!(!dir.join("q5").exists() && !dir.join("again").exists());
}

#[test]
fn verify_measures_before_and_after() {
    let dir = quantized();
    let dir = dir.path();
    let number = |text: &str| text.trim_end_matches('%').parse::<f64>().unwrap();
    let changes = [8, 4].map(|bits| {
        let line = format!("quantize --model model --bits {bits} --output v{bits} --verify rows.jsonl --limit 12");
        let ran = ecom(dir, &format!("{line} --max-new-tokens 8")).ok();
        let row = ran.out.lines().last().unwrap().split_whitespace().collect::<Vec<_>>();
        let ["rows", "12", before, after, change, _, _] = row[..] else { panic!("{}", ran.out) };
        let (before, after) = (number(before), number(after));
        // The table rounds to two places of a hundredth.
        assert!((number(change) - 100.0 * (after / before - 1.0)).abs() < 0.02, "{}", ran.out);
        assert!(before > 1.0 && before != after, "{}", ran.out);
        (after / before - 1.0).abs()
    });
    assert!(changes[0] < changes[1], "8 bits lose less: {changes:?}");
    // Fitted to these very rows, 4 bits lose less too; twice the same.
    let line = "quantize --model model --bits 4 --calibrate rows.jsonl --output";
    let ran = ecom(dir, &format!("{line} fitted --verify rows.jsonl --limit 12 --max-new-tokens 8")).ok();
    let change = number(ran.out.lines().last().unwrap().split_whitespace().nth(4).unwrap()) / 100.0;
    assert!(change.abs() < changes[1], "{}", ran.out);
    ecom(dir, &format!("{line} again --threads 1")).ok();
    let weights = |folder: &str| fs::read(dir.join(folder).join("model.safetensors")).unwrap();
    assert!(weights("fitted") == weights("again") && weights("fitted") != weights("q4"));
    ecom(dir, &format!("{line} none --calibrate none.jsonl")).refused(2, "--calibrate");
    ecom(dir, "quantize --model model --output none --calibrate none.jsonl").refused(2, "none.jsonl");
    // The same folder as without.
    assert_eq!(
        fs::read(dir.join("v8/model.safetensors")).unwrap(),
        fs::read(dir.join("q8/model.safetensors")).unwrap()
    );
}

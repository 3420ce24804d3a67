//! `--device` and `ecom doctor`, without a GPU and on a simulated one, which the binary takes for a real one.

use super::*;

/// `ecom` with a simulated driver; `None` without g++.
fn on_gpu(dir: &Path, line: &str) -> Option<Ran> {
    on_gpu_with(dir, line, &[])
}

fn on_gpu_with(dir: &Path, line: &str, environment: &[(&str, &str)]) -> Option<Ran> {
    let folder = simulator::folder().unwrap()?;
    let mut command = command(dir, line);
    command.env("LD_LIBRARY_PATH", folder).envs(environment.iter().copied());
    Some(finish(command))
}

/// Whether this machine has a driver of its own.
fn a_driver_is_here() -> bool {
    Path::new("/proc/driver/nvidia").exists() || Path::new("/dev/nvidiactl").exists()
}

#[test]
fn without_a_gpu_one_line_says_so() {
    if a_driver_is_here() {
        return;
    }
    let dir = folder();
    let dir = dir.path();
    let ran = ecom(dir, "doctor");
    assert_eq!((ran.code, ran.err.as_str()), (Some(6), ""));
    assert!(ran.out.starts_with("driver   none: ") && ran.out.lines().count() == 1, "{}", ran.out);
    write_rows(&dir.join("rows.jsonl"), 8);
    let none = "--device: cannot open GPU 0: no CUDA driver, or no GPU";
    ecom(dir, "train --data rows.jsonl --output out --device cuda").refused(2, none);
    // Before anything is made for it.
    ecom(dir, "train --output demo --device cuda").refused(2, none);
    assert!(!dir.join("demo").exists());
    copy(&trained().join("run/model"), &dir.join("model"));
    ecom(dir, "generate --model model --device cuda hello").refused(2, none);
    let [cpu, auto] =
        ["cpu", "auto"].map(|device| ecom(dir, &format!("generate --model model --device {device} hello")).ok().out);
    assert_eq!(cpu, auto);
}

#[test]
fn a_plan_for_a_gpu_needs_none() {
    let dir = folder();
    let plan = ecom(dir.path(), "plan 7b1 --device cuda --json").ok();
    let plan: Value = serde_json::from_str(&plan.out).unwrap();
    let parts = &plan["jobs"]["training, blocks recomputed"]["parts"];
    // A bf16 copy of all but norms and biases, and four f32 numbers for each parameter.
    let (matrices, parameters) = (parts["matrices (bf16)"].as_u64().unwrap(), plan["parameters"].as_u64().unwrap());
    assert!(matrices < 2 * parameters && matrices > 2 * parameters - parameters / 500);
    let f32s = ["masters (f32)", "gradients (f32)", "AdamW moments (f32)"].map(|part| parts[part].as_u64().unwrap());
    assert_eq!(f32s, [4, 4, 8].map(|bytes| bytes * parameters));
}

#[test]
fn doctor_tries_each_operation() {
    let dir = folder();
    let Some(ran) = on_gpu(dir.path(), "doctor") else {
        assert!(std::env::var_os(simulator::REQUIRE_SIM).is_none(), "no g++ for simulated GPUs");
        return;
    };
    let ran = ran.ok();
    let own = "products by ecom's own kernels";
    let graphs = "graphs   used: a decoding step is captured";
    let gpus = ["simulated GPU, ascending): compute capability 8.0", "GPU 4    cuda:4"];
    for part in ["driver   for CUDA 12.0, /", own, graphs].into_iter().chain(gpus) {
        assert!(ran.out.contains(part), "no {part:?} in\n{}", ran.out);
    }
    let ops = [
        "embedding",
        "layer_norm",
        "linear",
        "linear, few",
        "linear, back",
        "attention",
        "attn., token",
        "attn., back",
    ];
    for op in ops.into_iter().chain(["cross_entropy", "adamw", "sample"]) {
        let line = ran.out.lines().find(|l| l.strip_prefix(op).is_some_and(|rest| rest.starts_with("  "))).unwrap();
        assert!(line.contains("as on the processor"), "{line}");
    }
}

#[test]
fn doctor_says_what_multiplies() {
    let dir = folder();
    let environment = [("ECOM_CUBLASLT", "1"), ("ECOM_GRAPHS", "0")];
    let Some(ran) = on_gpu_with(dir.path(), "doctor", &environment) else { return };
    let ran = ran.ok();
    for part in ["products by cuBLASLt 12.0.0", "graphs   not used, as ECOM_GRAPHS=0 says"] {
        assert!(ran.out.contains(part), "no {part:?} in\n{}", ran.out);
    }
    let line = ran.out.lines().find(|l| l.starts_with("linear")).unwrap();
    assert!(line.contains("as on the processor"), "{line}");
}

#[test]
fn a_run_on_a_gpu_goes_on_on_the_cpu_and_the_other_way_round() {
    let dir = folder();
    let dir = dir.path();
    write_rows(&dir.join("rows.jsonl"), 16);
    let settings = format!("train --data rows.jsonl {} --steps 4 --save-every 2", tiny("--batch 4"));
    let losses = |output: &str| -> Vec<f64> {
        let log = fs::read_to_string(dir.join(output).join("log.jsonl")).unwrap();
        json_lines(&log).iter().map(|line| line["loss"].as_f64().unwrap()).collect()
    };
    ecom(dir, &format!("{settings} --output cpu")).ok();
    let Some(ran) = on_gpu(dir, &format!("{settings} --output gpu --device cuda")) else { return };
    let ran = ran.ok();
    for part in ["device: cuda:0 (simulated GPU, ascending)", "memory: matrices (bf16)", "masters (f32)"] {
        assert!(ran.err.contains(part), "no {part:?} in\n{}", ran.err);
    }
    // Far less than what is learned: bloom/tests/cuda.rs says how near they must be.
    let (cpu, gpu) = (losses("cpu"), losses("gpu"));
    assert_eq!(gpu.len(), 4);
    assert!(cpu.iter().zip(&gpu).all(|(c, g)| (c - g).abs() < (cpu[0] - cpu[3]) / 4.0), "{cpu:?} {gpu:?}");
    // The same files with the same tensors; each goes on where the other stopped.
    for (output, first, second) in [("there", "cuda", "cpu"), ("back", "cpu", "cuda")] {
        on_gpu(dir, &format!("{settings} --output {output} --device {first}")).unwrap().ok();
        let names = |folder: &str| Raw::read(&dir.join(folder)).header.keys().cloned().collect::<Vec<_>>();
        for file in ["model.safetensors", "optimizer.safetensors"] {
            assert_eq!(names(&format!("{output}/checkpoint-2/{file}")), names(&format!("cpu/checkpoint-2/{file}")));
        }
        fs::remove_dir_all(dir.join(output).join("checkpoint-4")).unwrap();
        let ran = on_gpu(dir, &format!("{settings} --output {output} --device {second} --resume")).unwrap().ok();
        assert!(ran.err.contains("resuming from"), "{}", ran.err);
        let gone_on = losses(output);
        assert!(cpu.iter().zip(&gone_on).all(|(c, g)| (c - g).abs() < (cpu[0] - cpu[3]) / 4.0), "{cpu:?} {gone_on:?}");
    }
    let answers = ["cpu", "cuda"].map(|device| {
        let line = format!("generate --model cpu/model --device {device} --max-new-tokens 4 --raw bag");
        on_gpu(dir, &line).unwrap().ok().out
    });
    assert_eq!(answers[0], answers[1]);
}

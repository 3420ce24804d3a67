//! SIGKILL at random moments of a run, again and again: what goes on from the checkpoints ends as if nothing had happened.

use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use kernels::sample::Philox;

use super::*;

/// Kills in all; `ECOM_KILLS` sets another number.
const KILLS: usize = 50;

/// Files whose bits must be those of the run that nobody stopped.
const WANTED: [&str; 4] = [
    "model/model.safetensors",
    "checkpoint-20/model.safetensors",
    "checkpoint-20/optimizer.safetensors",
    "checkpoint-20/training.json",
];

/// Runs of 20 steps with a checkpoint after each, killed at a random moment and resumed, until they end. Every other kill
/// waits for a temporary to appear, so that it comes while a checkpoint is written, moved or removed.
#[test]
fn killed_runs_end_in_the_same_bits() {
    let kills = std::env::var("ECOM_KILLS").map_or(KILLS, |n| n.parse().expect("ECOM_KILLS: a number"));
    let dir = folder();
    let dir = dir.path();
    write_rows(&dir.join("rows.jsonl"), 40);
    let settings = format!("train --data rows.jsonl {TINY} --steps 20 --save-every 1");
    let started = Instant::now();
    ecom(dir, &format!("{settings} --output whole")).ok();
    let whole = started.elapsed();
    let wanted = WANTED.map(|file| sha256(&dir.join("whole").join(file)));

    let draws = Philox::new(20, 0);
    let (mut killed, mut torn, mut runs) = (0, 0, 0);
    // A run that is killed too early each time still ends: after as many starts as this nobody kills.
    let most = 8 * kills + 8;
    for start in 0.. {
        let out = dir.join(format!("run-{runs}"));
        let mut child =
            command(dir, &format!("{settings} --resume --output run-{runs}")).stderr(Stdio::piped()).spawn().unwrap();
        let random = draws.uniform(start);
        let ended = if killed >= kills || start as usize >= most {
            true
        } else if start % 2 == 0 {
            wait(&mut child, || false, whole.mul_f64(random))
        } else {
            // The checkpoint to be torn, and how long its writer gets.
            let mut left = (random * 12.0) as usize;
            let mut seen = false;
            let writing = || {
                let now = is_writing(&out);
                left = left.saturating_sub(usize::from(seen && !now));
                seen = now;
                now && left == 0
            };
            let ended = wait(&mut child, writing, whole);
            sleep(Duration::from_micros((draws.uniform(1 << 32 | start) * 3000.0) as u64));
            ended
        };
        if ended {
            let output = child.wait_with_output().unwrap();
            let err = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "run {runs}, after {killed} kills: {err}");
            for (file, wanted) in WANTED.iter().zip(&wanted) {
                assert_eq!(&sha256(&out.join(file)), wanted, "run {runs}, after {killed} kills: {file}");
            }
            assert_eq!(log_steps(&out), (1..=20).collect::<Vec<_>>(), "run {runs}");
            assert!(!is_writing(&out), "run {runs}: a temporary is left");
            fs::remove_dir_all(&out).unwrap();
            runs += 1;
            if killed >= kills || start as usize >= most {
                break;
            }
        } else {
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
            torn += usize::from(out.exists() && is_writing(&out));
        }
    }
    eprintln!("{killed} kills, {torn} of them while something was written; {runs} runs ended alike");
    assert!(killed >= kills, "only {killed} kills");
    assert!(kills < 20 || torn >= kills / 10, "only {torn} of {killed} kills came while something was written");
}

/// Waits until the child ends (true), or until it is to be killed (false): `now` says so or `most` has passed.
fn wait(child: &mut Child, mut now: impl FnMut() -> bool, most: Duration) -> bool {
    let started = Instant::now();
    loop {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        if now() || started.elapsed() >= most {
            return false;
        }
        sleep(Duration::from_micros(100));
    }
}

fn is_writing(out: &Path) -> bool {
    fs::read_dir(out).is_ok_and(|all| all.flatten().any(|e| e.file_name().to_string_lossy().starts_with(".tmp-")))
}

fn log_steps(out: &Path) -> Vec<u64> {
    let text = fs::read_to_string(out.join("log.jsonl")).unwrap();
    json_lines(&text).iter().map(|e| e["step"].as_u64().unwrap()).collect()
}

//! What this machine can do at most, measured in the run of the case that it is held against: multiply-adds that
//! never leave the registers, and streams through a buffer that no cache holds.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use tensor::Tensor;

/// What one iteration has to do at the least: each operand read once, each result written once.
#[derive(Clone, Copy)]
pub struct Work {
    /// Additions and multiplications, a multiply-add being two.
    pub flops: f64,
    /// Bytes read and bytes written.
    pub bytes: f64,
}

/// The cases of one file.
pub struct Suite {
    criterion: Criterion,
    /// Made for the first case that is timed, so not under `--test`.
    buffer: Vec<u64>,
}

/// Timed samples of each case; their median counts.
const SAMPLES: usize = 10;
/// 512 MiB: many times the last cache of any machine in sight.
const BUFFER: usize = 1 << 26;
/// Tries for each ceiling; the best counts.
const TRIES: usize = 5;

impl Suite {
    /// Takes criterion's arguments from the command line.
    pub fn new() -> Self {
        let criterion = Criterion::default()
            .sample_size(SAMPLES)
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(2))
            .configure_from_args();
        Self { criterion, buffer: Vec::new() }
    }

    /// Times `iteration`, then prints its rates and its share of the ceiling.
    pub fn case<T>(&mut self, name: &str, work: Work, mut iteration: impl FnMut() -> T) {
        self.timed(name, work, |iterations| {
            let start = Instant::now();
            for _ in 0..iterations {
                black_box(iteration());
            }
            start.elapsed()
        });
    }

    /// As [`Suite::case`], where `run` does as many iterations as it is told and says how long they took.
    pub fn timed(&mut self, name: &str, work: Work, mut run: impl FnMut(u64) -> Duration) {
        let mut seconds = Vec::new();
        self.criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let time = run(iterations);
                seconds.push(time.as_secs_f64() / iterations as f64);
                time
            });
        });
        // Criterion's samples come last, after its warm-up. Fewer: a name that was not asked for, or `--test`.
        if let Some(first) = seconds.len().checked_sub(SAMPLES) {
            let samples = &mut seconds[first..];
            samples.sort_unstable_by(f64::total_cmp);
            print(work, samples[SAMPLES / 2], &self.ceilings());
        }
    }

    fn ceilings(&mut self) -> Ceilings {
        if self.buffer.is_empty() {
            // Ones, as untouched zeros would all lie in one page of memory.
            self.buffer = vec![1; BUFFER];
        }
        Ceilings::measure(&mut self.buffer)
    }
}

fn print(work: Work, seconds: f64, ceilings: &Ceilings) {
    let stream = ceilings.read.max(ceilings.copy);
    let (arithmetic, memory) = (work.flops / ceilings.multiply_add, work.bytes / stream);
    let (floor, bound) = if arithmetic > memory { (arithmetic, "multiply-adds") } else { (memory, "memory") };
    println!(
        "{:24}{:.1} GB/s  {:.1} GFLOP/s  {:.0} % of the ceiling by {bound} \
         (now: {:.1} GFLOP/s, read {:.1} GB/s, copy {:.1} GB/s, {} threads)\n",
        "",
        work.bytes / seconds / 1e9,
        work.flops / seconds / 1e9,
        100.0 * floor / seconds,
        ceilings.multiply_add / 1e9,
        ceilings.read / 1e9,
        ceilings.copy / 1e9,
        rayon::current_num_threads(),
    );
}

/// Rates of all threads together, per second.
struct Ceilings {
    /// Flops of f32.
    multiply_add: f64,
    /// Bytes read.
    read: f64,
    /// Bytes read and bytes written.
    copy: f64,
}

impl Ceilings {
    fn measure(buffer: &mut [u64]) -> Self {
        let bytes = size_of_val(buffer) as f64;
        let threads = rayon::current_num_threads();
        let mut flops = 0.0;
        let multiply_add = best(|| flops = rayon::broadcast(|_| MultiplyAdd.flops()).into_iter().sum());
        let read = best(|| {
            let sums = buffer.par_chunks(1 << 16).map(|part| part.iter().fold(0u64, |sum, x| sum.wrapping_add(*x)));
            black_box(sums.reduce(|| 0, u64::wrapping_add));
        });
        let (to, from) = buffer.split_at_mut(buffer.len() / 2);
        // A part for each thread: the C library copies what is longer than the cache past it.
        let part = to.len().div_ceil(threads);
        let copy =
            best(|| to.par_chunks_mut(part).zip(from.par_chunks(part)).for_each(|(to, from)| to.copy_from_slice(from)));
        Self { multiply_add: flops / multiply_add, read: bytes / read, copy: bytes / copy }
    }
}

/// The shortest time of a few, in seconds.
fn best(mut run: impl FnMut()) -> f64 {
    let once = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..TRIES).map(once).fold(f64::INFINITY, f64::min)
}

/// Multiply-adds on registers alone. By way of pulp, whose vectors need no unsafe code here.
struct MultiplyAdd;

impl MultiplyAdd {
    /// Sums side by side: more than a multiply-add takes cycles times those begun in a cycle (8 on today's machines),
    /// and with two factors no more than 16 registers.
    const SUMS: usize = 12;
    const ROUNDS: usize = 1 << 21;

    /// Does them on this thread; returns their number, twice.
    fn flops(self) -> f64 {
        Arch::new().dispatch(self)
    }
}

impl WithSimd for MultiplyAdd {
    type Output = f64;

    #[inline(always)]
    #[allow(clippy::inline_always)] // or the wide instructions do not reach it
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        // Factors that keep the sums normal, behind black boxes, so that nothing is computed ahead.
        let (a, b) = (simd.splat_f32s(black_box(0.999)), simd.splat_f32s(black_box(0.001)));
        let mut sums = [simd.splat_f32s(0.0); Self::SUMS];
        for (sum, i) in sums.iter_mut().zip(0u8..) {
            *sum = simd.splat_f32s(black_box(f32::from(i)));
        }
        for _ in 0..Self::ROUNDS {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, a, b);
            }
        }
        for sum in sums {
            black_box(simd.reduce_sum_f32s(sum));
        }
        (2 * S::F32_LANES * Self::SUMS * Self::ROUNDS) as f64
    }
}

/// A tensor of numbers spread evenly from `-scale` to `scale`, the same every time.
#[allow(dead_code, reason = "not every bench needs it")]
pub fn random(sizes: &[usize], scale: f32) -> Tensor {
    let values = (0..sizes.iter().product()).into_par_iter().map(|i: usize| {
        let unit = (mixed(i as u64) >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        scale * unit
    });
    Tensor::new(sizes, values.collect::<Vec<f32>>()).unwrap()
}

/// `count` token ids below `v`, the same every time.
#[allow(dead_code, reason = "not every bench needs it")]
pub fn random_ids(count: usize, v: usize) -> Vec<u32> {
    (0..count).map(|i| (mixed(i as u64) % v as u64) as u32).collect()
}

/// `SplitMix64` (Steele, Lea and Flood, 2014): data for 250,880 × 1,024 weights in a moment.
fn mixed(i: u64) -> u64 {
    let mut z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

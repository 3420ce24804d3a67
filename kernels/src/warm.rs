//! Threads that stay awake. A step of decoding is a hundred short parallel loops, and between two of them a thread of the pool falls
//! asleep; waking it takes longer than some of the loops.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Looks for work before the processor is offered to other programs, about 100 µs.
const LOOKS: u32 = 1000;
/// After so long without work threads sleep after all, a little at a time: whoever has the next loop waits for something else.
const IDLE: Duration = Duration::from_millis(2);
const NAP: Duration = Duration::from_micros(100);
/// Whether some threads are awake already. One at a time: whoever helps another does nothing else until that is done.
static AWAKE: AtomicBool = AtomicBool::new(false);
/// How long the others have to come: those that do not are busy, or there is no processor for them.
const PATIENCE: Duration = Duration::from_millis(1);

/// Gets its value when this is dropped, be it by a panic.
struct AtTheEnd<'a>(&'a AtomicBool, bool);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(self.1, Ordering::Release);
    }
}

/// Runs `work`, while the other threads of the pool look for its parallel loops without sleeping. From outside a pool, or beside another
/// that is warm, it just runs.
pub fn warm<R>(work: impl FnOnce() -> R) -> R {
    let Some(own) = rayon::current_thread_index() else { return work() };
    let others = rayon::current_num_threads() - 1;
    if AWAKE.swap(true, Ordering::AcqRel) {
        return work();
    }
    let _asleep = AtTheEnd(&AWAKE, false);
    let (here, closed, done) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicBool::new(false));
    rayon::in_place_scope(|scope| {
        let _end = AtTheEnd(&done, true);
        for _ in 0..others {
            scope.spawn(|_| {
                // Begun within a loop of `work`, which then waits for it, it would never end; on this thread neither.
                if closed.load(Ordering::Acquire) || rayon::current_thread_index() == Some(own) {
                    return;
                }
                here.fetch_add(1, Ordering::AcqRel);
                let (mut looks, mut since) = (0, Instant::now());
                while !done.load(Ordering::Acquire) {
                    if rayon::yield_now() == Some(rayon::Yield::Executed) {
                        looks = 0;
                    } else if looks < LOOKS {
                        looks += 1;
                        since = Instant::now();
                        std::hint::spin_loop();
                    } else if since.elapsed() < IDLE {
                        std::thread::yield_now();
                    } else {
                        std::thread::sleep(NAP);
                    }
                }
            });
        }
        let start = Instant::now();
        while here.load(Ordering::Acquire) < others && start.elapsed() < PATIENCE {
            std::hint::spin_loop();
        }
        closed.store(true, Ordering::Release);
        work()
    })
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::warm;

    fn sum() -> u64 {
        warm(|| (0..100).map(|_| (0..1000u32).into_par_iter().with_max_len(10).map(u64::from).sum::<u64>()).sum())
    }

    #[test]
    fn what_is_done_is_done_whoever_waits_for_whom() {
        let want = 100 * 999 * 500;
        assert_eq!(sum(), want);
        for threads in [1, 2, 3, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(sum), want);
            // Several at once in one pool, one within another, and one within a loop.
            let all = || [rayon::join(sum, || rayon::join(sum, sum))].map(|(a, (b, c))| a + b + c);
            assert_eq!(pool.install(all), [3 * want]);
            assert_eq!(pool.install(|| warm(|| warm(sum))), want);
            assert_eq!(pool.install(|| (0..20).into_par_iter().map(|_| sum()).sum::<u64>()), 20 * want);
        }
    }

    #[test]
    fn a_panic_is_passed_on() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let run = || pool.install(|| warm(|| panic!("on purpose")));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
    }
}

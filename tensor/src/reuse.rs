//! Main memory of tensors that are no more, for new ones of the same size. Fresh memory would be zeroed first, by the system page by
//! page as it is touched, which in decoding and in prefill costs more than some kernels.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Numbers that a tensor owns; when it is dropped, they may become another's.
#[derive(Clone)]
pub(crate) struct Owned(pub Vec<f32>);

/// Less is not worth keeping: 4 KiB.
const LEAST: usize = 1 << 10;
/// Kept at most: 64 MiB, and so many that looking through them is nothing.
const MOST: usize = 1 << 24;
const MOST_PIECES: usize = 256;

/// What is kept, the oldest first, and how many numbers that is.
struct Kept {
    all: VecDeque<Vec<f32>>,
    numbers: usize,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { all: VecDeque::new(), numbers: 0 });

fn kept() -> MutexGuard<'static, Kept> {
    // Whoever panicked left whole vectors behind.
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `n` numbers in main memory for a kernel to write, every one of them: they may be anything. Where assertions are on they are NaN,
/// so that tests find one that was not written.
pub fn unwritten(n: usize) -> Vec<f32> {
    let found = if n < LEAST { None } else { kept().take(n) };
    let mut numbers = found.unwrap_or_else(|| vec![0.0; n]);
    if cfg!(debug_assertions) {
        numbers.fill(f32::NAN);
    }
    numbers
}

impl Kept {
    /// The newest of this size, which is the likeliest to be in a cache.
    fn take(&mut self, n: usize) -> Option<Vec<f32>> {
        let at = self.all.iter().rposition(|numbers| numbers.len() == n)?;
        self.numbers -= n;
        self.all.remove(at)
    }

    /// Returns what there is no more room for.
    fn give(&mut self, numbers: Vec<f32>) -> Vec<Vec<f32>> {
        self.numbers += numbers.len();
        self.all.push_back(numbers);
        let mut old = Vec::new();
        while (self.numbers > MOST || self.all.len() > MOST_PIECES)
            && let Some(numbers) = self.all.pop_front()
        {
            self.numbers -= numbers.len();
            old.push(numbers);
        }
        old
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let numbers = std::mem::take(&mut self.0);
        if (LEAST..=MOST).contains(&numbers.len()) {
            // Freed, where it is, when the lock is open again.
            let _old = kept().give(numbers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_found_by_its_size() {
        let mut kept = Kept { all: VecDeque::new(), numbers: 0 };
        for n in [MOST / 2, MOST / 4, MOST / 4] {
            assert!(kept.give(vec![1.0; n]).is_empty());
        }
        assert!(kept.take(MOST / 4 + 1).is_none());
        assert_eq!(kept.take(MOST / 4).map(|numbers| numbers.len()), Some(MOST / 4));
        assert_eq!(kept.numbers, MOST / 4 * 3);
        let old = kept.give(vec![1.0; MOST / 2]);
        assert_eq!(old.iter().map(Vec::len).collect::<Vec<_>>(), [MOST / 2]);
        assert_eq!((kept.numbers, kept.all.len()), (MOST / 4 * 3, 2));
    }

    #[test]
    fn numbers_for_a_kernel_are_not_to_be_read() {
        drop(Owned(vec![7.0; LEAST]));
        let numbers = unwritten(LEAST);
        assert_eq!(numbers.len(), LEAST);
        assert!(!cfg!(debug_assertions) || numbers.iter().all(|x| x.is_nan()));
    }
}

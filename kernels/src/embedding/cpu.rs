use rayon::prelude::*;

/// Copies row `ids[i]` of `table` to row i of `y`; rows have `c` elements.
pub(super) fn forward<T: Copy + Sync>(table: &[T], ids: &[u32], c: usize, y: &mut [f32], widen: fn(T) -> f32) {
    if c == 0 {
        return;
    }
    y.par_chunks_exact_mut(c).zip(ids).for_each(|(y, &id)| {
        let row = &table[id as usize * c..][..c];
        y.iter_mut().zip(row).for_each(|(y, &x)| *y = widen(x));
    });
}

/// Adds row i of `dy` to row `ids[i]` of `dtable`: the tokens sorted by id, then one thread per id.
pub(super) fn backward(dy: &[f32], ids: &[u32], c: usize, dtable: &mut [f32]) {
    if c == 0 {
        return;
    }
    let mut order: Vec<(u32, usize)> = ids.iter().copied().zip(0..).collect();
    order.sort_unstable();
    // The rows to write to, cut out of the table one after another.
    let mut work = Vec::new();
    let mut rest = dtable;
    let mut passed = 0;
    for tokens in order.chunk_by(|a, b| a.0 == b.0) {
        let id = tokens[0].0 as usize;
        let (row, after) = std::mem::take(&mut rest)[(id - passed) * c..].split_at_mut(c);
        work.push((row, tokens));
        rest = after;
        passed = id + 1;
    }
    work.into_par_iter().for_each(|(row, tokens)| {
        for &(_, t) in tokens {
            row.iter_mut().zip(&dy[t * c..]).for_each(|(to, dy)| *to += dy);
        }
    });
}

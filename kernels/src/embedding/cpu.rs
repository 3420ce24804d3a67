use rayon::prelude::*;

use super::groups::Groups;

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

/// Adds row i of `dy` to row `ids[i]` of `dtable`: one thread per id.
pub(super) fn backward(dy: &[f32], ids: &[u32], c: usize, dtable: &mut [f32]) {
    if c == 0 {
        return;
    }
    let groups = Groups::occurring(ids);
    // The rows to write to, cut out of the table one after another.
    let mut work = Vec::new();
    let mut rest = dtable;
    let mut passed = 0;
    for (id, tokens) in groups.iter() {
        let id = id as usize;
        let (row, after) = std::mem::take(&mut rest)[(id - passed) * c..].split_at_mut(c);
        work.push((row, tokens));
        rest = after;
        passed = id + 1;
    }
    work.into_par_iter().for_each(|(row, tokens)| {
        for &t in tokens {
            row.iter_mut().zip(&dy[t as usize * c..]).for_each(|(to, dy)| *to += dy);
        }
    });
}

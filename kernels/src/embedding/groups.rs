/// Which tokens have which id: token `order[i]` has id `ids[g]` for i from `starts[g]` to `starts[g + 1]`. Ids go up, and so do the
/// tokens of one id.
pub(super) struct Groups {
    pub ids: Vec<u32>,
    pub starts: Vec<u32>,
    pub order: Vec<u32>,
}

impl Groups {
    /// A group for each id that occurs.
    pub fn occurring(ids: &[u32]) -> Self {
        let mut order: Vec<u32> = (0..ids.len() as u32).collect();
        order.sort_unstable_by_key(|&token| (ids[token as usize], token));
        let mut groups = Self { ids: vec![], starts: vec![], order };
        for (i, &token) in (0u32..).zip(&groups.order) {
            let id = ids[token as usize];
            if groups.ids.last() != Some(&id) {
                groups.ids.push(id);
                groups.starts.push(i);
            }
        }
        groups.starts.push(ids.len() as u32);
        groups
    }

    /// A group for each id below `n`, which all are: some are without tokens.
    pub fn of_all(n: usize, ids: &[u32]) -> Self {
        let some = Self::occurring(ids);
        let mut starts = Vec::with_capacity(n + 1);
        let mut group = 0;
        for id in 0..=n {
            // The first group that is not before this id.
            group += usize::from(group < some.ids.len() && (some.ids[group] as usize) < id);
            starts.push(some.starts[group]);
        }
        Self { ids: (0..n as u32).collect(), starts, order: some.order }
    }

    /// The tokens of each id.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u32])> {
        let bounds = self.starts.iter().zip(&self.starts[1..]);
        self.ids.iter().zip(bounds).map(|(&id, (&from, &to))| (id, &self.order[from as usize..to as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::Groups;

    #[test]
    fn tokens_are_found_by_id() {
        let groups = Groups::occurring(&[5, 2, 5, 9, 2, 5]);
        let found: Vec<_> = groups.iter().map(|(id, tokens)| (id, tokens.to_vec())).collect();
        assert_eq!(found, [(2, vec![1, 4]), (5, vec![0, 2, 5]), (9, vec![3])]);
        let groups = Groups::of_all(4, &[3, 1, 3]);
        let found: Vec<_> = groups.iter().map(|(_, tokens)| tokens.to_vec()).collect();
        assert_eq!(found, [vec![], vec![1], vec![], vec![0, 2]]);
        assert_eq!(Groups::of_all(2, &[]).starts, [0, 0, 0]);
        assert_eq!(Groups::occurring(&[]).starts, [0]);
    }
}

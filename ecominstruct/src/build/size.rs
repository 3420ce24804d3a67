//! How many instructions of each unit make a wanted number together.

/// What one unit can give.
#[derive(Debug)]
pub(super) struct Room {
    /// All it has.
    pub(super) most: usize,
    /// What the shares of the recipe leave of that.
    pub(super) ceiling: f64,
    /// The recipe's floor, or all the unit has where that is less.
    pub(super) floor: usize,
    /// Part of the whole that it asks for.
    pub(super) weight: f64,
    /// Two where two labels must come equally often.
    pub(super) step: usize,
}

impl Room {
    /// What it gets before any unit gets more: the floor, in steps.
    fn least(&self) -> usize {
        self.floor.next_multiple_of(self.step).min(self.whole(self.most))
    }

    fn whole(&self, n: usize) -> usize {
        n - n % self.step
    }

    /// The ceiling, in steps, but not below the floor.
    fn top(&self) -> usize {
        self.whole((self.ceiling.ceil() as usize).min(self.most)).max(self.least())
    }
}

/// Numbers of instructions that come to `size`, or to less where the units cannot give as many; never to more. Each unit gets its
/// floor first; where `size` is too small for that, all get an even part.
pub(super) fn settle(rooms: &[Room], size: usize) -> Vec<usize> {
    let least: usize = rooms.iter().map(Room::least).sum();
    let value = |room: &Room, scale: f64| {
        if least >= size {
            scale.min(room.least() as f64)
        } else {
            (room.weight * scale).min(room.ceiling).max(room.least() as f64)
        }
    };
    let total = |scale: f64| -> f64 { rooms.iter().map(|room| value(room, scale)).sum() };
    let (mut low, mut high) = (0.0, 1e12);
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if total(middle) < size as f64 { low = middle } else { high = middle }
    }
    let wanted: Vec<f64> = rooms.iter().map(|room| value(room, high)).collect();
    let mut given: Vec<usize> = rooms.iter().zip(&wanted).map(|(room, n)| room.whole(n.floor() as usize)).collect();
    let mut left = (wanted.iter().sum::<f64>().round() as usize).min(size).saturating_sub(given.iter().sum());
    // What rounding left over goes to those that lost most by it, and where steps of two leave one, to whoever has room.
    let mut order: Vec<usize> = (0..rooms.len()).collect();
    let lost = |i: usize| wanted[i] - given[i] as f64;
    order.sort_by(|&a, &b| lost(b).total_cmp(&lost(a)));
    let all = |room: &Room| room.whole(room.most);
    let limits: [&dyn Fn(&Room) -> usize; 3] = [&Room::least, &Room::top, &all];
    for limit in limits.into_iter().skip(usize::from(least < size)) {
        let mut before = left + 1;
        while left > 0 && left < before {
            before = left;
            for &i in &order {
                let step = rooms[i].step;
                if step <= left && given[i] + step <= limit(&rooms[i]) {
                    given[i] += step;
                    left -= step;
                }
            }
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn room(most: usize, step: usize) -> Room {
        Room { most, ceiling: most as f64, floor: most.min(10), weight: (most as f64).sqrt(), step }
    }

    #[test]
    fn floors_come_first_and_give_way_together() {
        let rooms = [room(100, 1), room(400, 1), room(12, 2), room(7, 1)];
        assert_eq!(settle(&rooms, 60), [14, 29, 10, 7]);
        assert_eq!(settle(&rooms, 37), [10, 10, 10, 7]);
        assert_eq!(settle(&rooms, 20), [6, 5, 4, 5]);
        assert_eq!(settle(&rooms, 3), [1, 1, 0, 1]);
        assert_eq!(settle(&rooms, 10_000), [100, 400, 12, 7]);
        assert_eq!(settle(&[], 5), [0; 0]);
    }

    proptest! {
        #[test]
        fn the_size_is_met_or_nothing_more_fits(
            units in prop::collection::vec((0usize..300, 1usize..3, 0.0f64..1.2), 0..40),
            floor in 0usize..60,
            size in 1usize..6000,
        ) {
            let rooms: Vec<Room> = units
                .iter()
                .map(|&(most, step, factor)| Room {
                    most,
                    ceiling: most as f64 * factor.min(1.0),
                    floor: most.min(floor),
                    weight: (most as f64).sqrt() * factor,
                    step,
                })
                .collect();
            let given = settle(&rooms, size);
            let sum: usize = given.iter().sum();
            prop_assert!(sum <= size);
            for (n, room) in given.iter().zip(&rooms) {
                prop_assert!(n % room.step == 0 && *n <= room.most);
            }
            let whole: f64 = rooms.iter().map(|r| r.ceiling.max(r.least() as f64)).sum();
            if whole >= size as f64 && sum < size {
                let fits = |(n, r): (&usize, &Room)| n + r.step <= r.most && r.step <= size - sum;
                prop_assert!(!given.iter().zip(&rooms).any(fits), "{sum} of {size}");
            }
            if rooms.iter().map(Room::least).sum::<usize>() <= size {
                prop_assert!(given.iter().zip(&rooms).all(|(n, r)| *n >= r.least()));
            }
        }
    }
}

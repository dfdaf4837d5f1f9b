//! The largest entries of each lane of some registers, by a sorting network.
//!
//! A network only computes maxima and minima. So it needs no masks, and it can sort packed registers. The entries must
//! not be NaNs.

/// The largest entries of each lane.
pub(super) struct Largest<T> {
    /// The entries of each lane, in descending order. Each register contains one entry per lane.
    pub(super) sorted: Vec<T>,
    /// The largest entry of each lane that is not in `sorted`. It is `None` if `sorted` contains all entries.
    pub(super) lost: Option<T>,
}

/// Functions that return the maximum and the minimum of two registers, for each lane.
pub(super) struct Network<Max, Min> {
    pub(super) max: Max,
    pub(super) min: Min,
}

impl<Max, Min> Network<Max, Min> {
    /// Returns the `depth` largest entries of each lane. There is at least one register.
    pub(super) fn largest<T: Copy>(&self, registers: &[T], depth: usize) -> Largest<T>
    where
        Max: Fn(T, T) -> T,
        Min: Fn(T, T) -> T,
    {
        if registers.len() == 1 {
            return Largest { sorted: registers.to_vec(), lost: None };
        }
        let (left, right) = registers.split_at(registers.len() / 2);
        let [left, right] = [left, right].map(|half| self.largest(half, depth));
        // This merge removes all entries after the first `depth` entries. The largest of them is the next entry, so the
        // merge computes one entry more.
        let mut sorted = self.merged(&left.sorted, &right.sorted, depth + 1);
        let removed = if sorted.len() > depth { sorted.pop() } else { None };
        let lost = [left.lost, right.lost, removed].into_iter().flatten().reduce(&self.max);
        Largest { sorted, lost }
    }

    /// Merges two lists in descending order. Returns the first `count` entries of the merged list. This is Batcher's
    /// odd-even merge, without the operations for the other entries.
    fn merged<T: Copy>(&self, a: &[T], b: &[T], count: usize) -> Vec<T>
    where
        Max: Fn(T, T) -> T,
        Min: Fn(T, T) -> T,
    {
        let count = count.min(a.len() + b.len());
        if a.is_empty() || b.is_empty() {
            return [a, b].concat()[..count].to_vec();
        }
        if let (&[a], &[b]) = (a, b) {
            let second = (count > 1).then(|| (self.min)(a, b));
            return [(self.max)(a, b)].into_iter().chain(second).collect();
        }
        let from = |list: &[T], first: usize| list.iter().skip(first).step_by(2).copied().collect::<Vec<_>>();
        let even = self.merged(&from(a, 0), &from(b, 0), count / 2 + 1);
        let odd = self.merged(&from(a, 1), &from(b, 1), count / 2);
        let mut merged = vec![even[0]];
        for number in 0..count / 2 {
            match (odd.get(number), even.get(number + 1)) {
                (Some(&odd), Some(&even)) => {
                    merged.push((self.max)(odd, even));
                    if merged.len() < count {
                        merged.push((self.min)(odd, even));
                    }
                }
                (rest, None) | (None, rest) => merged.extend(rest),
            }
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type OfBits = fn(u32, u32) -> u32;

    /// A network of single bits: if a network sorts every list of zeros and ones, it sorts every list.
    const NETWORK: Network<OfBits, OfBits> = Network { max: |a, b| a | b, min: |a, b| a & b };

    /// The kernels merge lists of eight entries. Networks of such lists are too large for the test below.
    #[test]
    fn a_merge_returns_the_first_entries_of_both_lists() {
        let sorted =
            |length: usize, ones: usize| -> Vec<u32> { (0..length).map(|i| u32::from(i < ones)).collect() };
        for (a, b) in (0..=9).flat_map(|a| (0..=9).map(move |b| (a, b))).filter(|&(a, b)| a + b > 0) {
            for (ones_of_a, ones_of_b) in (0..=a).flat_map(|i| (0..=b).map(move |j| (i, j))) {
                for count in 1..=a + b {
                    let merged = NETWORK.merged(&sorted(a, ones_of_a), &sorted(b, ones_of_b), count);
                    assert_eq!(merged, sorted(count, ones_of_a + ones_of_b), "{count} of {a} and {b}");
                }
            }
        }
    }

    #[test]
    fn the_largest_entries_are_sorted_and_the_next_entry_is_lost() {
        for length in 1..=12 {
            for depth in 1..=length {
                for list in 0..1u32 << length {
                    let registers: Vec<u32> = (0..length).map(|i| list >> i & 1).collect();
                    let Largest { sorted, lost } = NETWORK.largest(&registers, depth);
                    let ones = list.count_ones() as usize;
                    let expected: Vec<u32> = (0..depth).map(|i| u32::from(i < ones)).collect();
                    assert_eq!(sorted, expected, "{length} registers, depth {depth}");
                    assert_eq!(lost, (depth < length).then_some(u32::from(depth < ones)));
                }
            }
        }
    }
}

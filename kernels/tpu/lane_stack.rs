//! A stack in every lane of a register.

use crate::mlir::mosaic::{Kernel, Value};

/// A stack in every lane. Each entry has `N` fields, for example a logit and its place.
///
/// The last field is the marker. The marker of an empty level differs from every marker that is pushed.
pub(super) struct LaneStack<const N: usize> {
    /// The levels of each field, from the top.
    pub(super) fields: [Vec<Value>; N],
    /// The last marker that a push removed from the lowest level because the stack was full. It is the empty marker if
    /// there was none.
    pub(super) overflow: Value,
}

/// The survivors of each lane: logits and their indices in the row, as floats. The stack uses the index as its marker:
/// −1 marks an empty level.
pub(super) type SurvivorStack = LaneStack<2>;

impl<const N: usize> LaneStack<N> {
    /// Returns an empty stack. `empty` are the fields of an empty level, in all lanes.
    pub(super) fn empty(depth: usize, empty: [Value; N]) -> LaneStack<N> {
        LaneStack { fields: empty.map(|value| vec![value; depth]), overflow: empty[N - 1] }
    }

    /// Returns the values of the stack, as the state of a loop.
    pub(super) fn flat(&self) -> Vec<Value> {
        let mut flat = self.fields.concat();
        flat.push(self.overflow);
        flat
    }

    pub(super) fn from_flat(flat: &[Value]) -> LaneStack<N> {
        let depth = (flat.len() - 1) / N;
        LaneStack {
            fields: std::array::from_fn(|field| flat[field * depth..(field + 1) * depth].to_vec()),
            overflow: flat[N * depth],
        }
    }

    /// Returns the number of levels.
    pub(super) fn depth(&self) -> usize {
        self.fields[0].len()
    }

    /// Returns the fields of one level.
    pub(super) fn level(&self, level: usize) -> [Value; N] {
        self.fields.each_ref().map(|levels| levels[level])
    }

    /// Pushes an entry in the lanes where the mask is true.
    ///
    /// After a lane has overflowed, every later push overflows again. So `overflow` needs to contain only the last
    /// marker.
    pub(super) fn push_where(&mut self, k: &Kernel, mask: Value, entry: [Value; N]) {
        // If no push has reached a level, the level still contains the initial value. Such levels need no operations.
        let depth = self.depth();
        let used = self.fields[N - 1].iter().position(|&marker| marker == self.overflow).unwrap_or(depth);
        if used == depth {
            self.overflow = k.choose(mask, self.fields[N - 1][depth - 1], self.overflow);
        }
        for level in (1..depth.min(used + 1)).rev() {
            for levels in &mut self.fields {
                levels[level] = k.choose(mask, levels[level - 1], levels[level]);
            }
        }
        for (levels, value) in self.fields.iter_mut().zip(entry) {
            levels[0] = k.choose(mask, value, levels[0]);
        }
    }

    /// Pushes the entries of another stack, beginning with its top level. `is_used` receives the marker of a level. It
    /// returns a mask: whether the level has an entry.
    pub(super) fn append(&mut self, k: &Kernel, other: &LaneStack<N>, is_used: impl Fn(Value) -> Value) {
        for level in 0..other.depth() {
            let entry = other.level(level);
            self.push_where(k, is_used(entry[N - 1]), entry);
        }
    }
}

/// Returns an empty stack of survivors.
pub(super) fn empty_stack(k: &Kernel, depth: usize) -> SurvivorStack {
    SurvivorStack::empty(depth, [k.splat(k.f32(0.0)), k.splat(k.f32(-1.0))])
}

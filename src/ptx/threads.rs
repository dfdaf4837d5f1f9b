//! Operations that involve several threads.

use super::{Float, Int, Mask, Ptx};

impl Ptx {
    /// The number of this thread in its block.
    pub fn thread(&self) -> Int {
        self.int_op("mov.u32", &[&"%tid.x"])
    }

    /// The number of this block.
    pub fn block(&self) -> Int {
        self.int_op("mov.u32", &[&"%ctaid.x"])
    }

    /// Waits for all threads of the block. Their earlier accesses to memory are then visible to each other.
    pub fn barrier(&self) {
        self.line("bar.sync 0");
    }

    /// A barrier. Returns the number of threads whose mask is true.
    pub fn barrier_count(&self, mask: Mask) -> Int {
        self.int_op("bar.red.popc.u32", &[&0, &mask])
    }

    /// A barrier. Whether the mask of any thread is true.
    pub fn barrier_any(&self, mask: Mask) -> Mask {
        self.mask_op("bar.red.or.pred", &[&0, &mask])
    }

    /// The largest signed value of the threads of a warp.
    pub fn warp_max(&self, value: Int) -> Int {
        self.int_op("redux.sync.max.s32", &[&value, &"0xffffffff"])
    }

    /// The least signed value of the threads of a warp.
    pub fn warp_min(&self, value: Int) -> Int {
        self.int_op("redux.sync.min.s32", &[&value, &"0xffffffff"])
    }

    /// The sum of the values of the threads of a warp, wrapping.
    pub fn warp_sum(&self, value: Int) -> Int {
        self.int_op("redux.sync.add.s32", &[&value, &"0xffffffff"])
    }

    /// The larger of two floats. If one is NaN, the other one.
    pub fn fmax(&self, a: Float, b: Float) -> Float {
        self.float_op("max.f32", &[&a, &b])
    }

    /// The smaller of two integers.
    pub fn min(&self, a: Int, b: Int) -> Int {
        self.int_op("min.s32", &[&a, &b])
    }

    /// Whether `a` is at least `b`; false if either is NaN.
    pub fn at_least(&self, a: Float, b: Float) -> Mask {
        self.mask_op("setp.ge.f32", &[&a, &b])
    }

    /// Whether either float is NaN, or `before` is true.
    pub fn any_nan(&self, a: Float, b: Float, before: Mask) -> Mask {
        self.mask_op("setp.nan.or.f32", &[&a, &b, &before])
    }

    /// A mask that is false.
    pub fn never(&self) -> Mask {
        self.mask_op("setp.ne.s32", &[&0, &0])
    }
}

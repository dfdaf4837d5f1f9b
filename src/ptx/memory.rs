//! Loads, stores and atomic operations.

use std::fmt::Display;

use super::operands::Class;
use super::{Float, Int, Mask, Ptx, Variable, Wide};
use crate::semantics::arith::{Arith, WideArith};

/// The instruction that loads words that the caches should not keep. Its modifier concerns the L1 cache. An H100 also
/// evicts such words from the L2 cache before other words.
const LOAD_ONCE: &str = "ld.global.nc.L1::no_allocate";

/// An address in global memory.
#[derive(Clone, Copy, Debug)]
pub struct Address(Wide);

/// An array in shared memory, which all threads of a block share. Its contents are arbitrary at the start of the
/// kernel. An element has 32 bits.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    /// The address of the first element.
    start: Int,
    len: usize,
}

impl Shared {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the array has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Ptx {
    /// The address of element `index` of an array whose elements have `bytes` bytes. `index` is not negative.
    pub fn address(&self, base: Wide, index: Int, bytes: usize) -> Address {
        Address(self.wide_op("mad.wide.u32", &[&index, &bytes, &base]))
    }

    /// The address `index * bytes` bytes after `base`, for products that exceed 32 bits.
    pub fn far_address(&self, base: Wide, index: Wide, bytes: usize) -> Address {
        Address(self.wide_op("mad.lo.u64", &[&index, &bytes, &base]))
    }

    /// The address, for use as the base of [`Ptx::address`].
    pub fn base(&self, address: Address) -> Wide {
        address.0
    }

    /// Loads a word that no kernel writes while this kernel runs. `offset` is in bytes.
    pub fn load(&self, address: Address, offset: usize) -> Int {
        let result = self.int_register();
        self.line(format_args!("ld.global.nc.b32 {result}, [{}+{offset}]", address.0));
        result
    }

    /// Loads 64 bits, like [`Ptx::load`].
    pub fn load_wide(&self, address: Address) -> Wide {
        let result = self.wide_register();
        self.line(format_args!("ld.global.nc.b64 {result}, [{}]", address.0));
        result
    }

    /// Loads two consecutive words, like [`Ptx::load`]. The address is a multiple of 8.
    pub fn load_pair(&self, address: Address) -> [Int; 2] {
        let words = [self.int_register(), self.int_register()];
        let (vector, names) = vector_of(&words);
        self.line(format_args!("ld.global.nc{vector}.b32 {names}, [{}]", address.0));
        words
    }

    /// Loads one, two or four consecutive words where the mask is true. Elsewhere the words are `otherwise`. The
    /// address is a multiple of their size. No kernel writes the words while this kernel runs. The caches
    /// should not keep the words.
    pub fn load_words_if(
        &self,
        mask: Mask,
        address: Address,
        offset: usize,
        count: usize,
        otherwise: Int,
    ) -> Vec<Int> {
        self.load_vector_if(LOAD_ONCE, mask, (address, offset), count, otherwise)
    }

    fn load_vector_if(
        &self,
        instruction: &str,
        mask: Mask,
        (address, offset): (Address, usize),
        count: usize,
        otherwise: Int,
    ) -> Vec<Int> {
        let words: Vec<Int> = (0..count).map(|_| self.int_op("mov.b32", &[&otherwise])).collect();
        let (vector, names) = vector_of(&words);
        let base = address.0;
        self.line(format_args!("@{mask} {instruction}{vector}.b32 {names}, [{base}+{offset}]"));
        words
    }

    /// Loads 16 bits and extends them with zeros, like [`Ptx::load_words_if`].
    pub fn load_half_if(&self, mask: Mask, address: Address, offset: usize, otherwise: Int) -> Int {
        let half = self.new_register(Class::Half);
        self.line(format_args!("cvt.u16.u32 %h{half}, {otherwise}"));
        let base = address.0;
        self.line(format_args!("@{mask} {LOAD_ONCE}.b16 %h{half}, [{base}+{offset}]"));
        let result = self.int_register();
        self.line(format_args!("cvt.u32.u16 {result}, %h{half}"));
        result
    }

    /// Converts a binary16 number, given as 16 bits, to binary32. The conversion is exact, also for subnormals.
    pub fn widen_half(&self, bits: Int) -> Float {
        let half = self.new_register(Class::Half);
        self.line(format_args!("cvt.u16.u32 %h{half}, {bits}"));
        let result = self.float_register();
        self.line(format_args!("cvt.f32.f16 {result}, %h{half}"));
        result
    }

    /// Stores consecutive words: one, two or four. The address is a multiple of their size.
    pub fn store(&self, address: Address, offset: usize, words: &[Int]) {
        let (vector, names) = vector_of(words);
        self.line(format_args!("st.global{vector}.b32 [{}+{offset}], {names}", address.0));
    }

    /// Stores consecutive words that other blocks can [`poll`](Ptx::poll). The address is a multiple of their size. The
    /// words can become visible to other blocks one at a time, in any order.
    pub fn publish(&self, address: Address, offset: usize, words: &[Int]) {
        let (vector, names) = vector_of(words);
        self.line(format_args!("st.relaxed.gpu.global{vector}.b32 [{}+{offset}], {names}", address.0));
    }

    /// Loads a word that another block may [`publish`](Ptx::publish) while this kernel runs.
    pub fn poll(&self, address: Address, offset: usize) -> Int {
        self.int_op("ld.relaxed.gpu.global.b32", &[&format_args!("[{}+{offset}]", address.0)])
    }

    /// Loads one, two or four consecutive words that blocks of this kernel have stored, where the mask is true.
    /// Elsewhere, the words are `otherwise`. The address is a multiple of their size. Fences must order the stores of
    /// other blocks before the load: see [`Ptx::fence`].
    pub fn load_stored_if(
        &self,
        mask: Mask,
        address: Address,
        offset: usize,
        count: usize,
        otherwise: Int,
    ) -> Vec<Int> {
        self.load_vector_if("ld.global", mask, (address, offset), count, otherwise)
    }

    /// Orders the accesses to memory before the fence and those after it. Accesses of other threads of the block before
    /// a barrier count as accesses before a later fence. Another block sees this order if two conditions hold. First,
    /// the thread of this fence executes an atomic operation after the fence. Second, a thread of the other block later
    /// executes an atomic operation on the same word, and a fence after that operation.
    pub fn fence(&self) {
        self.line(format_args!("fence.acq_rel.gpu"));
    }

    /// Declares an array of `len` words in shared memory.
    pub fn shared(&self, len: usize) -> Shared {
        let mut all = self.shared.borrow_mut();
        all.push(len * 4);
        let start = self.int_register();
        self.line(format_args!("mov.u32 {start}, shared_{}", all.len() - 1));
        Shared { start, len }
    }

    /// The part of an array in shared memory that begins at element `first`.
    pub fn part(&self, array: Shared, first: usize) -> Shared {
        assert!(first <= array.len);
        let start = self.int_op("add.s32", &[&array.start, &(4 * first)]);
        Shared { start, len: array.len - first }
    }

    /// The address of element `index` of an array in shared memory.
    pub fn shared_address(&self, array: Shared, index: Int) -> Int {
        self.int_op("mad.lo.s32", &[&index, &4, &array.start])
    }

    /// If the mask is true, stores two words at the address `next` in shared memory. Then sets `next` to `next` plus
    /// `step` bytes, or to `last` if the sum is larger. The instructions contain no branch.
    pub fn push_shared_if(&self, mask: Mask, next: Variable, words: [Int; 2], step: usize, last: Int) {
        let (vector, names) = vector_of(&words);
        self.line(format_args!("@{mask} st.shared{vector}.b32 [{next}], {names}"));
        // The addition and the minimum have no mask. So GPUs since the H100 execute both as one instruction.
        let after = self.min(self.add(self.get(next), self.int(step as i32)), last);
        self.line(format_args!("@{mask} mov.b32 {next}, {after}"));
    }

    /// Loads element `index` of a shared array.
    pub fn load_shared(&self, array: Shared, index: Int) -> Int {
        let address = self.shared_address(array, index);
        self.int_op("ld.shared.b32", &[&format_args!("[{address}]")])
    }

    /// Loads element `index`, a constant.
    pub fn load_shared_at(&self, array: Shared, index: usize) -> Int {
        assert!(index < array.len);
        self.int_op("ld.shared.b32", &[&format_args!("[{}+{}]", array.start, index * 4)])
    }

    /// Loads `N` consecutive elements, starting at `index`. `N` is two or four. `index` is a multiple of `N`.
    pub fn load_shared_words<const N: usize>(&self, array: Shared, index: Int) -> [Int; N] {
        self.load_shared_vector(self.shared_address(array, index))
    }

    /// Like [`Ptx::load_shared_words`]. `index` is a constant.
    pub fn load_shared_words_at<const N: usize>(&self, array: Shared, index: usize) -> [Int; N] {
        assert!(index.is_multiple_of(N) && index + N <= array.len);
        self.load_shared_vector(format_args!("{}+{}", array.start, index * 4))
    }

    fn load_shared_vector<const N: usize>(&self, address: impl Display) -> [Int; N] {
        let words = [(); N].map(|()| self.int_register());
        let (vector, names) = vector_of(&words);
        self.line(format_args!("ld.shared{vector}.b32 {names}, [{address}]"));
        words
    }

    /// Stores `N` consecutive elements, starting at `index`. `N` is two or four. `index` is a multiple of `N`.
    pub fn store_shared_words<const N: usize>(&self, array: Shared, index: Int, values: [Int; N]) {
        let address = self.shared_address(array, index);
        let (vector, names) = vector_of(&values);
        self.line(format_args!("st.shared{vector}.b32 [{address}], {names}"));
    }

    /// Loads a 64-bit integer of an array that contains the two halves of each integer.
    pub fn load_shared_wide(&self, array: Shared, number: Int) -> Wide {
        let [low, high] = self.load_shared_words(array, self.shl(number, 1));
        self.join(low, high)
    }

    /// Stores a 64-bit integer in an array that contains the two halves of each integer.
    pub fn store_shared_wide(&self, array: Shared, number: Int, value: Wide) {
        self.store_shared_words(array, self.shl(number, 1), [self.low(value), self.high(value)]);
    }

    /// Stores element `index` of a shared array.
    pub fn store_shared(&self, array: Shared, index: Int, value: Int) {
        let address = self.shared_address(array, index);
        self.line(format_args!("st.shared.b32 [{address}], {value}"));
    }

    /// Stores element `index`, a constant.
    pub fn store_shared_at(&self, array: Shared, index: usize, value: Int) {
        assert!(index < array.len);
        self.line(format_args!("st.shared.b32 [{}+{}], {value}", array.start, index * 4));
    }

    /// Adds `value` to element `index` of a shared array, atomically. `index` is a constant. Returns the old value.
    pub fn fetch_add_shared(&self, array: Shared, index: usize, value: Int) -> Int {
        assert!(index < array.len);
        self.int_op("atom.shared.add.u32", &[&format_args!("[{}+{}]", array.start, index * 4), &value])
    }

    /// Adds `value` to element `index` of a shared array, atomically and wrapping.
    pub fn add_shared(&self, array: Shared, index: Int, value: Int) {
        let address = self.shared_address(array, index);
        self.line(format_args!("red.shared.add.u32 [{address}], {value}"));
    }

    /// Returns an array whose element `first` is the first element of `array`. So the kernel need not subtract `first`
    /// from each index. Only elements of `array` may be accessed.
    pub fn shifted(&self, array: Shared, first: i32) -> Shared {
        let start = self.sub(array.start, self.int(first.wrapping_mul(4)));
        Shared { start, len: array.len }
    }

    /// Adds `value` to a word in global memory, atomically and wrapping.
    pub fn add_global(&self, address: Address, value: Int) {
        self.line(format_args!("red.global.add.u32 [{}], {value}", address.0));
    }

    /// Like [`Ptx::add_global`]. Returns the old value.
    pub fn fetch_add_global(&self, address: Address, value: Int) -> Int {
        self.int_op("atom.global.add.u32", &[&format_args!("[{}]", address.0), &value])
    }

    /// The index of a row in an array of rows of `len` elements, plus `offset`.
    pub fn element(&self, row: Int, len: usize, offset: Int) -> Int {
        self.int_op("mad.lo.s32", &[&row, &len, &offset])
    }

    /// `row * len + offset` in 64 bits.
    pub fn far_element(&self, row: Int, len: usize, offset: Int) -> Wide {
        let offset = self.widen(offset);
        self.wide_op("mad.wide.u32", &[&row, &len, &offset])
    }
}

/// The qualifier of an instruction that loads or stores these words, and its operand.
fn vector_of(words: &[Int]) -> (&'static str, String) {
    let names: Vec<String> = words.iter().map(Int::to_string).collect();
    let names = names.join(", ");
    match words.len() {
        1 => ("", names),
        2 => (".v2", format!("{{{names}}}")),
        4 => (".v4", format!("{{{names}}}")),
        count => panic!("there are no vectors of {count} words"),
    }
}

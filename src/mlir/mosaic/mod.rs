//! A builder of Mosaic kernels: programs of one TPU core, in the MLIR dialects that libtpu compiles.
//!
//! A vector is one vector register of `8 x 128` elements of 32 bits: 8 sublanes with 128 lanes each. A packed register
//! is a vector register of `8 x 256` elements of 16 bits.
//!
//! In a block of eight rows, each sublane is a row, and the lanes are entries of the row. In a block of one, two or
//! four rows, each row has several sublanes, called the stripes of the row. In a block of `n` rows, sublane `s` is
//! stripe `s / n` of row `s % n`. A value per row is a register that contains the value in every lane of all stripes.
//!
//! The builder implements [`Arith`](crate::semantics::arith::Arith) and
//! [`WideArith`](crate::semantics::arith::WideArith), so functions that are generic over them add their operations to
//! the kernel.
//!
//! A kernel has two texts. Later versions of libtpu can also read the versioned text (`stable_mosaic.arith.addi`). The
//! plain text is for readers.

mod check;
mod print;
pub mod wide;

use std::cell::{Cell, RefCell};

use super::arith::{Binary, Elementwise, Predicate};
use super::builder::{fixed, Builder, Dialect, Pending, Placement};
use super::check::without_dimensions;
use super::ir::{Attribute, Attributes};
use super::types::Type;
use super::upstream;

pub use super::ir::Value;
pub use super::reduce::Reduce;
pub use super::types::{Elem, Space};
pub use print::Grid;

/// The number of rows of a register.
pub const SUBLANES: usize = 8;
/// The number of entries per row of a register.
pub const LANES: usize = 128;
/// The number of entries per row of a packed register.
pub const PACKED_LANES: usize = 2 * LANES;

static MOSAIC: Dialect =
    Dialect { constant: "arith.constant", constants: Placement::FunctionEntry, check: check::check };

/// Returns the type of a register.
fn register(elem: Elem) -> Type {
    Type::vector(elem, &[SUBLANES, LANES])
}

/// Returns the type of one lane of a register.
fn column(elem: Elem) -> Type {
    Type::vector(elem, &[SUBLANES, 1])
}

/// A reference to memory.
#[derive(Clone, Debug)]
pub struct Memory {
    value: Value,
    dims: Vec<usize>,
}

impl Memory {
    fn new(value: Value) -> Memory {
        Memory { value, dims: value.ty().dims().to_vec() }
    }

    /// Returns the dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Returns the type of the elements.
    pub fn elem(&self) -> Elem {
        self.value.ty().elem()
    }
}

/// An argument of the kernel.
#[derive(Debug)]
struct Parameter {
    memory: Value,
    /// Whether Mosaic copies the rows of the grid step to VMEM. Otherwise the whole operand stays in HBM.
    window: bool,
}

/// The builder of one kernel. Methods take `&self`, so that nested calls read like expressions.
pub struct Kernel {
    builder: Builder,
    step: Value,
    /// The number of rows of a block: 1, 2, 4 or 8.
    rows: usize,
    /// Whether the stripes of a row are copies: see [`in_copies`](Kernel::in_copies).
    copied: Cell<bool>,
    parameters: RefCell<Vec<Parameter>>,
    scratch: RefCell<Vec<Value>>,
}

impl Default for Kernel {
    fn default() -> Kernel {
        Kernel::new()
    }
}

impl Kernel {
    /// Creates an empty kernel, which runs once for each block of eight rows.
    pub fn new() -> Kernel {
        Kernel::with_rows(SUBLANES)
    }

    /// Creates an empty kernel, which runs once for each block of `rows` rows: 1, 2, 4 or 8.
    pub fn with_rows(rows: usize) -> Kernel {
        assert!(rows.is_power_of_two() && rows <= SUBLANES, "a block cannot have {rows} rows");
        let builder = Builder::new(&MOSAIC);
        let step = builder.argument(Type::scalar(Elem::I32));
        let (parameters, scratch) = Default::default();
        Kernel { builder, step, rows, copied: Cell::new(false), parameters, scratch }
    }

    /// Returns the number of stripes of a row. It is 1 if the stripes are copies.
    pub fn stripes(&self) -> usize {
        match self.copied.get() {
            true => 1,
            false => SUBLANES / self.rows,
        }
    }

    /// Adds operations on registers whose stripes are copies: all stripes of a row contain the same entries, possibly
    /// in different lanes. So a reduction over the row does not combine the stripes, and each stripe can process a
    /// different value.
    pub fn in_copies<R>(&self, operations: impl FnOnce() -> R) -> R {
        let outer = self.copied.replace(true);
        let result = operations();
        self.copied.set(outer);
        result
    }

    /// Returns the number of copies of a row. It is 1 if the stripes are not copies.
    pub fn copies(&self) -> usize {
        SUBLANES / self.rows / self.stripes()
    }

    /// Returns the number of the grid step, which is the number of its block of rows.
    pub fn step(&self) -> Value {
        self.step
    }

    /// Declares an operand or result. Each step sees eight sublanes of it in VMEM, `[8, width]`. Declare the operands
    /// first, in the order of the call, and then the results.
    pub fn window(&self, elem: Elem, width: usize) -> Memory {
        self.parameter(Type::memref(elem, &[SUBLANES, width], Space::Vmem), true)
    }

    /// Declares an operand that stays in HBM.
    pub fn in_hbm(&self, elem: Elem, dims: &[usize]) -> Memory {
        self.parameter(Type::memref(elem, dims, Space::Any), false)
    }

    fn parameter(&self, ty: Type, window: bool) -> Memory {
        let memory = self.builder.argument(ty);
        self.parameters.borrow_mut().push(Parameter { memory, window });
        Memory::new(memory)
    }

    /// Allocates memory for the kernel. It is uninitialised before the first step. It keeps its contents between steps.
    pub fn scratch(&self, elem: Elem, dims: &[usize], space: Space) -> Memory {
        let memory = self.builder.argument(Type::memref(elem, dims, space));
        self.scratch.borrow_mut().push(memory);
        Memory::new(memory)
    }

    /// Adds a comment to the plain text.
    pub fn comment(&self, text: impl Into<String>) {
        self.builder.comment(text);
    }

    /// Notes in the plain text that the results of the kernel do not depend on `value`, and why. The proofs about
    /// mutants need these notes (`tests/interpreter/mosaic/relevance.py`). Returns the value.
    pub fn any_is_correct(&self, value: Value, reason: &str) -> Value {
        self.comment(format!("any value of {value} is correct: {reason}"));
        value
    }

    /// Notes in the plain text that the integer `value` is never negative and at most `most`. The proofs about
    /// mutants need these notes (`tests/interpreter/mosaic/ranges.py`). Returns the value.
    pub fn at_most_noted(&self, value: Value, most: i32) -> Value {
        self.comment(format!("{value} is between 0 and {most}"));
        value
    }

    /// Converts a scalar to an offset into memory.
    fn index(&self, value: Value) -> Value {
        match value.literal() {
            Some(bits) => Value::constant(value.ty().with_elem(Elem::Index), bits),
            None if value.ty().elem() == Elem::Index => value,
            None => self.converted(value, Elem::Index),
        }
    }

    /// Returns an integer constant. It is a scalar until an operation combines it with a register.
    pub fn i32(&self, value: i32) -> Value {
        self.int_constant(value)
    }

    /// Returns a float constant. It is a scalar until an operation combines it with a register.
    pub fn f32(&self, value: f32) -> Value {
        self.float_constant(value)
    }

    /// Returns a whole number as a constant of a float type. The type must represent the number exactly. The constant
    /// is a scalar until an operation combines it with a register.
    pub fn whole(&self, elem: Elem, value: i16) -> Value {
        let bits = f32::from(value).to_bits();
        assert!(elem == Elem::F32 || bits & 0xffff == 0, "bf16 does not represent {value}");
        let bits = if elem == Elem::Bf16 { bits >> 16 } else { bits };
        Value::constant(Type::scalar(elem), bits.into())
    }

    /// Returns a truth value. It is a scalar until an operation combines it with a register.
    pub fn bool(&self, value: bool) -> Value {
        Value::constant(Type::scalar(Elem::I1), value.into())
    }

    /// Returns −∞ in a type of logits. It is a scalar until an operation combines it with a register.
    pub fn negative_infinity(&self, elem: Elem) -> Value {
        let bits = Reduce::Max.identity(elem).expect("logits have a least value");
        Value::constant(Type::scalar(elem), bits)
    }

    /// Returns a register that contains `value` in every element.
    pub fn splat(&self, value: Value) -> Value {
        self.spread(value, register(value.ty().elem()))
    }

    /// Returns the lane of each entry.
    pub fn lane(&self) -> Value {
        self.iota(1)
    }

    /// Returns the sublane of each entry.
    pub fn sublane(&self) -> Value {
        self.iota(0)
    }

    /// Returns the number of each entry's stripe in its row.
    pub fn stripe(&self) -> Value {
        match self.stripes() {
            1 => self.splat(self.int_constant(0)),
            _ => self.binary(
                Binary::ShiftRightZero,
                self.sublane(),
                self.int_constant(self.rows.trailing_zeros() as i32),
            ),
        }
    }

    /// Returns the number of each entry's copy of its row.
    pub fn copy(&self) -> Value {
        let shift = self.i32(self.rows.trailing_zeros() as i32);
        self.shift_right_zero(self.sublane(), shift)
    }

    fn iota(&self, dimension: i64) -> Value {
        let dimensions = Attribute::Integers("i32", vec![dimension]);
        self.builder.op("tpu.iota").attribute("dimensions", dimensions).result(register(Elem::I32))
    }

    /// Returns `a * b`, wrapping.
    #[track_caller]
    pub fn mul(&self, a: Value, b: Value) -> Value {
        self.binary(Binary::Mul, a, b)
    }

    /// Returns the smaller of two signed integers.
    #[track_caller]
    pub fn min(&self, a: Value, b: Value) -> Value {
        self.binary(Binary::Min, a, b)
    }

    /// Returns the larger of two floats. In MLIR the result is NaN if either operand is NaN. Kernels rely on this to
    /// find rows that contain a NaN. docs/hardware-checklist.md describes a test of this rule on hardware.
    #[track_caller]
    pub fn fmax(&self, a: Value, b: Value) -> Value {
        self.binary(Binary::Max, a, b)
    }

    /// Returns the smaller of two floats. Kernels do not rely on the result if either operand is NaN.
    #[track_caller]
    pub fn fmin(&self, a: Value, b: Value) -> Value {
        self.binary(Binary::Min, a, b)
    }

    /// Returns a sum of floats. It is exact for whole numbers with a sum below 2²⁴. Results of sampling must not depend
    /// on inexact sums.
    #[track_caller]
    pub fn fadd(&self, a: Value, b: Value) -> Value {
        self.binary(Binary::Add, a, b)
    }

    /// Returns a quotient of floats. Use it only for estimates, because hardware may round it differently.
    #[track_caller]
    pub fn divide(&self, a: Value, b: Value) -> Value {
        self.binary(Binary::Div, a, b)
    }

    /// Returns `a >> by`. The upper bits become zero.
    #[track_caller]
    pub fn shift_right_zero(&self, a: Value, by: Value) -> Value {
        self.binary(Binary::ShiftRightZero, a, by)
    }

    /// Returns `a << by`.
    #[track_caller]
    pub fn shift_left(&self, a: Value, by: Value) -> Value {
        self.binary(Binary::ShiftLeft, a, by)
    }

    /// Whether `a >= b` for floats. The result is false if either is NaN.
    #[track_caller]
    pub fn at_least(&self, a: Value, b: Value) -> Value {
        self.comparing(Predicate::Ge, a, b)
    }

    /// Whether `a > b` for floats. The result is false if either is NaN.
    #[track_caller]
    pub fn above(&self, a: Value, b: Value) -> Value {
        self.comparing(Predicate::Gt, a, b)
    }

    /// Whether `a >= b` for signed integers.
    #[track_caller]
    pub fn ge(&self, a: Value, b: Value) -> Value {
        self.comparing(Predicate::Ge, a, b)
    }

    /// Whether `a != b`.
    #[track_caller]
    pub fn ne(&self, a: Value, b: Value) -> Value {
        self.comparing(Predicate::Ne, a, b)
    }

    /// Returns the bits of a float.
    #[track_caller]
    pub fn bits(&self, a: Value) -> Value {
        self.bits_as(a, Elem::I32)
    }

    /// Moves the entries of each sublane by `by` lanes towards higher lanes. The entries of the last lanes move to the
    /// first lanes.
    pub fn rotate(&self, a: Value, by: Value) -> Value {
        self.rotate_dimension(a, by, 1)
    }

    /// Moves each stripe of a row by `by` stripes towards higher stripes. The last stripes become the first stripes.
    pub fn rotate_stripes(&self, a: Value, by: usize) -> Value {
        self.rotate_sublanes(a, by * self.rows)
    }

    /// Moves each sublane by `by` sublanes towards higher sublanes. The last sublanes become the first sublanes.
    pub fn rotate_sublanes(&self, a: Value, by: usize) -> Value {
        self.rotate_dimension(a, self.i32(by as i32), 0)
    }

    fn rotate_dimension(&self, a: Value, by: Value, dimension: i64) -> Value {
        let a = self.splat(a);
        self.builder
            .op("tpu.dynamic_rotate")
            .operands([a, by])
            .attribute("dimension", Attribute::Integer(dimension, "si32"))
            .result(a.ty())
    }

    /// Repeats one lane of each row in all lanes of the row.
    pub fn lane_of(&self, memory: &Memory, lane: usize) -> Value {
        let loaded = self.load_as(memory, self.i32(lane as i32), column(memory.elem()));
        self.repeat(loaded, register(memory.elem()))
    }

    /// Combines the stripes of each row, lane by lane. The result is in all stripes.
    pub fn over_stripes(&self, kind: Reduce, a: Value) -> Value {
        self.over_sublanes_of_rows(kind, a, self.stripes())
    }

    /// Combines the copies of each row, lane by lane. The result is in all copies.
    pub fn over_copies(&self, kind: Reduce, a: Value) -> Value {
        self.over_sublanes_of_rows(kind, a, self.copies())
    }

    fn over_sublanes_of_rows(&self, kind: Reduce, a: Value, sublanes: usize) -> Value {
        let (mut a, mut by) = (a, 1);
        while by < sublanes {
            a = self.combined(kind, a, self.rotate_stripes(a, by));
            by *= 2;
        }
        a
    }

    /// Combines the stripes of each row with `or`. `values` has as many registers as a row has stripes. Stripe `s` of
    /// the result is [`over_stripes`](Kernel::over_stripes) of `values[s]`. This takes less time than combining each
    /// register separately.
    pub fn or_of_stripes(&self, mut values: Vec<Value>) -> Value {
        let (stripe, stripes) = (self.stripe(), self.stripes());
        assert_eq!(values.len(), stripes, "there must be a register for each stripe");
        // Each step merges pairs of registers. Where a bit of the stripe's number is 0, the result has the first
        // register of the pair, combined with the stripe whose number differs in this bit. Elsewhere it has the second
        // register.
        let mut distance = stripes / 2;
        while distance > 0 {
            let bit = self.binary(Binary::And, stripe, self.i32(distance as i32));
            let upper = self.ne(bit, self.i32(0));
            let (first, second) = values.split_at(values.len() / 2);
            let merge = |(&a, &b): (&Value, &Value)| {
                if distance == stripes / 2 {
                    // A rotation by half of the stripes moves each stripe to its partner.
                    let moved = self.rotate_stripes(self.choose(upper, a, b), distance);
                    return self.combined(Reduce::Or, self.choose(upper, b, a), moved);
                }
                let with_next = self.combined(Reduce::Or, a, self.rotate_stripes(a, stripes - distance));
                let with_previous = self.combined(Reduce::Or, b, self.rotate_stripes(b, distance));
                self.choose(upper, with_previous, with_next)
            };
            values = first.iter().zip(second).map(merge).collect();
            distance /= 2;
        }
        values[0]
    }

    fn combined(&self, kind: Reduce, a: Value, b: Value) -> Value {
        let operation = match kind {
            Reduce::Add => Binary::Add,
            Reduce::Max => Binary::Max,
            Reduce::Min => Binary::Min,
            Reduce::Or => Binary::Or,
        };
        self.binary(operation, a, b)
    }

    /// Reduces each row over its lanes and stripes. The result is in all lanes of all stripes.
    pub fn over_row(&self, kind: Reduce, a: Value) -> Value {
        self.over_lanes(kind, self.over_stripes(kind, a))
    }

    /// Reduces each sublane over its lanes. The result is in all lanes.
    pub fn over_lanes(&self, kind: Reduce, a: Value) -> Value {
        let a = self.splat(a);
        let rows = self.multi_reduction(kind, a, &[1]);
        let column = self.builder.op("vector.shape_cast").operands([rows]).result(column(a.ty().elem()));
        self.repeat(column, a.ty())
    }

    /// Reduces a register of floats to a scalar. The hardware does not reduce integers.
    pub fn over_all(&self, kind: Reduce, a: Value) -> Value {
        let a = self.splat(a);
        let block = a.ty().with_dims(&[1, SUBLANES, LANES]);
        let block = self.builder.op("vector.shape_cast").operands([a]).result(block);
        let one = self.multi_reduction(kind, block, &[1, 2]);
        self.builder
            .op("vector.extract")
            .operands([one])
            .attribute("static_position", Attribute::i64s([0]))
            .result(Type::scalar(a.ty().elem()))
    }

    /// Returns the element in the first lane of the first sublane of a register, as a scalar.
    pub fn scalar(&self, a: Value) -> Value {
        self.builder
            .op("vector.extract")
            .operands([a])
            .attribute("static_position", Attribute::i64s([0, 0]))
            .result(Type::scalar(a.ty().elem()))
    }

    fn multi_reduction(&self, kind: Reduce, a: Value, reduced: &[i64]) -> Value {
        let elem = a.ty().elem();
        let name = match (kind, elem.is_float()) {
            (Reduce::Add, _) => "add",
            (Reduce::Max, true) => "maximumf",
            (Reduce::Min, true) => "minimumf",
            (Reduce::Max, false) => "maxsi",
            (Reduce::Min, false) => "minsi",
            (Reduce::Or, _) => "or",
        };
        let identity = kind.identity(elem);
        let identity =
            identity.unwrap_or_else(|| panic!("{kind:?} does not combine elements of type {elem}"));
        let result = without_dimensions(a.ty(), reduced).unwrap_or_else(|reason| panic!("{reason}"));
        self.builder
            .op("vector.multi_reduction")
            .operands([a, Value::constant(result, identity)])
            .attribute("kind", Attribute::Enum("vector.kind<", name))
            .attribute("reduction_dims", Attribute::Integers("i64", reduced.to_vec()))
            .result(result)
    }

    /// Returns a scalar: whether any element of the mask is true.
    #[track_caller]
    pub fn any(&self, mask: Value) -> Value {
        let ones = self.choose(mask, self.f32(1.0), self.f32(0.0));
        let most = self.over_all(Reduce::Max, ones);
        self.above(most, self.f32(0.0))
    }

    /// Like [`any`](Kernel::any), but the mask has one value per row. All lanes and stripes of a row must contain the
    /// same value, because only one of them is read.
    #[track_caller]
    pub fn any_row(&self, mask: Value) -> Value {
        let ones = self.choose(mask, self.f32(1.0), self.f32(0.0));
        self.above(self.largest_of_rows(ones), self.f32(0.0))
    }

    /// Returns the largest of the floats of the rows, as a scalar. All lanes and stripes of a row must contain the same
    /// value, because only one of them is read.
    pub fn largest_of_rows(&self, a: Value) -> Value {
        if self.rows == SUBLANES {
            return self.over_all(Reduce::Max, a);
        }
        let (mut a, mut by) = (self.splat(a), 1);
        while by < self.rows {
            a = self.combined(Reduce::Max, a, self.rotate_sublanes(a, by));
            by *= 2;
        }
        self.scalar(a)
    }

    /// Returns `if_true` where the mask is true, and `if_false` elsewhere. The values can have any type.
    #[track_caller]
    pub fn choose(&self, mask: Value, if_true: Value, if_false: Value) -> Value {
        self.choice(mask, if_true, if_false)
    }

    /// Returns the integer 1 where the mask is true, and 0 elsewhere.
    #[track_caller]
    pub fn one_where(&self, mask: Value) -> Value {
        self.choose(mask, self.i32(1), self.i32(0))
    }

    /// Rounds down.
    #[track_caller]
    pub fn floor(&self, a: Value) -> Value {
        self.builder.op("math.floor").operands([a]).result(a.ty())
    }

    /// Converts to the nearest integer. Ties go to the even integer.
    #[track_caller]
    pub fn rounded(&self, a: Value) -> Value {
        self.builder
            .op("tpu.fptosi")
            .operands([a])
            .attribute("rounding_mode", Attribute::Enum("tpu.rounding_mode<", "to_nearest_even"))
            .result(a.ty().with_elem(Elem::I32))
    }

    /// Converts a scalar float to an integer. The float must be a whole number.
    pub fn truncate_scalar(&self, a: Value) -> Value {
        self.converted(a, Elem::I32)
    }

    /// Starts an operation that accesses `memory` at row 0 and column `lane`. The operands `first` come before the
    /// memory.
    fn access(&self, name: &'static str, first: &[Value], memory: &Memory, lane: Value) -> Pending<'_> {
        let place = [memory.value, self.index(self.i32(0)), self.index(lane)];
        self.builder.op(name).operands([first, &place].concat())
    }

    fn load_as(&self, memory: &Memory, lane: Value, ty: Type) -> Value {
        self.access("vector.load", &[], memory, lane).result(ty)
    }

    /// Loads a register from `[8, n]` memory. Its first lane is column `lane`. Converts bf16 to f32, which is exact.
    pub fn load(&self, memory: &Memory, lane: Value) -> Value {
        let loaded = self.load_as(memory, lane, register(memory.elem()));
        match memory.elem() {
            Elem::Bf16 => self.converted(loaded, Elem::F32),
            _ => loaded,
        }
    }

    /// Loads a packed register from `[8, n]` memory of 16-bit elements, without a conversion. Its first lane is column
    /// `lane`, which is a multiple of [`PACKED_LANES`]. Some cores can compute with packed floats. Then one instruction
    /// processes 256 columns.
    pub fn load_packed(&self, memory: &Memory, lane: Value) -> Value {
        self.load_as(memory, lane, Type::vector(memory.elem(), &[SUBLANES, PACKED_LANES]))
    }

    /// Returns the two halves of a packed register of floats, as f32.
    pub fn unpacked(&self, a: Value) -> [Value; 2] {
        let wide = self.converted(a, Elem::F32);
        let pair = |numbers: [usize; 2]| Attribute::List(numbers.map(Attribute::i64).to_vec());
        [0, LANES].map(|lane| {
            self.builder
                .op("vector.extract_strided_slice")
                .operands([wide])
                .attribute("offsets", pair([0, lane]))
                .attribute("sizes", pair([SUBLANES, LANES]))
                .attribute("strides", pair([1, 1]))
                .result(register(Elem::F32))
        })
    }

    /// Stores a register or a packed register in `[8, n]` memory. Its first lane goes to column `lane`.
    pub fn store(&self, memory: &Memory, lane: Value, value: Value) {
        let value = if value.ty().dims().is_empty() { self.splat(value) } else { value };
        self.access("tpu.vector_store", &[value], memory, lane)
            .attribute("add", Attribute::Bool(false))
            .attribute("operandSegmentSizes", segments([1, 1, 2, 0]))
            .attribute("strides", Attribute::Integers("i32", Vec::new()))
            .no_result();
    }

    /// Loads a scalar from `[n]` memory in SMEM.
    pub fn load_scalar(&self, memory: &Memory, at: Value) -> Value {
        let operands = [memory.value, self.index(at)];
        self.builder.op("memref.load").operands(operands).result(Type::scalar(memory.elem()))
    }

    /// Stores a scalar in `[n]` memory in SMEM.
    pub fn store_scalar(&self, memory: &Memory, at: Value, value: Value) {
        self.builder.op("memref.store").operands([value, memory.value, self.index(at)]).no_result();
    }

    /// Tells the compiler that `value` is a multiple of `of`.
    pub fn multiple(&self, value: Value, of: usize) -> Value {
        self.builder
            .op("tpu.assume_multiple")
            .operands([value])
            .attribute("multiple", Attribute::Integer(of as i64, "i32"))
            .result(value.ty())
    }

    /// Returns the part of `memory` that starts at `at` and has the sizes `dims`.
    pub fn slice(&self, memory: &Memory, at: &[Value], dims: &[usize]) -> Memory {
        let operands = [&[memory.value], at].concat();
        let part = self
            .builder
            .op("tpu.memref_slice")
            .operands(operands)
            .attribute("operandSegmentSizes", segments([1, at.len() as i64, 0]))
            .result(memory.value.ty().with_dims(dims));
        Memory::new(part)
    }

    /// Returns `count` registers of `[8, n]` memory, starting at register `at`. Loads from the result at constant
    /// offsets need no address arithmetic. This matters because an instruction bundle has little space for address
    /// arithmetic.
    pub fn registers(&self, memory: &Memory, at: Value, count: usize) -> Memory {
        let lane = match at.literal() {
            Some(register) => self.i32(register as i32 * LANES as i32),
            None => self.multiple(self.mul(at, self.i32(LANES as i32)), LANES),
        };
        self.slice(memory, &[self.i32(0), lane], &[SUBLANES, count * LANES])
    }

    /// Returns element `at` of the first dimension.
    pub fn element(&self, memory: &Memory, at: Value) -> Memory {
        let mut start = vec![self.i32(0); memory.dims().len()];
        start[0] = at;
        let mut dims = memory.dims().to_vec();
        dims[0] = 1;
        let sliced = self.slice(memory, &start, &dims);
        let ty = memory.value.ty().with_dims(&dims[1..]);
        Memory::new(self.builder.op("tpu.memref_squeeze").operands([sliced.value]).result(ty))
    }

    /// Starts a copy. `semaphore` counts the data that has arrived.
    pub fn start_copy(&self, from: &Memory, to: &Memory, semaphore: &Memory) {
        self.builder
            .op("tpu.enqueue_dma")
            .operands([from, to, semaphore].map(|memory| memory.value))
            .attribute("operandSegmentSizes", segments([1, 0, 1, 1, 0, 0, 0]))
            .attribute("priority", Attribute::Integer(0, "i32"))
            .attribute("strict_ordering", Attribute::Bool(false))
            .no_result();
    }

    /// Waits for a copy that [`start_copy`](Kernel::start_copy) started with the same arguments.
    pub fn wait_copy(&self, from: &Memory, to: &Memory, semaphore: &Memory) {
        self.builder
            .op("tpu.wait_dma2")
            .operands([semaphore, from, to].map(|memory| memory.value))
            .attribute("operandSegmentSizes", segments([1, 1, 1, 0, 0]))
            .attribute("strict_ordering", Attribute::Bool(false))
            .no_result();
    }

    /// Runs `for index in 0..count` over a state that begins as `start`. Returns the last state.
    pub fn for_each<const N: usize>(
        &self,
        label: &str,
        count: Value,
        start: [Value; N],
        body: impl FnOnce(Value, [Value; N]) -> [Value; N],
    ) -> [Value; N] {
        fixed(&self.for_each_of(label, count, &start, |index, state| body(index, fixed(state)).to_vec()))
    }

    /// Like [`for_each`](Kernel::for_each), but over a state whose length is not known at Rust's compile time.
    pub fn for_each_of(
        &self,
        label: &str,
        count: Value,
        start: &[Value],
        body: impl FnOnce(Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        match count.literal() {
            Some(0) => return start.to_vec(),
            // libtpu would also remove a loop with one iteration. The loop is removed here so that the text shows only
            // loops that run.
            Some(1) => {
                self.comment(label);
                return body(self.i32(0), start);
            }
            _ => {}
        }
        upstream::for_each(&self.builder, label, [self.i32(0), count, self.i32(1)], start, body)
    }

    /// Runs `while condition(state) { state = body(state) }`. Returns the last state.
    pub fn while_loop<const N: usize>(
        &self,
        label: &str,
        start: [Value; N],
        condition: impl FnOnce([Value; N]) -> Value,
        body: impl FnOnce([Value; N]) -> [Value; N],
    ) -> [Value; N] {
        let condition = |state: &[Value]| condition(fixed(state));
        let body = |state: &[Value]| body(fixed(state)).to_vec();
        fixed(&self.builder.while_loop(&upstream::WHILE, Some(label), &start, condition, body))
    }

    /// Runs `if condition { then() } else { otherwise() }`. Both functions must return values of the same types.
    pub fn if_else(
        &self,
        label: &str,
        condition: Value,
        then: impl FnOnce() -> Vec<Value>,
        otherwise: impl FnOnce() -> Vec<Value>,
    ) -> Vec<Value> {
        upstream::if_else(&self.builder, label, condition, then, otherwise)
    }

    /// Runs `if condition { then() }`.
    pub fn when(&self, label: &str, condition: Value, then: impl FnOnce()) {
        let then = || {
            then();
            Vec::new()
        };
        self.if_else(label, condition, then, Vec::new);
    }
}

/// Returns the number of operands in each group of an operation's operands.
fn segments<const N: usize>(sizes: [i64; N]) -> Attribute {
    Attribute::Integers("i32", sizes.to_vec())
}

impl Elementwise for Kernel {
    const SELECT: &'static str = "arith.select";
    const SCALAR_MASKS: bool = true;
    const BITCAST: &'static str = "tpu.bitcast";

    fn builder(&self) -> &Builder {
        &self.builder
    }

    fn scalar(elem: Elem) -> Type {
        Type::scalar(elem)
    }

    fn binary_name(operation: Binary, elem: Elem) -> &'static str {
        upstream::binary_name(operation, elem)
    }

    fn comparison(predicate: Predicate, elem: Elem) -> (&'static str, Attributes) {
        upstream::comparison(predicate, elem)
    }

    fn conversion(from: Elem, to: Elem) -> &'static str {
        upstream::conversion(from, to)
    }

    fn repeat(&self, value: Value, ty: Type) -> Value {
        self.builder.op("vector.broadcast").operands([value]).result(ty)
    }

    // This is one operation instead of two. If `a` is NaN, the result does not matter, because the entry is masked.
    fn limited(&self, a: Value, limit: f32) -> Value {
        self.fmin(a, self.f32(limit))
    }

    // This takes one conversion and one rounding. A conversion that truncates takes five operations, because it must
    // handle signs.
    fn truncated(&self, a: Value) -> Value {
        self.rounded(self.floor(a))
    }

    fn at_most_equal(&self, a: Value, b: Value) -> Value {
        self.ge(b, a)
    }
}

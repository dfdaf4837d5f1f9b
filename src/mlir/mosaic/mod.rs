//! A builder of Mosaic kernels: what a TPU core runs, as MLIR in the dialects that libtpu compiles.
//!
//! Everything is 32 bits wide and a vector is one vector register, `8 x 128`: rows of a block along its sublanes,
//! entries of a row along its lanes. A value that belongs to a row is a register that holds it in every lane. The
//! builder implements [`Arith`] and [`WideArith`], so the sampling contract emits itself.
//!
//! Two forms of the text are written from the same operations: the versioned one, which libtpu promises to read
//! (`stable_mosaic.arith.addi`), and the plain one, to be read by people.

mod arith;
mod print;
pub mod wide;

use std::cell::RefCell;
use std::collections::HashMap;

/// Rows of a register.
pub const SUBLANES: usize = 8;
/// Entries of a row in a register.
pub const LANES: usize = 128;

/// Element types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Elem {
    I1,
    I32,
    F32,
    Bf16,
    Index,
    DmaSemaphore,
}

/// Shapes of values: what a kernel computes with is scalar or a whole register; the others occur on the way from
/// one to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Shape {
    Scalar,
    Register,
    /// `8 x 1`: one lane of a register.
    Column,
    /// `8`: what a reduction over lanes leaves.
    Rows,
    /// `1 x 8 x 128`, to reduce all of a register.
    Block,
    /// `1`: what that leaves.
    One,
}

/// Type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Type {
    elem: Elem,
    shape: Shape,
}

const I32: Type = Type { elem: Elem::I32, shape: Shape::Scalar };
const REGISTER: Type = Type { elem: Elem::I32, shape: Shape::Register };

impl Type {
    fn with(self, elem: Elem) -> Type {
        Type { elem, ..self }
    }

    fn shaped(self, shape: Shape) -> Type {
        Type { shape, ..self }
    }
}

/// A value of the kernel under construction, or a constant, which takes the shape of what it meets.
#[derive(Clone, Copy, Debug)]
pub struct Value {
    ty: Type,
    source: Source,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    /// The number of an SSA value.
    Id(u32),
    /// A constant's bits.
    Literal(u32),
}

/// Where a memory reference points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Space {
    /// HBM, reached by DMA alone.
    Any,
    Vmem,
    Smem,
    Semaphore,
}

/// A reference to memory.
#[derive(Clone, Debug)]
pub struct Memory {
    id: u32,
    elem: Elem,
    dims: Vec<usize>,
    space: Space,
}

impl Memory {
    /// Its dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Type of its elements.
    pub fn elem(&self) -> Elem {
        self.elem
    }
}

/// How lanes are reduced: none of them depends on the order, floats being whole numbers below 2²⁴ where they are
/// added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Reduce {
    Add,
    Max,
    Min,
}

#[derive(Clone, Debug)]
enum Operand {
    Value(u32, Type),
    Memory(Memory),
}

/// One operation, with the text of each attribute in both forms.
#[derive(Clone, Debug)]
struct Operation {
    name: &'static str,
    results: Vec<(u32, Type)>,
    memory_result: Option<Memory>,
    operands: Vec<Operand>,
    attributes: Vec<(&'static str, String)>,
    regions: Vec<Region>,
    /// What a loop or a branch is for.
    label: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Region {
    arguments: Vec<(u32, Type)>,
    body: Vec<Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Operation(Operation),
    Comment(String),
}

#[derive(Default)]
struct State {
    next_id: u32,
    open: Vec<Region>,
    constants: Vec<Operation>,
    constant_ids: HashMap<(Type, u32), u32>,
}

/// An argument of the kernel: a block of an operand that Mosaic brings into VMEM, or an operand left in HBM.
struct Parameter {
    memory: Memory,
    /// Rows of the operand move with the grid step.
    window: bool,
}

/// The builder. Methods take `&self`, so that nested calls read like expressions.
#[derive(Default)]
pub struct Kernel {
    state: RefCell<State>,
    parameters: RefCell<Vec<Parameter>>,
    scratch: RefCell<Vec<Memory>>,
}

impl Kernel {
    /// An empty kernel, which runs once for each block of rows.
    pub fn new() -> Kernel {
        let kernel = Kernel::default();
        {
            let mut state = kernel.state.borrow_mut();
            // Value 0 is the grid step.
            state.next_id = 1;
            state.open.push(Region::default());
        }
        kernel
    }

    /// The block of rows that this step works on.
    pub fn step(&self) -> Value {
        Value { ty: I32, source: Source::Id(0) }
    }

    fn id(&self) -> u32 {
        let mut state = self.state.borrow_mut();
        state.next_id += 1;
        state.next_id - 1
    }

    fn memory(&self, elem: Elem, dims: &[usize], space: Space) -> Memory {
        Memory { id: self.id(), elem, dims: dims.to_vec(), space }
    }

    /// An operand of which each step sees its own eight rows, in VMEM: `[8, width]`. Operands are declared in the
    /// order of the call, results after them.
    pub fn window(&self, elem: Elem, width: usize) -> Memory {
        let memory = self.memory(elem, &[SUBLANES, width], Space::Vmem);
        self.parameters.borrow_mut().push(Parameter { memory: memory.clone(), window: true });
        memory
    }

    /// An operand left in HBM.
    pub fn in_hbm(&self, elem: Elem, dims: &[usize]) -> Memory {
        let memory = self.memory(elem, dims, Space::Any);
        self.parameters.borrow_mut().push(Parameter { memory: memory.clone(), window: false });
        memory
    }

    /// Memory of the kernel's own. It keeps its contents from step to step, and starts with anything in it.
    pub fn scratch(&self, elem: Elem, dims: &[usize], space: Space) -> Memory {
        let memory = self.memory(elem, dims, space);
        self.scratch.borrow_mut().push(memory.clone());
        memory
    }

    fn push(&self, operation: Operation) {
        let mut state = self.state.borrow_mut();
        let region = state.open.last_mut().expect("a region is open until the kernel is finished");
        region.body.push(Node::Operation(operation));
    }

    /// A remark for whoever reads the plain text.
    pub fn comment(&self, text: impl Into<String>) {
        let mut state = self.state.borrow_mut();
        let region = state.open.last_mut().expect("a region is open until the kernel is finished");
        region.body.push(Node::Comment(text.into()));
    }

    fn operation(
        &self,
        name: &'static str,
        operands: Vec<Operand>,
        results: &[Type],
        attributes: Vec<(&'static str, String)>,
        regions: Vec<Region>,
        label: Option<&str>,
    ) -> Vec<Value> {
        let results: Vec<(u32, Type)> = results.iter().map(|&ty| (self.id(), ty)).collect();
        self.push(Operation {
            name,
            results: results.clone(),
            memory_result: None,
            operands,
            attributes,
            regions,
            label: label.map(str::to_owned),
        });
        results.into_iter().map(|(id, ty)| Value { ty, source: Source::Id(id) }).collect()
    }

    fn op(&self, name: &'static str, operands: &[Value], result: Type) -> Value {
        self.op_with(name, operands, result, Vec::new())
    }

    fn op_with(
        &self,
        name: &'static str,
        operands: &[Value],
        result: Type,
        attributes: Vec<(&'static str, String)>,
    ) -> Value {
        let operands = operands.iter().map(|&v| self.operand(v)).collect();
        self.operation(name, operands, &[result], attributes, Vec::new(), None)[0]
    }

    /// A value that the text can name; a constant as the scalar or register that its type says.
    fn operand(&self, value: Value) -> Operand {
        let id = match value.source {
            Source::Id(id) => id,
            Source::Literal(bits) => self.constant(value.ty, bits),
        };
        Operand::Value(id, value.ty)
    }

    fn constant(&self, ty: Type, bits: u32) -> u32 {
        if let Some(&id) = self.state.borrow().constant_ids.get(&(ty, bits)) {
            return id;
        }
        let id = self.id();
        let operation = Operation {
            name: "arith.constant",
            results: vec![(id, ty)],
            memory_result: None,
            operands: Vec::new(),
            attributes: vec![("value", print::literal(ty, bits))],
            regions: Vec::new(),
            label: None,
        };
        let mut state = self.state.borrow_mut();
        state.constants.push(operation);
        state.constant_ids.insert((ty, bits), id);
        id
    }

    fn index(&self, value: Value) -> Value {
        match value.source {
            Source::Literal(_) => Value { ty: value.ty.with(Elem::Index), ..value },
            Source::Id(_) if value.ty.elem == Elem::Index => value,
            Source::Id(_) => self.op("arith.index_cast", &[value], I32.with(Elem::Index)),
        }
    }

    /// The integer constant, scalar until it meets a register.
    pub fn i32(&self, value: i32) -> Value {
        Value { ty: I32, source: Source::Literal(value as u32) }
    }

    /// The float constant, scalar until it meets a register.
    pub fn f32(&self, value: f32) -> Value {
        Value { ty: I32.with(Elem::F32), source: Source::Literal(value.to_bits()) }
    }

    /// A truth value.
    pub fn bool(&self, value: bool) -> Value {
        Value { ty: I32.with(Elem::I1), source: Source::Literal(value.into()) }
    }

    /// The float below all others, in a type that logits come in.
    pub fn negative_infinity(&self, elem: Elem) -> Value {
        let bits = if elem == Elem::Bf16 { 0xff80 } else { f32::NEG_INFINITY.to_bits() };
        Value { ty: I32.with(elem), source: Source::Literal(bits) }
    }

    /// A register full of `value`.
    pub fn splat(&self, value: Value) -> Value {
        self.shaped(value, Shape::Register)
    }

    fn shaped(&self, value: Value, shape: Shape) -> Value {
        if value.ty.shape == shape {
            return value;
        }
        let ty = value.ty.shaped(shape);
        match value.source {
            Source::Literal(_) => Value { ty, ..value },
            Source::Id(_) => self.op("vector.broadcast", &[value], ty),
        }
    }

    /// Gives both the same shape.
    fn matched(&self, a: Value, b: Value) -> (Value, Value) {
        let register = a.ty.shape == Shape::Register || b.ty.shape == Shape::Register;
        let shape = if register { Shape::Register } else { a.ty.shape };
        (self.shaped(a, shape), self.shaped(b, shape))
    }

    fn binary(&self, name: &'static str, a: Value, b: Value) -> Value {
        let (a, b) = self.matched(a, b);
        self.op(name, &[a, b], a.ty)
    }

    fn compare(&self, name: &'static str, predicate: u32, a: Value, b: Value) -> Value {
        let (a, b) = self.matched(a, b);
        let attributes = vec![("predicate", format!("{predicate} : i64"))];
        self.op_with(name, &[a, b], a.ty.with(Elem::I1), attributes)
    }

    /// The lane that an entry is in.
    pub fn lane(&self) -> Value {
        let attributes = vec![("dimensions", "array<i32: 1>".to_owned())];
        self.op_with("tpu.iota", &[], REGISTER, attributes)
    }

    /// The row of the block that an entry is in.
    pub fn sublane(&self) -> Value {
        let attributes = vec![("dimensions", "array<i32: 0>".to_owned())];
        self.op_with("tpu.iota", &[], REGISTER, attributes)
    }

    /// `a * b`, wrapping.
    pub fn mul(&self, a: Value, b: Value) -> Value {
        self.binary("arith.muli", a, b)
    }

    /// The larger.
    pub fn max(&self, a: Value, b: Value) -> Value {
        self.binary("arith.maxsi", a, b)
    }

    /// The smaller.
    pub fn min(&self, a: Value, b: Value) -> Value {
        self.binary("arith.minsi", a, b)
    }

    /// The larger. By MLIR's definition a NaN where either is one, which tells of a row's NaN; a test of the hardware
    /// (docs/hardware-checklist.md) asks whether it is so.
    pub fn fmax(&self, a: Value, b: Value) -> Value {
        self.binary("arith.maximumf", a, b)
    }

    /// The smaller; only where neither is NaN.
    pub fn fmin(&self, a: Value, b: Value) -> Value {
        self.binary("arith.minimumf", a, b)
    }

    /// A sum of floats: of whole numbers below 2²⁴, or one of which only counts whether it is NaN.
    pub fn fadd(&self, a: Value, b: Value) -> Value {
        self.binary("arith.addf", a, b)
    }

    /// A quotient, to guess with.
    pub fn divide(&self, a: Value, b: Value) -> Value {
        self.binary("arith.divf", a, b)
    }

    /// `a >= b`; false where either is NaN.
    pub fn at_least(&self, a: Value, b: Value) -> Value {
        self.compare("arith.cmpf", 3, a, b)
    }

    /// `a > b`; false where either is NaN.
    pub fn above(&self, a: Value, b: Value) -> Value {
        self.compare("arith.cmpf", 2, a, b)
    }

    /// `a >= b`, signed.
    pub fn ge(&self, a: Value, b: Value) -> Value {
        self.compare("arith.cmpi", 5, a, b)
    }

    /// `a != b`.
    pub fn ne(&self, a: Value, b: Value) -> Value {
        self.compare("arith.cmpi", 1, a, b)
    }

    /// The bits of a float.
    pub fn bits(&self, a: Value) -> Value {
        self.op("tpu.bitcast", &[a], a.ty.with(Elem::I32))
    }

    /// The entries of each row, `by` lanes further on, round the end.
    pub fn rotate(&self, a: Value, by: Value) -> Value {
        let attributes = vec![("dimension", "1 : si32".to_owned())];
        let a = self.splat(a);
        self.op_with("tpu.dynamic_rotate", &[a, by], a.ty, attributes)
    }

    /// One lane of each row, in all of its lanes.
    pub fn lane_of(&self, memory: &Memory, lane: usize) -> Value {
        let column = Type { elem: memory.elem, shape: Shape::Column };
        let (row, lane) = (self.i32(0), self.i32(lane as i32));
        let loaded = self.load_as(memory, &[row, lane], column);
        self.op("vector.broadcast", &[loaded], column.shaped(Shape::Register))
    }

    /// Reduces each row over its lanes; the result is in all of them.
    pub fn over_lanes(&self, kind: Reduce, a: Value) -> Value {
        let a = self.splat(a);
        let ty = a.ty.shaped(Shape::Rows);
        let rows = self.multi_reduction(kind, a, ty, "array<i64: 1>");
        let column = self.op("vector.shape_cast", &[rows], ty.shaped(Shape::Column));
        self.op("vector.broadcast", &[column], a.ty)
    }

    /// Reduces a register to a scalar. Floats only: that is what the hardware has.
    pub fn over_all(&self, kind: Reduce, a: Value) -> Value {
        let a = self.splat(a);
        let block = self.op("vector.shape_cast", &[a], a.ty.shaped(Shape::Block));
        let one = self.multi_reduction(kind, block, a.ty.shaped(Shape::One), "array<i64: 1, 2>");
        let attributes = vec![("static_position", "array<i64: 0>".to_owned())];
        self.op_with("vector.extract", &[one], a.ty.shaped(Shape::Scalar), attributes)
    }

    fn multi_reduction(&self, kind: Reduce, a: Value, result: Type, dims: &str) -> Value {
        let float = a.ty.elem == Elem::F32;
        let (name, identity) = match (kind, float) {
            (Reduce::Add, _) => ("add", 0),
            (Reduce::Max, true) => ("maximumf", f32::NEG_INFINITY.to_bits()),
            (Reduce::Min, true) => ("minimumf", f32::INFINITY.to_bits()),
            (Reduce::Max, false) => ("maxsi", i32::MIN as u32),
            (Reduce::Min, false) => ("minsi", i32::MAX as u32),
        };
        let start = Value { ty: result, source: Source::Literal(identity) };
        let attributes = vec![("kind", format!("#vector.kind<{name}>")), ("reduction_dims", dims.to_owned())];
        self.op_with("vector.multi_reduction", &[a, start], result, attributes)
    }

    /// Whether the mask holds anywhere: a scalar.
    pub fn any(&self, mask: Value) -> Value {
        let ones = self.choose(mask, self.f32(1.0), self.f32(0.0));
        let most = self.over_all(Reduce::Max, ones);
        self.above(most, self.f32(0.0))
    }

    /// `if_true` where the mask holds, else `if_false`, of any one type.
    pub fn choose(&self, mask: Value, if_true: Value, if_false: Value) -> Value {
        let shape = if mask.ty.shape == Shape::Register { Shape::Register } else { if_true.ty.shape };
        let (if_true, if_false) = self.matched(self.shaped(if_true, shape), if_false);
        self.op("arith.select", &[mask, if_true, if_false], if_true.ty)
    }

    /// Rounds down.
    pub fn floor(&self, a: Value) -> Value {
        self.op("math.floor", &[a], a.ty)
    }

    /// Rounds toward zero a float in `[0, 2^31)`.
    fn truncate(&self, a: Value) -> Value {
        // One conversion and one rounding; the conversion that truncates is five operations, for signs.
        let floor = self.floor(a);
        let attributes = vec![("rounding_mode", "#tpu.rounding_mode<to_nearest_even>".to_owned())];
        self.op_with("tpu.fptosi", &[floor], a.ty.with(Elem::I32), attributes)
    }

    /// A scalar float that is a whole number, as an integer.
    pub fn truncate_scalar(&self, a: Value) -> Value {
        self.op("arith.fptosi", &[a], a.ty.with(Elem::I32))
    }

    fn load_as(&self, memory: &Memory, at: &[Value], ty: Type) -> Value {
        let mut operands = vec![Operand::Memory(memory.clone())];
        operands.extend(at.iter().map(|&v| self.operand(self.index(v))));
        self.operation("vector.load", operands, &[ty], Vec::new(), Vec::new(), None)[0]
    }

    /// A register from `[8, n]` memory, its first lane at column `lane`; narrow floats widen, exactly.
    pub fn load(&self, memory: &Memory, lane: Value) -> Value {
        let ty = Type { elem: memory.elem, shape: Shape::Register };
        let row = self.i32(0);
        let loaded = self.load_as(memory, &[row, lane], ty);
        match memory.elem {
            Elem::Bf16 => self.op("arith.extf", &[loaded], ty.with(Elem::F32)),
            _ => loaded,
        }
    }

    /// Writes a register to `[8, n]` memory.
    pub fn store(&self, memory: &Memory, lane: Value, value: Value) {
        let value = self.shaped(value, Shape::Register);
        let row = self.i32(0);
        let operands = vec![
            self.operand(value),
            Operand::Memory(memory.clone()),
            self.operand(self.index(row)),
            self.operand(self.index(lane)),
        ];
        let attributes = vec![
            ("add", "false".to_owned()),
            ("operandSegmentSizes", "array<i32: 1, 1, 2, 0>".to_owned()),
            ("strides", "array<i32>".to_owned()),
        ];
        self.operation("tpu.vector_store", operands, &[], attributes, Vec::new(), None);
    }

    /// Reads a scalar.
    pub fn get(&self, memory: &Memory, at: Value) -> Value {
        let operands = vec![Operand::Memory(memory.clone()), self.operand(self.index(at))];
        let ty = Type { elem: memory.elem, shape: Shape::Scalar };
        self.operation("memref.load", operands, &[ty], Vec::new(), Vec::new(), None)[0]
    }

    /// Writes a scalar.
    pub fn set(&self, memory: &Memory, at: Value, value: Value) {
        let operands =
            vec![self.operand(value), Operand::Memory(memory.clone()), self.operand(self.index(at))];
        self.operation("memref.store", operands, &[], Vec::new(), Vec::new(), None);
    }

    /// Promises the compiler that `value` is a multiple.
    pub fn multiple(&self, value: Value, of: usize) -> Value {
        let attributes = vec![("multiple", format!("{of} : i32"))];
        self.op_with("tpu.assume_multiple", &[value], I32, attributes)
    }

    fn memory_operation(
        &self,
        name: &'static str,
        operands: Vec<Operand>,
        result: &Memory,
        attributes: Vec<(&'static str, String)>,
    ) {
        self.push(Operation {
            name,
            results: Vec::new(),
            memory_result: Some(result.clone()),
            operands,
            attributes,
            regions: Vec::new(),
            label: None,
        });
    }

    /// A part of `memory`, `dims` long from `at` in each dimension.
    pub fn slice(&self, memory: &Memory, at: &[Value], dims: &[usize]) -> Memory {
        let result = self.memory(memory.elem, dims, memory.space);
        let mut operands = vec![Operand::Memory(memory.clone())];
        operands.extend(at.iter().map(|&v| self.operand(v)));
        let segments = format!("array<i32: 1, {}, 0>", at.len());
        self.memory_operation("tpu.memref_slice", operands, &result, vec![("operandSegmentSizes", segments)]);
        result
    }

    /// `count` registers of `[8, n]` memory, from register `at` on. Loads from it at constant places cost no
    /// address arithmetic, of which a bundle has room for little.
    pub fn registers(&self, memory: &Memory, at: Value, count: usize) -> Memory {
        let lane = match at.source {
            Source::Literal(register) => self.i32(register as i32 * LANES as i32),
            Source::Id(_) => self.multiple(self.mul(at, self.i32(LANES as i32)), LANES),
        };
        self.slice(memory, &[self.i32(0), lane], &[SUBLANES, count * LANES])
    }

    /// Element `at` of the first dimension.
    pub fn element(&self, memory: &Memory, at: Value) -> Memory {
        let mut start = vec![self.i32(0); memory.dims.len()];
        start[0] = at;
        let mut dims = memory.dims.clone();
        dims[0] = 1;
        let sliced = self.slice(memory, &start, &dims);
        let result = self.memory(memory.elem, &dims[1..], memory.space);
        self.memory_operation("tpu.memref_squeeze", vec![Operand::Memory(sliced)], &result, Vec::new());
        result
    }

    /// Starts a copy, which raises `semaphore` when it is done.
    pub fn start_copy(&self, from: &Memory, to: &Memory, semaphore: &Memory) {
        let operands = [from, to, semaphore].map(|memory| Operand::Memory(memory.clone()));
        let attributes = vec![
            ("operandSegmentSizes", "array<i32: 1, 0, 1, 1, 0, 0, 0>".to_owned()),
            ("priority", "0 : i32".to_owned()),
            ("strict_ordering", "false".to_owned()),
        ];
        self.operation("tpu.enqueue_dma", operands.to_vec(), &[], attributes, Vec::new(), None);
    }

    /// Waits for a copy that [`start_copy`](Kernel::start_copy) started with the same arguments.
    pub fn wait_copy(&self, from: &Memory, to: &Memory, semaphore: &Memory) {
        let operands = [semaphore, from, to].map(|memory| Operand::Memory(memory.clone()));
        let attributes = vec![
            ("operandSegmentSizes", "array<i32: 1, 1, 1, 0, 0>".to_owned()),
            ("strict_ordering", "false".to_owned()),
        ];
        self.operation("tpu.wait_dma2", operands.to_vec(), &[], attributes, Vec::new(), None);
    }

    fn region(
        &self,
        arguments: &[Type],
        ending: &'static str,
        body: impl FnOnce(&[Value]) -> Vec<Value>,
    ) -> Region {
        let arguments: Vec<(u32, Type)> = arguments.iter().map(|&ty| (self.id(), ty)).collect();
        let values: Vec<Value> =
            arguments.iter().map(|&(id, ty)| Value { ty, source: Source::Id(id) }).collect();
        self.state.borrow_mut().open.push(Region { arguments, body: Vec::new() });
        let results = body(&values);
        let operands = results.into_iter().map(|v| self.operand(v)).collect();
        self.operation(ending, operands, &[], Vec::new(), Vec::new(), None);
        self.state.borrow_mut().open.pop().expect("pushed above")
    }

    /// `for index in 0..count`, from `start` to the state that the last turn returns.
    pub fn for_each<const N: usize>(
        &self,
        label: &str,
        count: Value,
        start: [Value; N],
        body: impl FnOnce(Value, [Value; N]) -> [Value; N],
    ) -> [Value; N] {
        let state = self.for_each_of(label, count, &start, |index, state| {
            body(index, state.try_into().expect("as many as the loop began with")).to_vec()
        });
        state.try_into().expect("as many as the loop began with")
    }

    /// [`for_each`](Kernel::for_each) over a state whose length the emitter decides.
    pub fn for_each_of(
        &self,
        label: &str,
        count: Value,
        start: &[Value],
        body: impl FnOnce(Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        match count.source {
            Source::Literal(0) => return start.to_vec(),
            // What the compiler would do, so that the text has the loops that the schedule has.
            Source::Literal(1) => {
                self.comment(label);
                return body(self.i32(0), start);
            }
            _ => {}
        }
        let types: Vec<Type> = start.iter().map(|v| v.ty).collect();
        let mut arguments = vec![I32];
        arguments.extend(&types);
        let region = self.region(&arguments, "scf.yield", |values| body(values[0], &values[1..]));
        let bounds = [self.i32(0), count, self.i32(1)];
        let operands = bounds.iter().chain(start).map(|&v| self.operand(v)).collect();
        self.operation("scf.for", operands, &types, Vec::new(), vec![region], Some(label))
    }

    /// `while condition(state) { state = body(state) }`.
    pub fn while_loop<const N: usize>(
        &self,
        label: &str,
        start: [Value; N],
        condition: impl FnOnce([Value; N]) -> Value,
        body: impl FnOnce([Value; N]) -> [Value; N],
    ) -> [Value; N] {
        let array = |values: &[Value]| -> [Value; N] { values.try_into().expect("the state's length") };
        let types: Vec<Type> = start.iter().map(|v| v.ty).collect();
        let before = self.region(&types, "scf.condition", |state| {
            let mut operands = vec![condition(array(state))];
            operands.extend(state);
            operands
        });
        let after = self.region(&types, "scf.yield", |state| body(array(state)).to_vec());
        let operands = start.iter().map(|&v| self.operand(v)).collect();
        let results =
            self.operation("scf.while", operands, &types, Vec::new(), vec![before, after], Some(label));
        array(&results)
    }

    /// `if condition { then() } else { otherwise() }`; both return values of the same types.
    pub fn if_else(
        &self,
        label: &str,
        condition: Value,
        then: impl FnOnce() -> Vec<Value>,
        otherwise: impl FnOnce() -> Vec<Value>,
    ) -> Vec<Value> {
        let types = RefCell::new(Vec::new());
        let first = self.region(&[], "scf.yield", |_| {
            let results = then();
            types.borrow_mut().extend(results.iter().map(|v| v.ty));
            results
        });
        let second = self.region(&[], "scf.yield", |_| otherwise());
        let operands = vec![self.operand(condition)];
        let types = types.into_inner();
        self.operation("scf.if", operands, &types, Vec::new(), vec![first, second], Some(label))
    }

    /// `if condition { then() }`.
    pub fn when(&self, label: &str, condition: Value, then: impl FnOnce()) {
        self.if_else(
            label,
            condition,
            || {
                then();
                Vec::new()
            },
            Vec::new,
        );
    }
}

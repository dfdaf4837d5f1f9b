//! A small builder of StableHLO programs as MLIR text, so that a kernel reads like its algorithm.
//!
//! Values carry their shapes; an operation on two shapes broadcasts the one that is a prefix of the other along
//! the trailing dimensions (`[batch]` with `[batch, vocab]`), which is the only broadcast that row-wise
//! algorithms need. The builder implements [`Arith`], so the sampling contract emits itself.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write as _;

use crate::semantics::arith::{Arith, WideArith};

/// Element types that the kernels use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Elem {
    I1,
    I32,
    U16,
    U32,
    U64,
    F32,
    Bf16,
    F16,
}

impl Elem {
    fn name(self) -> &'static str {
        match self {
            Elem::I1 => "i1",
            Elem::I32 => "i32",
            Elem::U16 => "ui16",
            Elem::U32 => "ui32",
            Elem::U64 => "ui64",
            Elem::F32 => "f32",
            Elem::Bf16 => "bf16",
            Elem::F16 => "f16",
        }
    }

    fn compare_type(self) -> &'static str {
        match self {
            Elem::I32 => "SIGNED",
            Elem::F32 | Elem::Bf16 | Elem::F16 => "FLOAT",
            Elem::I1 | Elem::U16 | Elem::U32 | Elem::U64 => "UNSIGNED",
        }
    }
}

/// An SSA value of the program under construction.
#[derive(Clone, Copy, Debug)]
pub struct Value {
    id: u32,
    elem: Elem,
    shape: u32,
}

/// How a reduction combines elements; all of them are independent of the order.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Reduce {
    Add,
    Max,
    Min,
    Or,
}

impl Reduce {
    fn op(self) -> &'static str {
        match self {
            Reduce::Add => "stablehlo.add",
            Reduce::Max => "stablehlo.maximum",
            Reduce::Min => "stablehlo.minimum",
            Reduce::Or => "stablehlo.or",
        }
    }

    fn identity(self, elem: Elem) -> &'static str {
        match (self, elem) {
            (Reduce::Add, _) => "0",
            (Reduce::Or, _) => "false",
            (Reduce::Max, Elem::I32) => "-2147483648",
            (Reduce::Max, _) => "0",
            (Reduce::Min, _) => "2147483647",
        }
    }
}

#[derive(Default)]
struct State {
    text: String,
    next_id: u32,
    indent: usize,
    shapes: Vec<Vec<usize>>,
    arguments: Vec<String>,
    /// Scalar constants not yet written, by id: most are only ever broadcast, which writes them whole.
    constants: HashMap<u32, String>,
    /// Values that hold the constants of [`Arith::factor`] at run time, by the constant's bits.
    factors: HashMap<u32, Value>,
}

/// The builder. Methods take `&self`, so that nested calls read like expressions.
#[derive(Default)]
pub struct Hlo {
    state: RefCell<State>,
}

impl Hlo {
    /// An empty program.
    pub fn new() -> Hlo {
        let hlo = Hlo::default();
        hlo.state.borrow_mut().indent = 2;
        hlo
    }

    fn shape_id(&self, dims: &[usize]) -> u32 {
        let shapes = &mut self.state.borrow_mut().shapes;
        let found = shapes.iter().position(|shape| shape == dims);
        found.unwrap_or_else(|| {
            shapes.push(dims.to_vec());
            shapes.len() - 1
        }) as u32
    }

    /// The dimensions of a value.
    pub fn dims(&self, value: Value) -> Vec<usize> {
        self.state.borrow().shapes[value.shape as usize].clone()
    }

    fn new_value(&self, elem: Elem, dims: &[usize]) -> Value {
        let shape = self.shape_id(dims);
        let mut state = self.state.borrow_mut();
        state.next_id += 1;
        Value { id: state.next_id, elem, shape }
    }

    fn type_of(&self, value: Value) -> String {
        type_text(value.elem, &self.dims(value))
    }

    fn line(&self, text: &str) {
        let mut state = self.state.borrow_mut();
        let indent = state.indent * 2;
        let _ = writeln!(state.text, "{:indent$}{text}", "");
    }

    fn emit(&self, elem: Elem, dims: &[usize], operation: impl FnOnce(&str) -> String) -> Value {
        let value = self.new_value(elem, dims);
        let text = operation(&type_text(elem, dims));
        self.line(&format!("%{} = {text}", value.id));
        value
    }

    /// Declares the next argument of the program.
    pub fn argument(&self, elem: Elem, dims: &[usize]) -> Value {
        let value = self.new_value(elem, dims);
        let text = format!("%{}: {}", value.id, type_text(elem, dims));
        self.state.borrow_mut().arguments.push(text);
        value
    }

    /// Lets [`Arith::factor`] of this constant be `value`, which holds it at run time, out of the compiler's sight.
    pub fn bind_factor(&self, constant: f32, value: Value) {
        self.state.borrow_mut().factors.insert(constant.to_bits(), value);
    }

    /// Ends the program, whose results are `results`.
    pub fn finish(&self, name: &str, results: &[Value]) -> String {
        let ids = results.iter().map(|v| format!("%{}", v.id)).collect::<Vec<_>>().join(", ");
        let types = results.iter().map(|&v| self.type_of(v)).collect::<Vec<_>>().join(", ");
        self.line(&format!("return {ids} : {types}"));
        let state = self.state.borrow();
        format!(
            "module @{name} {{\n  func.func public @main({}) -> ({types}) {{\n{}  }}\n}}\n",
            state.arguments.join(", "),
            state.text
        )
    }

    fn constant(&self, elem: Elem, literal: &str) -> Value {
        let value = self.new_value(elem, &[]);
        self.state.borrow_mut().constants.insert(value.id, literal.to_owned());
        value
    }

    /// A value that can be named in the text: a scalar constant is written where it is first needed, which may be
    /// inside a region, so every use gets its own.
    fn written(&self, value: Value) -> Value {
        let literal = self.state.borrow().constants.get(&value.id).cloned();
        match literal {
            Some(literal) => {
                self.emit(value.elem, &[], |ty| format!("stablehlo.constant dense<{literal}> : {ty}"))
            }
            None => value,
        }
    }

    /// Repeats `value` along new trailing dimensions until its shape is `dims`.
    pub fn broadcast(&self, value: Value, dims: &[usize]) -> Value {
        let from = self.dims(value);
        if from == dims {
            return self.written(value);
        }
        assert!(dims.starts_with(&from), "{from:?} is no prefix of {dims:?}");
        let literal = self.state.borrow().constants.get(&value.id).cloned();
        if let Some(literal) = literal {
            return self.emit(value.elem, dims, |ty| format!("stablehlo.constant dense<{literal}> : {ty}"));
        }
        let kept: Vec<usize> = (0..from.len()).collect();
        self.broadcast_in_dim(value, dims, &kept)
    }

    /// Repeats `value` along the dimensions of `dims` that `positions` does not name.
    pub fn broadcast_in_dim(&self, value: Value, dims: &[usize], positions: &[usize]) -> Value {
        let from = self.type_of(value);
        self.emit(value.elem, dims, |ty| {
            format!("stablehlo.broadcast_in_dim %{}, dims = {positions:?} : ({from}) -> {ty}", value.id)
        })
    }

    fn same_shape(&self, a: Value, b: Value) -> (Value, Value, Vec<usize>) {
        let (da, db) = (self.dims(a), self.dims(b));
        let dims = if da.len() >= db.len() { da } else { db };
        (self.broadcast(a, &dims), self.broadcast(b, &dims), dims)
    }

    fn binary(&self, operation: &str, a: Value, b: Value) -> Value {
        let (a, b, dims) = self.same_shape(a, b);
        debug_assert_eq!(a.elem, b.elem, "{operation}");
        self.emit(a.elem, &dims, |ty| format!("{operation} %{}, %{} : {ty}", a.id, b.id))
    }

    fn compare(&self, direction: &str, a: Value, b: Value) -> Value {
        let (a, b, dims) = self.same_shape(a, b);
        debug_assert_eq!(a.elem, b.elem, "compare {direction}");
        let (from, kind) = (self.type_of(a), a.elem.compare_type());
        self.emit(Elem::I1, &dims, |ty| {
            format!("stablehlo.compare {direction}, %{}, %{}, {kind} : ({from}, {from}) -> {ty}", a.id, b.id)
        })
    }

    fn pick(&self, mask: Value, if_true: Value, if_false: Value) -> Value {
        let (if_true, if_false, dims) = self.same_shape(if_true, if_false);
        let dims = if self.dims(mask).len() > dims.len() { self.dims(mask) } else { dims };
        let [mask, if_true, if_false] = [mask, if_true, if_false].map(|v| self.broadcast(v, &dims));
        let mask_type = self.type_of(mask);
        self.emit(if_true.elem, &dims, |ty| {
            format!("stablehlo.select %{}, %{}, %{} : {mask_type}, {ty}", mask.id, if_true.id, if_false.id)
        })
    }

    fn unary(&self, operation: &str, value: Value, elem: Elem) -> Value {
        let (from, dims) = (self.type_of(value), self.dims(value));
        self.emit(elem, &dims, |ty| format!("{operation} %{} : ({from}) -> {ty}", value.id))
    }

    /// Converts by value; exact in every use the kernels make of it.
    pub fn convert(&self, value: Value, elem: Elem) -> Value {
        self.unary("stablehlo.convert", value, elem)
    }

    /// The same bits as another type of the same width.
    pub fn bitcast(&self, value: Value, elem: Elem) -> Value {
        self.unary("stablehlo.bitcast_convert", value, elem)
    }

    /// `a · b` for integers whose product fits.
    pub fn mul_int(&self, a: Value, b: Value) -> Value {
        self.binary("stablehlo.multiply", a, b)
    }

    /// The scalar mask that is false.
    pub fn constant_false(&self) -> Value {
        self.constant(Elem::I1, "false")
    }

    /// A mask as 0 and 1.
    pub fn count_mask(&self, mask: Value) -> Value {
        self.convert(mask, Elem::I32)
    }

    /// `0, 1, 2, …` along `dim`.
    pub fn iota(&self, dims: &[usize], dim: usize) -> Value {
        self.emit(Elem::I32, dims, |ty| format!("stablehlo.iota dim = {dim} : {ty}"))
    }

    /// Row-major reinterpretation of the shape.
    pub fn reshape(&self, value: Value, dims: &[usize]) -> Value {
        if self.dims(value) == dims {
            return value;
        }
        let from = self.type_of(value);
        self.emit(value.elem, dims, |ty| format!("stablehlo.reshape %{} : ({from}) -> {ty}", value.id))
    }

    /// Elements `start..limit` of dimension `dim`.
    pub fn slice(&self, value: Value, dim: usize, start: usize, limit: usize) -> Value {
        let (from, mut dims) = (self.type_of(value), self.dims(value));
        let ranges: Vec<String> = dims
            .iter()
            .enumerate()
            .map(|(i, &size)| if i == dim { format!("{start}:{limit}") } else { format!("0:{size}") })
            .collect();
        dims[dim] = limit - start;
        self.emit(value.elem, &dims, |ty| {
            format!("stablehlo.slice %{} [{}] : ({from}) -> {ty}", value.id, ranges.join(", "))
        })
    }

    /// Adds `low` elements before and `high` after dimension `dim`, all of them `literal`.
    pub fn pad(&self, value: Value, dim: usize, low: usize, high: usize, literal: &str) -> Value {
        if low + high == 0 {
            return value;
        }
        let filler = self.written(self.constant(value.elem, literal));
        let (from, mut dims) = (self.type_of(value), self.dims(value));
        let at = |n: usize| (0..dims.len()).map(|i| if i == dim { n } else { 0 }).collect::<Vec<_>>();
        let (before, after, between) = (at(low), at(high), at(0));
        dims[dim] += low + high;
        self.emit(value.elem, &dims, |ty| {
            format!(
                "stablehlo.pad %{}, %{}, low = {before:?}, high = {after:?}, interior = {between:?} : ({from}, tensor<{}>) -> {ty}",
                value.id, filler.id, value.elem.name()
            )
        })
    }

    /// The two dimensions of `value`, exchanged.
    pub fn transpose(&self, value: Value) -> Value {
        let (from, mut dims) = (self.type_of(value), self.dims(value));
        dims.reverse();
        self.emit(value.elem, &dims, |ty| {
            format!("stablehlo.transpose %{}, dims = [1, 0] : ({from}) -> {ty}", value.id)
        })
    }

    /// A call of code that is not StableHLO, on two-dimensional row-major arrays. `config` is for the callee.
    pub fn custom_call(
        &self,
        target: &str,
        config: &str,
        operands: &[Value],
        results: &[(Elem, Vec<usize>)],
    ) -> Vec<Value> {
        let list = |items: Vec<String>| items.join(", ");
        let layouts = |count| list(vec!["dense<[1, 0]> : tensor<2xindex>".to_owned(); count]);
        let names = list(operands.iter().map(|v| format!("%{}", v.id)).collect());
        let from = list(operands.iter().map(|&v| self.type_of(v)).collect());
        let values: Vec<Value> = results.iter().map(|(elem, dims)| self.new_value(*elem, dims)).collect();
        let types: Vec<String> = values.iter().map(|&v| self.type_of(v)).collect();
        let types = if types.len() == 1 { types[0].clone() } else { format!("({})", list(types)) };
        let lefts = list(values.iter().map(|v| format!("%{}", v.id)).collect());
        self.line(&format!(
            "{lefts} = \"stablehlo.custom_call\"({names}) {{call_target_name = \"{target}\", backend_config = {config:?}, \
             operand_layouts = [{}], result_layouts = [{}]}} : ({from}) -> {types}",
            layouts(operands.len()),
            layouts(results.len())
        ));
        values
    }

    /// Reduces the trailing dimension away.
    pub fn reduce(&self, value: Value, how: Reduce) -> Value {
        let init = self.written(self.constant(value.elem, how.identity(value.elem)));
        let (from, mut dims) = (self.type_of(value), self.dims(value));
        let dim = dims.len() - 1;
        dims.pop();
        self.emit(value.elem, &dims, |ty| {
            format!(
                "stablehlo.reduce(%{} init: %{}) applies {} across dimensions = [{dim}] : ({from}, tensor<{}>) -> {ty}",
                value.id, init.id, how.op(), value.elem.name()
            )
        })
    }

    /// How many elements of the trailing dimension are true.
    pub fn count(&self, mask: Value) -> Value {
        self.reduce(self.count_mask(mask), Reduce::Add)
    }

    /// Whether any element of the whole mask is true, as a scalar.
    pub fn any(&self, mask: Value) -> Value {
        (0..self.dims(mask).len()).fold(mask, |mask, _| self.reduce(mask, Reduce::Or))
    }

    /// Sum of the trailing dimension of non-negative integers, in 64 bits.
    pub fn wide_sum(&self, value: Value) -> Value {
        self.reduce(self.convert(value, Elem::U64), Reduce::Add)
    }

    /// Inclusive prefix sums along the trailing dimension, by doubling; meant for short ones.
    pub fn prefix_sum(&self, value: Value) -> Value {
        let dims = self.dims(value);
        let (dim, length) = (dims.len() - 1, dims[dims.len() - 1]);
        let (mut sums, mut step) = (value, 1);
        while step < length {
            let shifted = self.pad(self.slice(sums, dim, 0, length - step), dim, step, 0, "0");
            sums = self.binary("stablehlo.add", sums, shifted);
            step *= 2;
        }
        sums
    }

    /// Rows of `table [n, width]` at `indices [..]`, giving `[.., width]`. Indices are in range.
    pub fn gather_rows(&self, table: Value, indices: Value) -> Value {
        let width = self.dims(table)[1];
        let mut dims = self.dims(indices);
        let flat: usize = dims.iter().product();
        let indices = self.reshape(indices, &[flat, 1]);
        let (table_type, index_type) = (self.type_of(table), self.type_of(indices));
        let rows = self.emit(table.elem, &[flat, width], |ty| {
            format!(
                "\"stablehlo.gather\"(%{}, %{}) <{{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, indices_are_sorted = false, slice_sizes = array<i64: 1, {width}>}}> : ({table_type}, {index_type}) -> {ty}",
                table.id, indices.id
            )
        });
        dims.push(width);
        self.reshape(rows, &dims)
    }

    /// Stacks values of one shape along a new leading dimension.
    pub fn stack(&self, values: &[Value]) -> Value {
        let mut dims = vec![1];
        dims.extend(self.dims(values[0]));
        let parts: Vec<Value> = values.iter().map(|&v| self.reshape(v, &dims)).collect();
        let ids = parts.iter().map(|v| format!("%{}", v.id)).collect::<Vec<_>>().join(", ");
        let types = parts.iter().map(|&v| self.type_of(v)).collect::<Vec<_>>().join(", ");
        dims[0] = values.len();
        self.emit(values[0].elem, &dims, |ty| {
            format!("stablehlo.concatenate {ids}, dim = 0 : ({types}) -> {ty}")
        })
    }

    /// Repeats `body` on the state while `condition`, a scalar, holds.
    pub fn while_loop<const N: usize>(
        &self,
        initial: [Value; N],
        condition: impl FnOnce([Value; N]) -> Value,
        body: impl FnOnce([Value; N]) -> [Value; N],
    ) -> [Value; N] {
        let initial = initial.map(|v| self.written(v));
        let arguments = initial.map(|v| self.new_value(v.elem, &self.dims(v)));
        let results_id = self.new_value(Elem::I1, &[]).id;
        let bindings =
            arguments.iter().zip(&initial).map(|(a, i)| format!("%{} = %{}", a.id, i.id)).collect::<Vec<_>>();
        let types = initial.iter().map(|&v| self.type_of(v)).collect::<Vec<_>>().join(", ");
        self.line(&format!("%{results_id}:{N} = stablehlo.while({}) : {types}", bindings.join(", ")));
        self.line("cond {");
        self.state.borrow_mut().indent += 1;
        let go_on = self.written(condition(arguments));
        self.line(&format!("stablehlo.return %{} : tensor<i1>", go_on.id));
        self.state.borrow_mut().indent -= 1;
        self.line("} do {");
        self.state.borrow_mut().indent += 1;
        let next = body(arguments).map(|v| self.written(v));
        let ids = next.iter().map(|v| format!("%{}", v.id)).collect::<Vec<_>>().join(", ");
        self.line(&format!("stablehlo.return {ids} : {types}"));
        self.state.borrow_mut().indent -= 1;
        self.line("}");
        // A use of one result is written %id#i; an identity operation gives it a name of its own.
        let mut index = 0;
        initial.map(|v| {
            let (dims, from) = (self.dims(v), self.type_of(v));
            index += 1;
            self.emit(v.elem, &dims, |_| {
                format!("stablehlo.reshape %{results_id}#{} : ({from}) -> {from}", index - 1)
            })
        })
    }
}

fn type_text(elem: Elem, dims: &[usize]) -> String {
    let dims: String = dims.iter().map(|d| format!("{d}x")).collect();
    format!("tensor<{dims}{}>", elem.name())
}

macro_rules! binary_ops {
    ($($name:ident = $operation:literal;)*) => {
        $(fn $name(self, a: Value, b: Value) -> Value { self.binary($operation, a, b) })*
    };
}

impl Arith for &Hlo {
    type Int = Value;
    type Float = Value;
    type Mask = Value;

    fn int(self, value: i32) -> Value {
        self.constant(Elem::I32, &value.to_string())
    }
    fn float(self, value: f32) -> Value {
        self.constant(Elem::F32, &format!("0x{:08X}", value.to_bits()))
    }

    fn factor(self, value: f32) -> Value {
        let bound = self.state.borrow().factors.get(&value.to_bits()).copied();
        bound.expect("a kernel binds every factor when it loads its parameters")
    }

    binary_ops! {
        add = "stablehlo.add";
        sub = "stablehlo.subtract";
        and = "stablehlo.and";
        or = "stablehlo.or";
        xor = "stablehlo.xor";
        fsub = "stablehlo.subtract";
        fmul = "stablehlo.multiply";
        both = "stablehlo.and";
        either = "stablehlo.or";
    }

    fn shl(self, a: Value, by: u32) -> Value {
        self.binary("stablehlo.shift_left", a, self.int(by as i32))
    }
    fn shr(self, a: Value, by: u32) -> Value {
        self.binary("stablehlo.shift_right_arithmetic", a, self.int(by as i32))
    }

    fn trunc(self, a: Value) -> Value {
        self.convert(a, Elem::I32)
    }
    fn to_float(self, a: Value) -> Value {
        self.convert(a, Elem::F32)
    }
    fn to_bits(self, a: Value) -> Value {
        self.bitcast(a, Elem::I32)
    }
    fn from_bits(self, a: Value) -> Value {
        self.bitcast(a, Elem::F32)
    }

    fn lt(self, a: Value, b: Value) -> Value {
        self.compare("LT", a, b)
    }
    fn eq(self, a: Value, b: Value) -> Value {
        self.compare("EQ", a, b)
    }
    // One comparison instead of a comparison and a negation.
    fn le(self, a: Value, b: Value) -> Value {
        self.compare("LE", a, b)
    }
    fn flt(self, a: Value, b: Value) -> Value {
        self.compare("LT", a, b)
    }
    fn not(self, a: Value) -> Value {
        let dims = self.dims(a);
        self.emit(Elem::I1, &dims, |ty| format!("stablehlo.not %{} : {ty}", a.id))
    }

    fn select(self, mask: Value, if_true: Value, if_false: Value) -> Value {
        self.pick(mask, if_true, if_false)
    }
    fn fselect(self, mask: Value, if_true: Value, if_false: Value) -> Value {
        self.pick(mask, if_true, if_false)
    }
}

impl WideArith for &Hlo {
    type Wide = Value;

    fn wide(self, value: u64) -> Value {
        self.constant(Elem::U64, &value.to_string())
    }
    fn widen(self, a: Value) -> Value {
        self.convert(self.bitcast(a, Elem::U32), Elem::U64)
    }
    fn low(self, a: Value) -> Value {
        let low = self.wand(a, self.wide(0xffff_ffff));
        self.bitcast(self.convert(low, Elem::U32), Elem::I32)
    }
    fn high(self, a: Value) -> Value {
        self.low(self.wshr(a, self.wide(32)))
    }
    fn wshl(self, a: Value, by: u32) -> Value {
        self.binary("stablehlo.shift_left", a, self.wide(u64::from(by)))
    }

    binary_ops! {
        wadd = "stablehlo.add";
        wmul = "stablehlo.multiply";
        wrem = "stablehlo.remainder";
        wshr = "stablehlo.shift_right_logical";
        wand = "stablehlo.and";
        wor = "stablehlo.or";
    }

    fn wlt(self, a: Value, b: Value) -> Value {
        self.compare("LT", a, b)
    }
    fn weq(self, a: Value, b: Value) -> Value {
        self.compare("EQ", a, b)
    }
    fn wselect(self, mask: Value, if_true: Value, if_false: Value) -> Value {
        self.pick(mask, if_true, if_false)
    }
}

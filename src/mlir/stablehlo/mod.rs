//! A builder of StableHLO programs, so that a kernel reads like its algorithm.
//!
//! An operation on two values whose shapes differ repeats the value of lower rank along new trailing dimensions
//! (`[batch]` with `[batch, vocab]`). Row-wise algorithms need no other broadcast. The builder implements
//! [`Arith`](crate::semantics::arith::Arith) and [`WideArith`], so functions that are generic over them add their
//! operations to the program.

mod check;
mod print;

use std::cell::RefCell;

use super::arith::{Binary, Elementwise, Predicate};
use super::builder::{fixed, Builder, Dialect, Placement, WhileLoop};
use super::ir::{Attribute, Attributes, Function, Module};
use super::print::{print, print_function, Form};
use super::types::Type;
use crate::semantics::arith::{LongDivision, WideArith};

pub use super::ir::Value;
pub use super::reduce::Reduce;
pub use super::types::Elem;

static STABLEHLO: Dialect = Dialect {
    constant: "stablehlo.constant",
    // HLO's loops cannot capture values. If a loop uses a value from outside, the value becomes part of the loop's
    // state.
    constants: Placement::BeforeUse,
    check: check::check,
};

static WHILE: WhileLoop = WhileLoop {
    name: "stablehlo.while",
    condition_end: "stablehlo.return",
    condition_passes_state: false,
    body_end: "stablehlo.return",
    shared_arguments: true,
};

/// [`Arith::mul_then_add`](crate::semantics::arith::Arith::mul_then_add) takes the minimum of the product and this
/// number before it adds. Every product is smaller, so the minimum does not change the result.
pub const PRODUCT_BARRIER: f32 = 1e30;

/// The configuration of a custom call.
#[derive(Clone, Debug)]
pub enum CallConfig {
    /// Text in a format of the callee.
    Text(String),
    /// A dictionary, for version 2 of the interface of custom calls.
    Dictionary(Attributes),
}

/// The builder of one program. Methods take `&self`, so that nested calls read like expressions.
pub struct Hlo {
    builder: Builder,
    arguments: RefCell<Vec<(Value, Attributes)>>,
}

impl Default for Hlo {
    fn default() -> Hlo {
        Hlo::new()
    }
}

impl Hlo {
    /// Returns an empty program.
    pub fn new() -> Hlo {
        Hlo { builder: Builder::new(&STABLEHLO), arguments: RefCell::default() }
    }

    /// Returns the dimensions of a value.
    pub fn dims(&self, value: Value) -> Vec<usize> {
        value.ty().dims().to_vec()
    }

    /// Declares the next argument of the program.
    pub fn argument(&self, elem: Elem, dims: &[usize]) -> Value {
        self.argument_with(elem, dims, Attributes::new())
    }

    /// Like [`argument`](Hlo::argument). If the caller donates the argument, the output with the index `output` may use
    /// the memory of the argument. Both must have the same size in bytes.
    pub fn donatable_argument(&self, elem: Elem, dims: &[usize], output: usize) -> Value {
        let output = Attribute::Integer(output as i64, "i32");
        self.argument_with(elem, dims, vec![("tf.aliasing_output", output)])
    }

    /// Like [`argument`](Hlo::argument), for an array that need not be row-major. `minor_to_major` lists the dimensions
    /// in the order of the memory, the fastest-varying first.
    pub fn argument_with_layout(&self, elem: Elem, dims: &[usize], minor_to_major: &[usize]) -> Value {
        let order: Vec<String> = minor_to_major.iter().map(usize::to_string).collect();
        let layout = Attribute::String(format!("{{{}}}", order.join(",")));
        self.argument_with(elem, dims, vec![("mhlo.layout_mode", layout)])
    }

    fn argument_with(&self, elem: Elem, dims: &[usize], attributes: Attributes) -> Value {
        let value = self.builder.argument(Type::tensor(elem, dims));
        self.arguments.borrow_mut().push((value, attributes));
        value
    }

    /// Returns the text of the program, which returns `results`.
    pub fn finish(&self, name: &str, results: &[Value]) -> String {
        self.text(&print::PRETTY, name, results)
    }

    /// Returns the text of a private function that returns `results`, for insertion into a module that calls it.
    pub fn finish_function(&self, name: &str, results: &[Value]) -> String {
        self.function("private", name, results, |function| print_function(&print::PRETTY, &function))
    }

    fn text(&self, form: &'static Form, name: &str, results: &[Value]) -> String {
        self.function("public", "main", results, |main| {
            let module = Module { name: Some(name), attributes: Attributes::new(), functions: vec![main] };
            print(form, &module)
        })
    }

    /// Calls `print` with the program as a function that returns `results`.
    fn function(
        &self,
        visibility: &'static str,
        name: &str,
        results: &[Value],
        print: impl FnOnce(Function<'_>) -> String,
    ) -> String {
        let returns = results.iter().map(|&value| self.builder.materialized(value)).collect();
        let arguments = self.arguments.borrow();
        let any_attributes = arguments.iter().any(|(_, attributes)| !attributes.is_empty());
        let argument_attributes = match any_attributes {
            true => arguments.iter().map(|(_, attributes)| attributes.clone()).collect(),
            false => Vec::new(),
        };
        self.builder.read(|constants, body| {
            print(Function {
                name,
                visibility: Some(visibility),
                arguments: arguments.iter().map(|(value, _)| *value).collect(),
                argument_attributes,
                returns,
                attributes: Attributes::new(),
                constants,
                body,
            })
        })
    }

    fn constant(&self, elem: Elem, bits: u64) -> Value {
        Value::constant(Self::scalar(elem), bits)
    }

    /// Repeats `value` along new trailing dimensions until its shape is `dims`.
    pub fn broadcast(&self, value: Value, dims: &[usize]) -> Value {
        self.spread(value, value.ty().with_dims(dims))
    }

    /// Repeats `value` along the dimensions of `dims` that are not in `positions`. Dimension `i` of the value becomes
    /// dimension `positions[i]`.
    pub fn broadcast_in_dim(&self, value: Value, dims: &[usize], positions: &[usize]) -> Value {
        self.builder
            .op("stablehlo.broadcast_in_dim")
            .operands([value])
            .attribute("broadcast_dimensions", Attribute::i64s(positions.iter().copied()))
            .result(value.ty().with_dims(dims))
    }

    /// Converts by value. Kernels convert only values that the result's type represents exactly.
    pub fn convert(&self, value: Value, elem: Elem) -> Value {
        self.converted(value, elem)
    }

    /// Interprets the bits as another type of the same width.
    pub fn bitcast(&self, value: Value, elem: Elem) -> Value {
        self.bits_as(value, elem)
    }

    /// Returns `a · b`, wrapping.
    pub fn mul_int(&self, a: Value, b: Value) -> Value {
        self.binary(Binary::Mul, a, b)
    }

    /// Returns the scalar mask that is false.
    pub fn constant_false(&self) -> Value {
        self.constant(Elem::I1, 0)
    }

    /// Converts a mask to 0 and 1.
    pub fn count_mask(&self, mask: Value) -> Value {
        self.convert(mask, Elem::I32)
    }

    /// Returns `0, 1, 2, …` along `dim`.
    pub fn iota(&self, dims: &[usize], dim: usize) -> Value {
        self.builder
            .op("stablehlo.iota")
            .attribute("iota_dimension", Attribute::i64(dim))
            .result(Type::tensor(Elem::I32, dims))
    }

    /// Returns the same elements in row-major order with another shape.
    pub fn reshape(&self, value: Value, dims: &[usize]) -> Value {
        if value.ty().dims() == dims {
            return value;
        }
        self.builder.op("stablehlo.reshape").operands([value]).result(value.ty().with_dims(dims))
    }

    /// Returns the elements `start..limit` of dimension `dim`.
    pub fn slice(&self, value: Value, dim: usize, start: usize, limit: usize) -> Value {
        let mut dims = self.dims(value);
        let (mut starts, mut limits) = (vec![0; dims.len()], dims.clone());
        (starts[dim], limits[dim], dims[dim]) = (start, limit, limit.saturating_sub(start));
        self.builder
            .op("stablehlo.slice")
            .operands([value])
            .attribute("start_indices", Attribute::i64s(starts))
            .attribute("limit_indices", Attribute::i64s(limits))
            .attribute("strides", Attribute::i64s(dims.iter().map(|_| 1)))
            .result(value.ty().with_dims(&dims))
    }

    /// Adds `low` elements before and `high` elements after dimension `dim`. Their value is `literal`, in MLIR's
    /// syntax.
    pub fn pad(&self, value: Value, dim: usize, low: usize, high: usize, literal: &str) -> Value {
        let elem = value.ty().elem();
        let bits = elem.parse(literal).unwrap_or_else(|| panic!("{literal} is no constant of type {elem}"));
        if low + high == 0 {
            return value;
        }
        let mut dims = self.dims(value);
        dims[dim] += low + high;
        let only = |n: usize| Attribute::i64s((0..dims.len()).map(|i| if i == dim { n } else { 0 }));
        self.builder
            .op("stablehlo.pad")
            .operands([value, self.constant(elem, bits)])
            .attribute("edge_padding_low", only(low))
            .attribute("edge_padding_high", only(high))
            .attribute("interior_padding", only(0))
            .result(value.ty().with_dims(&dims))
    }

    /// Exchanges the two dimensions of `value`.
    pub fn transpose(&self, value: Value) -> Value {
        let mut dims = self.dims(value);
        dims.reverse();
        self.builder
            .op("stablehlo.transpose")
            .operands([value])
            .attribute("permutation", Attribute::i64s([1, 0]))
            .result(value.ty().with_dims(&dims))
    }

    /// Calls code that is not StableHLO. The operands and results are scalars, or row-major arrays with two dimensions.
    /// The callee receives `config`.
    pub fn custom_call(
        &self,
        target: &str,
        config: &CallConfig,
        operands: &[Value],
        results: &[(Elem, Vec<usize>)],
    ) -> Vec<Value> {
        self.custom_call_in_place(target, config, operands, results, &[])
    }

    /// Like [`Hlo::custom_call`]. Each alias is the number of an operand and the number of a result of the same type.
    /// The callee gets the same memory for both, so the result starts with the contents of the operand. There must be
    /// at least two results.
    pub fn custom_call_in_place(
        &self,
        target: &str,
        config: &CallConfig,
        operands: &[Value],
        results: &[(Elem, Vec<usize>)],
        aliases: &[(usize, usize)],
    ) -> Vec<Value> {
        assert!(aliases.is_empty() || results.len() > 1, "a single result has no number");
        let row_major = |rank: usize| {
            let order: Vec<String> = (0..rank).rev().map(|dimension| dimension.to_string()).collect();
            let order = if rank == 0 { String::new() } else { format!("[{}]", order.join(", ")) };
            Attribute::Verbatim(format!("dense<{order}> : tensor<{rank}xindex>").into())
        };
        let operand_layouts = operands.iter().map(|operand| row_major(operand.ty().dims().len())).collect();
        let result_layouts = results.iter().map(|(_, dims)| row_major(dims.len())).collect();
        let call = self
            .builder
            .op("stablehlo.custom_call")
            .operands(operands)
            .attribute("call_target_name", Attribute::String(target.to_owned()));
        let (call, config) = match config {
            CallConfig::Text(text) => (call, text.clone()),
            CallConfig::Dictionary(entries) => {
                let version = Attribute::Integer(2, "i32");
                (call.attribute("api_version", version), Attribute::Dictionary(entries.clone()).to_string())
            }
        };
        let alias = |&(operand, result): &(usize, usize)| {
            let (to, from) = (format!("[{result}]"), format!("operand_index = {operand}"));
            let text = format!("<output_tuple_indices = {to}, {from}, operand_tuple_indices = []>");
            Attribute::Verbatim(format!("#stablehlo.output_operand_alias{text}").into())
        };
        let call = match aliases {
            [] => call,
            _ => {
                call.attribute("output_operand_aliases", Attribute::List(aliases.iter().map(alias).collect()))
            }
        };
        call.attribute("backend_config", Attribute::String(config))
            .attribute("operand_layouts", Attribute::List(operand_layouts))
            .attribute("result_layouts", Attribute::List(result_layouts))
            .results(results.iter().map(|(elem, dims)| Type::tensor(*elem, dims)))
    }

    /// Reduces the trailing dimension.
    pub fn reduce(&self, value: Value, how: Reduce) -> Value {
        let elem = value.ty().elem();
        let identity = how.identity(elem);
        let identity = identity.unwrap_or_else(|| panic!("{how:?} does not combine elements of type {elem}"));
        let name = match how {
            Reduce::Add => "stablehlo.add",
            Reduce::Max => "stablehlo.maximum",
            Reduce::Min => "stablehlo.minimum",
            Reduce::Or => "stablehlo.or",
        };
        let element = Self::scalar(elem);
        let combine = self.builder.region([element, element], "stablehlo.return", |pair| {
            vec![self.builder.op(name).operands(pair).result(element)]
        });
        let mut dims = self.dims(value);
        let Some(_) = dims.pop() else { panic!("a scalar has no dimension to reduce") };
        self.builder
            .op("stablehlo.reduce")
            .operands([value, self.constant(elem, identity)])
            .attribute("dimensions", Attribute::i64s([dims.len()]))
            .regions([combine])
            .result(value.ty().with_dims(&dims))
    }

    /// Returns the number of true elements along the trailing dimension.
    pub fn count(&self, mask: Value) -> Value {
        self.reduce(self.count_mask(mask), Reduce::Add)
    }

    /// Returns a scalar: whether any element of the whole mask is true.
    pub fn any(&self, mask: Value) -> Value {
        mask.ty().dims().iter().fold(mask, |mask, _| self.reduce(mask, Reduce::Or))
    }

    /// Returns the sum of the trailing dimension of non-negative integers, in 64 bits.
    pub fn wide_sum(&self, value: Value) -> Value {
        self.reduce(self.convert(value, Elem::U64), Reduce::Add)
    }

    /// Returns the inclusive prefix sums along the trailing dimension, by doubling (Hillis and Steele 1986). This is
    /// efficient only for short dimensions.
    pub fn prefix_sum(&self, value: Value) -> Value {
        let dims = self.dims(value);
        let (dim, length) = (dims.len() - 1, dims[dims.len() - 1]);
        let (mut sums, mut step) = (value, 1);
        while step < length {
            let shifted = self.pad(self.slice(sums, dim, 0, length - step), dim, step, 0, "0");
            sums = self.binary(Binary::Add, sums, shifted);
            step *= 2;
        }
        sums
    }

    /// Returns the rows of `table [n, width]` at `indices [..]`. The result has the shape `[.., width]`. Indices must
    /// be in range.
    pub fn gather_rows(&self, table: Value, indices: Value) -> Value {
        let width = table.ty().dims()[1];
        let mut dims = self.dims(indices);
        let flat: usize = dims.iter().product();
        let indices = self.reshape(indices, &[flat, 1]);
        let numbers =
            "#stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], \
                       index_vector_dim = 1>";
        let rows = self
            .builder
            .op("stablehlo.gather")
            .operands([table, indices])
            .attribute("dimension_numbers", Attribute::Verbatim(numbers.into()))
            .attribute("indices_are_sorted", Attribute::Bool(false))
            .attribute("slice_sizes", Attribute::i64s([1, width]))
            .result(table.ty().with_dims(&[flat, width]));
        dims.push(width);
        self.reshape(rows, &dims)
    }

    /// Concatenates values along a dimension. All other dimensions must be equal.
    pub fn concatenate(&self, values: &[Value], dim: usize) -> Value {
        let mut dims = self.dims(values[0]);
        dims[dim] = values.iter().map(|value| value.ty().dims()[dim]).sum();
        self.builder
            .op("stablehlo.concatenate")
            .operands(values)
            .attribute("dimension", Attribute::i64(dim))
            .result(values[0].ty().with_dims(&dims))
    }

    /// Stacks values of one shape along a new leading dimension.
    pub fn stack(&self, values: &[Value]) -> Value {
        let dims = [&[1], values[0].ty().dims()].concat();
        let parts: Vec<Value> = values.iter().map(|&v| self.reshape(v, &dims)).collect();
        self.concatenate(&parts, 0)
    }

    /// Repeats `body` on the state while `condition`, a scalar, is true. Returns the last state.
    pub fn while_loop<const N: usize>(
        &self,
        initial: [Value; N],
        condition: impl FnOnce([Value; N]) -> Value,
        body: impl FnOnce([Value; N]) -> [Value; N],
    ) -> [Value; N] {
        let condition = |state: &[Value]| condition(fixed(state));
        let body = |state: &[Value]| body(fixed(state)).to_vec();
        fixed(&self.builder.while_loop(&WHILE, None, &initial, condition, body))
    }
}

impl Elementwise for Hlo {
    const SELECT: &'static str = "stablehlo.select";
    const SCALAR_MASKS: bool = false;
    const BITCAST: &'static str = "stablehlo.bitcast_convert";

    fn builder(&self) -> &Builder {
        &self.builder
    }

    fn scalar(elem: Elem) -> Type {
        Type::tensor(elem, &[])
    }

    fn binary_name(operation: Binary, _: Elem) -> &'static str {
        match operation {
            Binary::Add => "stablehlo.add",
            Binary::Sub => "stablehlo.subtract",
            Binary::Mul => "stablehlo.multiply",
            Binary::Div => "stablehlo.divide",
            Binary::Rem => "stablehlo.remainder",
            Binary::And => "stablehlo.and",
            Binary::Or => "stablehlo.or",
            Binary::Xor => "stablehlo.xor",
            Binary::ShiftLeft => "stablehlo.shift_left",
            Binary::ShiftRightSigned => "stablehlo.shift_right_arithmetic",
            Binary::ShiftRightZero => "stablehlo.shift_right_logical",
            Binary::Min => "stablehlo.minimum",
            Binary::Max => "stablehlo.maximum",
        }
    }

    fn comparison(predicate: Predicate, elem: Elem) -> (&'static str, Attributes) {
        let direction = match predicate {
            Predicate::Eq => "EQ",
            Predicate::Ne => "NE",
            Predicate::Lt => "LT",
            Predicate::Le => "LE",
            Predicate::Gt => "GT",
            Predicate::Ge => "GE",
        };
        let attributes = vec![
            ("comparison_direction", Attribute::Enum("stablehlo<comparison_direction ", direction)),
            ("compare_type", Attribute::Enum("stablehlo<comparison_type ", check::compare_type(elem))),
        ];
        ("stablehlo.compare", attributes)
    }

    fn conversion(_: Elem, _: Elem) -> &'static str {
        "stablehlo.convert"
    }

    fn repeat(&self, value: Value, ty: Type) -> Value {
        let from = value.ty();
        let prefix = ty.dims().starts_with(from.dims());
        assert!(prefix, "{from} cannot be repeated to {ty}: its dimensions are not the first of {ty}");
        self.broadcast_in_dim(value, ty.dims(), &(0..from.dims().len()).collect::<Vec<_>>())
    }

    // XLA's CPU compiler contracts a product and a sum, unless a minimum is between them.
    fn product_plus(&self, a: Value, b: Value, addend: Value) -> Value {
        let barrier = self.float_constant(PRODUCT_BARRIER);
        let product = self.binary(Binary::Min, self.binary(Binary::Mul, a, b), barrier);
        self.binary(Binary::Add, product, addend)
    }

    fn negated(&self, mask: Value) -> Value {
        self.builder.op("stablehlo.not").operands([mask]).result(mask.ty())
    }
}

macro_rules! binary {
    ($($name:ident = $operation:ident;)*) => {
        $(fn $name(self, a: Value, b: Value) -> Value { self.binary(Binary::$operation, a, b) })*
    };
}

impl WideArith for &Hlo {
    type Wide = Value;

    fn wide(self, value: u64) -> Value {
        self.constant(Elem::U64, value)
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
        self.binary(Binary::ShiftLeft, a, self.wide(u64::from(by)))
    }

    binary! {
        wadd = Add;
        wmul = Mul;
        wshr = ShiftRightZero;
        wand = And;
        wor = Or;
    }

    fn wlt(self, a: Value, b: Value) -> Value {
        self.comparing(Predicate::Lt, a, b)
    }
    fn weq(self, a: Value, b: Value) -> Value {
        self.comparing(Predicate::Eq, a, b)
    }
    fn wselect(self, mask: Value, if_true: Value, if_false: Value) -> Value {
        self.choice(mask, if_true, if_false)
    }
}

impl LongDivision for &Hlo {
    fn wrem_next(self, a: Value, digit: Value, bits: u32, b: Value) -> Value {
        self.binary(Binary::Rem, self.wor(self.wshl(a, bits), digit), b)
    }
}

//! Dialects that are part of MLIR: `arith`, `math`, `vector`, `memref` and `scf`. Every target that is written in
//! terms of registers and loops uses them.

use super::arith::{Binary, Predicate};
use super::builder::{Builder, WhileLoop};
use super::check::{self, ensure, operands, result, Checked};
use super::ir::{types_of, Attribute, Attributes, Commas, Node, Operation, Value};
use super::print::{Printer, Results};
use super::types::{Container, Elem, Type};

/// The syntax of `scf.while`.
pub static WHILE: WhileLoop = WhileLoop {
    name: "scf.while",
    condition_end: "scf.condition",
    condition_passes_state: true,
    body_end: "scf.yield",
    shared_arguments: false,
};

/// Runs a loop over a state for each index from `first` up to but not including `last`, in steps of `step`. Returns the
/// last state. `bounds` contains `first`, `last` and `step`.
pub fn for_each(
    builder: &Builder,
    label: &str,
    bounds: [Value; 3],
    start: &[Value],
    body: impl FnOnce(Value, &[Value]) -> Vec<Value>,
) -> Vec<Value> {
    let arguments = std::iter::once(bounds[0].ty()).chain(types_of(start));
    let region = builder.region(arguments, "scf.yield", |values| body(values[0], &values[1..]));
    let operands = [&bounds, start].concat();
    builder.op("scf.for").operands(operands).regions([region]).label(Some(label)).results(types_of(start))
}

/// Runs `if condition { then() } else { otherwise() }`. Both functions must return values of the same types.
pub fn if_else(
    builder: &Builder,
    label: &str,
    condition: Value,
    then: impl FnOnce() -> Vec<Value>,
    otherwise: impl FnOnce() -> Vec<Value>,
) -> Vec<Value> {
    let first = builder.region([], "scf.yield", |_| then());
    let second = builder.region([], "scf.yield", |_| otherwise());
    let types = first.yielded();
    builder.op("scf.if").operands([condition]).regions([first, second]).label(Some(label)).results(types)
}

/// Returns the name of an `arith` operation.
pub fn binary_name(operation: Binary, elem: Elem) -> &'static str {
    match (operation, elem.is_float()) {
        (Binary::Add, false) => "arith.addi",
        (Binary::Add, true) => "arith.addf",
        (Binary::Sub, false) => "arith.subi",
        (Binary::Sub, true) => "arith.subf",
        (Binary::Mul, false) => "arith.muli",
        (Binary::Mul, true) => "arith.mulf",
        (Binary::Div, true) => "arith.divf",
        (Binary::And, false) => "arith.andi",
        (Binary::Or, false) => "arith.ori",
        (Binary::Xor, false) => "arith.xori",
        (Binary::ShiftLeft, false) => "arith.shli",
        (Binary::ShiftRightSigned, false) => "arith.shrsi",
        (Binary::ShiftRightZero, false) => "arith.shrui",
        (Binary::Min, false) => "arith.minsi",
        (Binary::Min, true) => "arith.minimumf",
        (Binary::Max, false) => "arith.maxsi",
        (Binary::Max, true) => "arith.maximumf",
        (operation, _) => panic!("no kernel has needed {operation:?} of {elem}"),
    }
}

/// The predicates of `arith.cmpi` in MLIR's syntax, indexed by number. In MLIR, unsigned predicates have the next
/// numbers.
const INTEGER_PREDICATES: [&str; 6] = ["eq", "ne", "slt", "sle", "sgt", "sge"];
/// The predicates of `arith.cmpf` in MLIR's syntax, indexed by number.
const FLOAT_PREDICATES: [&str; 15] = [
    "false", "oeq", "ogt", "oge", "olt", "ole", "one", "ord", "ueq", "ugt", "uge", "ult", "ule", "une", "uno",
];

/// Returns the name and the attribute of a signed or floating-point comparison.
pub fn comparison(predicate: Predicate, elem: Elem) -> (&'static str, Attributes) {
    let integer = match predicate {
        Predicate::Eq => 0,
        Predicate::Ne => 1,
        Predicate::Lt => 2,
        Predicate::Le => 3,
        Predicate::Gt => 4,
        Predicate::Ge => 5,
    };
    let float = match predicate {
        Predicate::Eq => 1,
        Predicate::Gt => 2,
        Predicate::Ge => 3,
        Predicate::Lt => 4,
        Predicate::Le => 5,
        // This predicate (`une`) is true if either operand is NaN.
        Predicate::Ne => 13,
    };
    let (name, number) = if elem.is_float() { ("arith.cmpf", float) } else { ("arith.cmpi", integer) };
    (name, vec![("predicate", Attribute::Integer(number, "i64"))])
}

/// Returns the name of an `arith` conversion.
pub fn conversion(from: Elem, to: Elem) -> &'static str {
    match (from, to) {
        (Elem::I32, Elem::F32) => "arith.sitofp",
        (Elem::F32, Elem::I32) => "arith.fptosi",
        (Elem::Bf16 | Elem::F16, Elem::F32) => "arith.extf",
        (Elem::I32, Elem::Index) => "arith.index_cast",
        _ => panic!("no kernel has needed a conversion of {from} to {to}"),
    }
}

/// Checks an operation of these dialects. Returns `None` for other operations.
pub fn check(op: &Operation) -> Option<Checked> {
    Some(match op.name {
        "arith.addi" | "arith.subi" | "arith.muli" | "arith.minsi" | "arith.maxsi" | "arith.shli"
        | "arith.shrsi" | "arith.shrui" => check::elementwise::<2>(op, Elem::is_integer),
        "arith.andi" | "arith.ori" | "arith.xori" => check::elementwise::<2>(op, check::integer_or_mask),
        "arith.addf" | "arith.subf" | "arith.mulf" | "arith.divf" | "arith.minimumf" | "arith.maximumf" => {
            check::elementwise::<2>(op, Elem::is_float)
        }
        "math.floor" => check::elementwise::<1>(op, Elem::is_float),
        "arith.constant" => check::constant(op),
        "arith.cmpi" => check::comparison(op, check::integer_or_mask).and_then(|()| predicate(op, 10)),
        "arith.cmpf" => check::comparison(op, Elem::is_float).and_then(|()| predicate(op, 16)),
        "arith.select" => check::select(op, true),
        "arith.extf" => conversion_of_floats(op, |from, to| from < to),
        "arith.truncf" => conversion_of_floats(op, |from, to| from > to),
        "arith.sitofp" => check::cast(op, Elem::is_integer, Elem::is_float),
        "arith.fptosi" => check::cast(op, Elem::is_float, Elem::is_integer),
        "arith.index_cast" => check::cast(op, Elem::is_integer, |elem| elem == Elem::Index),
        "vector.broadcast" => broadcast(op),
        "vector.shape_cast" => check::reshape(op),
        "vector.multi_reduction" => reduction(op),
        "vector.extract" => extract(op),
        "vector.extract_strided_slice" => extract_slice(op),
        "vector.load" => load(op),
        "memref.load" => scalar_access(op, result(op), 0),
        "memref.store" => store(op),
        "scf.for" => for_loop(op),
        "scf.while" => check::while_loop(op, Type::scalar(Elem::I1), true),
        "scf.if" => branch(op),
        "scf.yield" | "scf.condition" => check::no_result(op),
        _ => return None,
    })
}

fn predicate(op: &Operation, count: i64) -> Checked {
    let number = op.integer("predicate");
    ensure(number.is_some_and(|number| (0..count).contains(&number)), "the predicate does not exist")
}

/// Checks a conversion from one float type to another. `fits` receives the number of bits of the operand's type and the
/// number of bits of the result's type. It returns whether these sizes are correct.
fn conversion_of_floats(op: &Operation, fits: fn(Option<u32>, Option<u32>) -> bool) -> Checked {
    check::cast(op, Elem::is_float, Elem::is_float)?;
    let ([from], to) = (operands(op)?, result(op)?);
    ensure(fits(from.elem().bits(), to.elem().bits()), "the result's element type has the wrong width")
}

fn broadcast(op: &Operation) -> Checked {
    let ([from], to) = (operands(op)?, result(op)?);
    ensure(from.elem() == to.elem(), "operand and result must have the same element type")?;
    ensure(to.container() == Container::Vector, "the result must be a vector")?;
    let (from, to) = (from.dims(), to.dims());
    ensure(from.len() <= to.len(), "the result must not have fewer dimensions")?;
    let pairs = from.iter().zip(&to[to.len() - from.len()..]);
    ensure(pairs.into_iter().all(|(a, b)| a == b || *a == 1), "a dimension that is not 1 changes its size")
}

fn reduction(op: &Operation) -> Checked {
    let ([vector, start], result) = (operands(op)?, result(op)?);
    ensure(vector.container() == Container::Vector, "the operand must be a vector")?;
    let kept = check::without_dimensions(vector, op.integers("reduction_dims"))?;
    ensure(start == kept && result == kept, "start and result must lack the reduced dimensions, no others")?;
    let float = vector.elem().is_float();
    let fits = match op.case("kind") {
        "add" => check::number(vector.elem()),
        "maximumf" | "minimumf" => float,
        "maxsi" | "minsi" | "or" => !float,
        _ => false,
    };
    ensure(fits, "the kind does not fit the element type")
}

fn extract(op: &Operation) -> Checked {
    let ([vector], element) = (operands(op)?, result(op)?);
    ensure(vector.container() == Container::Vector, "the operand must be a vector")?;
    ensure(element == Type::scalar(vector.elem()), "the result must be an element of the operand")?;
    let position = op.integers("static_position");
    ensure(position.len() == vector.dims().len(), "there must be a position for each dimension")?;
    let inside = |(&at, &size): (&i64, &usize)| usize::try_from(at).is_ok_and(|at| at < size);
    ensure(position.iter().zip(vector.dims()).all(inside), "the position is outside the operand")
}

fn extract_slice(op: &Operation) -> Checked {
    let ([vector], part) = (operands(op)?, result(op)?);
    ensure(vector.container() == Container::Vector, "the operand must be a vector")?;
    ensure(part == vector.with_dims(part.dims()), "operand and result must have the same element type")?;
    let list = |name: &str| op.attribute(name).cloned();
    let numbers = |numbers: &[usize]| Attribute::List(numbers.iter().map(|&n| Attribute::i64(n)).collect());
    ensure(list("sizes") == Some(numbers(part.dims())), "the sizes must be those of the result")?;
    ensure(list("strides") == Some(numbers(&vec![1; part.dims().len()])), "the strides must be 1")?;
    let Some(Attribute::List(offsets)) = list("offsets") else { return Err("there must be offsets") };
    ensure(offsets.len() == vector.dims().len(), "there must be an offset for each dimension")?;
    ensure(part.dims().len() == offsets.len(), "operand and result must have the same rank")?;
    let inside =
        offsets.iter().zip(vector.dims().iter().zip(part.dims())).all(|(at, (have, want))| match at {
            Attribute::Integer(at, _) => usize::try_from(*at).is_ok_and(|at| at + want <= *have),
            _ => false,
        });
    ensure(inside, "the part must be inside the operand")
}

/// Checks that there is one index for each dimension of `memory`.
pub fn indices(memory: Type, indices: &[Value]) -> Checked {
    ensure(memory.is_memref(), "the operand must be a memref")?;
    ensure(indices.len() == memory.dims().len(), "there must be an index for each dimension")?;
    let index = Type::scalar(Elem::Index);
    ensure(indices.iter().all(|value| value.ty() == index), "indices must be of type index")
}

fn load(op: &Operation) -> Checked {
    let vector = result(op)?;
    let [memory, at @ ..] = op.operands.as_slice() else { return Err("there is no memory to load from") };
    indices(memory.ty(), at)?;
    vector_access(memory.ty(), vector)
}

/// Checks that a vector can be moved to or from memory of this type.
pub fn vector_access(memory: Type, vector: Type) -> Checked {
    ensure(vector.container() == Container::Vector, "a vector is accessed")?;
    ensure(memory.elem() == vector.elem(), "memory and vector must have the same element type")?;
    // The vector covers the last dimensions.
    let pairs = memory.dims().iter().rev().zip(vector.dims().iter().rev());
    let fits =
        vector.dims().len() <= memory.dims().len() && pairs.into_iter().all(|(have, want)| want <= have);
    ensure(fits, "the vector must fit the memory")
}

fn store(op: &Operation) -> Checked {
    check::no_result(op)?;
    let [value, ..] = op.operands.as_slice() else { return Err("there is nothing to store") };
    scalar_access(op, Ok(value.ty()), 1)
}

/// Checks the access of a scalar in memory. `memory` is the position of the memory operand; the indices follow it.
fn scalar_access(op: &Operation, value: Result<Type, &'static str>, memory: usize) -> Checked {
    let Some([memory, at @ ..]) = op.operands.get(memory..) else { return Err("there is no memory") };
    let (memory, value) = (memory.ty(), value?);
    indices(memory, at)?;
    ensure(value == Type::scalar(memory.elem()), "the value must be an element of the memory")
}

fn for_loop(op: &Operation) -> Checked {
    let [body] = check::regions(op)?;
    let types: Vec<Type> = op.operand_types().collect();
    let Some(([first, last, step], state)) = types.split_first_chunk() else {
        return Err("there must be bounds and a step");
    };
    check::scalar(*first, |elem| elem.is_integer() || elem == Elem::Index)?;
    ensure(first == last && first == step, "bounds and step must have the same type")?;
    check::region(body, &[&[*first], state].concat(), state)?;
    ensure(op.result_types().eq(state.iter().copied()), "results must have the types of the state")
}

fn branch(op: &Operation) -> Checked {
    let ([condition], [then, otherwise]) = (operands(op)?, check::regions(op)?);
    check::scalar(condition, Elem::is_mask)?;
    let types: Vec<Type> = op.result_types().collect();
    check::region(then, &[], &types)?;
    check::region(otherwise, &[], &types)
}

/// Prints an operation like MLIR's printer. Returns `false` for operations that are equally readable in the generic
/// form.
pub fn pretty(printer: &mut Printer, op: &Operation) -> bool {
    let (left, name) = (Results(op), op.name);
    let names = Commas(&op.operands);
    let operand = |i: usize| op.operands[i];
    let from = |i: usize| op.operands[i].ty();
    let to = || op.results[0].ty();
    match name {
        "arith.constant" => printer.line(format_args!("{left}{name} {}", op.attributes[0].1)),
        "arith.cmpi" | "arith.cmpf" => {
            let table: &[&str] = if name == "arith.cmpi" { &INTEGER_PREDICATES } else { &FLOAT_PREDICATES };
            let number = op.integer("predicate").and_then(|number| usize::try_from(number).ok());
            let Some(predicate) = number.and_then(|number| table.get(number)) else { return false };
            printer.line(format_args!("{left}{name} {predicate}, {names} : {}", from(0)));
        }
        "arith.select" => printer.line(format_args!("{left}{name} {names} : {}, {}", from(0), to())),
        "arith.extf" | "arith.sitofp" | "arith.index_cast" | "vector.broadcast" | "vector.shape_cast" => {
            printer.line(format_args!("{left}{name} {names} : {} to {}", from(0), to()));
        }
        "math.floor" => printer.line(format_args!("{left}{name} {names} : {}", from(0))),
        "vector.load" => {
            let (memory, at) = (operand(0), Commas(&op.operands[1..]));
            printer.line(format_args!("{left}{name} {memory}[{at}] : {}, {}", from(0), to()));
        }
        "memref.load" => {
            let (memory, at) = (operand(0), Commas(&op.operands[1..]));
            printer.line(format_args!("{left}{name} {memory}[{at}] : {}", from(0)));
        }
        "memref.store" => {
            let (value, memory, at) = (operand(0), operand(1), Commas(&op.operands[2..]));
            printer.line(format_args!("{name} {value}, {memory}[{at}] : {}", from(1)));
        }
        // The terminator of an empty region is not printed.
        "scf.yield" if op.operands.is_empty() => {}
        "scf.yield" => printer.line(format_args!("{name} {names} : {}", Commas(op.operand_types()))),
        "scf.condition" => {
            let (condition, state) = (operand(0), &op.operands[1..]);
            printer.line(format_args!("{name}({condition}) {} : {}", Commas(state), Commas(types_of(state))));
        }
        "scf.for" => pretty_for(printer, op),
        "scf.if" => pretty_if(printer, op),
        _ if name.starts_with("arith.") && op.operands.len() == 2 => {
            printer.line(format_args!("{left}{name} {names} : {}", to()));
        }
        _ => return false,
    }
    true
}

fn pretty_for(printer: &mut Printer, op: &Operation) {
    let ([first, last, step], start) =
        op.operands.split_first_chunk().expect("checked when the operation was added");
    let [region] = op.regions.as_slice() else { unreachable!("checked when the operation was added") };
    let (index, arguments) = region.arguments.split_first().expect("checked when the operation was added");
    let state = match start {
        [] => String::new(),
        _ => {
            let pairs = arguments.iter().zip(start).map(|(argument, start)| format!("{argument} = {start}"));
            format!(" iter_args({}) -> ({})", Commas(pairs), Commas(types_of(start)))
        }
    };
    let left = Results(op);
    printer.line(format_args!(
        "{left}scf.for {index} = {first} to {last} step {step}{state} : {} {{",
        index.ty()
    ));
    printer.body(&region.body);
    printer.line("}");
}

fn pretty_if(printer: &mut Printer, op: &Operation) {
    let [then, otherwise] = op.regions.as_slice() else {
        unreachable!("checked when the operation was added")
    };
    let types = match op.results.as_slice() {
        [] => String::new(),
        _ => format!(" -> ({})", Commas(op.result_types())),
    };
    printer.line(format_args!("{}scf.if {}{types} {{", Results(op), op.operands[0]));
    printer.body(&then.body);
    let empty = matches!(otherwise.body.as_slice(), [Node::Operation(end)] if end.operands.is_empty());
    if !empty {
        printer.line("} else {");
        printer.body(&otherwise.body);
    }
    printer.line("}");
}

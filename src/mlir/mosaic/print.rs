//! Prints the two texts of a kernel.

use super::{Attribute, Attributes, Builder, Elem, Kernel, Parameter, Type, Value, MOSAIC};
use crate::mlir::ir::{Commas, Function, Module, Operation};
use crate::mlir::print::{print, Form, Printer, Results};
use crate::mlir::upstream;

/// The version of Mosaic's operations that the versioned text uses.
const STABLE_VERSION: usize = 15;

/// The versioned text: every operation in the generic form, with a prefix before its name.
static STABLE: Form = Form { prefix: "stable_mosaic.", comments: false, sources: false, pretty: None };

/// The text for readers, with comments and labels.
static PLAIN: Form = Form { prefix: "", comments: true, sources: false, pretty: Some(pretty) };

/// The text for readers, with the places in the source of the emitter.
static WITH_SOURCES: Form = Form { prefix: "", comments: true, sources: true, pretty: Some(pretty) };

fn pretty(printer: &mut Printer, op: &Operation) -> bool {
    if op.name == "tpu.bitcast" {
        let (names, from, to) = (Commas(&op.operands), op.operands[0].ty(), op.results[0].ty());
        printer.line(format_args!("{}{} {names} : {from} -> {to}", Results(op), op.name));
        return true;
    }
    upstream::pretty(printer, op)
}

/// The grid of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// The number of times that the kernel runs.
    pub steps: usize,
    /// The number of cores of the device that run the kernel. `steps` is a multiple of it. All cores run the same
    /// number of steps, and the steps of a core are consecutive.
    pub cores: usize,
}

impl Kernel {
    /// Returns the text that later versions of libtpu can also read.
    pub fn stable_text(&self, name: &str, grid: Grid) -> String {
        let version = ("stable_mosaic.version", Attribute::i64(STABLE_VERSION));
        self.text(&STABLE, vec![version], name, grid)
    }

    /// Returns the text for readers.
    pub fn plain_text(&self, name: &str, grid: Grid) -> String {
        self.text(&PLAIN, Attributes::new(), name, grid)
    }

    /// Like [`plain_text`](Kernel::plain_text). Also names the place in the source of the emitter that adds each
    /// operation. The tests compare mutants of operations from the same place.
    pub fn text_with_sources(&self, name: &str, grid: Grid) -> String {
        self.text(&WITH_SOURCES, Attributes::new(), name, grid)
    }

    fn text(&self, form: &'static Form, attributes: Attributes, name: &str, grid: Grid) -> String {
        let (parameters, scratch) = (self.parameters.borrow(), self.scratch.borrow());
        let memories = parameters.iter().map(|parameter| &parameter.memory).chain(scratch.iter());
        let arguments: Vec<Value> = std::iter::once(&self.step).chain(memories).copied().collect();
        let main_attributes = launch(&parameters, scratch.len(), grid);

        // The position of a step's window is block `step` of the rows and block 0 of the columns.
        let windows = Builder::new(&MOSAIC);
        let step = windows.argument(Type::scalar(Elem::I32));
        let place = [step, windows.materialized(Value::constant(step.ty(), 0))];

        self.builder.read(|constants, body| {
            windows.read(|window_constants, window_body| {
                let function = |name, arguments, attributes, constants, body| Function {
                    name,
                    visibility: None,
                    arguments,
                    argument_attributes: Vec::new(),
                    returns: Vec::new(),
                    attributes,
                    constants,
                    body,
                };
                let main = function(name, arguments, main_attributes, constants, body);
                let rows_of_step =
                    function(ROWS_OF_STEP, vec![step], Attributes::new(), window_constants, window_body);
                let rows_of_step = Function { returns: place.to_vec(), ..rows_of_step };
                print(form, &Module { name: None, attributes, functions: vec![main, rows_of_step] })
            })
        })
    }
}

/// The name of the function that returns the position of a step's windows.
const ROWS_OF_STEP: &str = "rows_of_step";

/// Returns the attributes with which libtpu runs a kernel: its grid, its windows and its memory.
fn launch(parameters: &[Parameter], scratch: usize, grid: Grid) -> Attributes {
    let window = |parameter: &Parameter| {
        let bounds = Attribute::i64s(parameter.memory.ty().dims().iter().copied());
        let function = Attribute::Verbatim(format!("@{ROWS_OF_STEP}").into());
        Attribute::Dictionary(match parameter.window {
            true => vec![("transform_indices", function), ("window_bounds", bounds)],
            false => Attributes::new(),
        })
    };
    // libtpu splits a parallel dimension over the cores of a device.
    let semantics = if grid.cores > 1 { "parallel" } else { "arbitrary" };
    let semantics = Attribute::Enum("tpu.dimension_semantics<", semantics);
    vec![
        ("dimension_semantics", Attribute::List(vec![semantics])),
        ("iteration_bounds", Attribute::i64s([grid.steps])),
        ("scalar_prefetch", Attribute::i64(0)),
        ("scratch_operands", Attribute::i64(scratch)),
        ("tpu.core_type", Attribute::Enum("tpu.core_type<", "tc")),
        ("window_params", Attribute::List(parameters.iter().map(window).collect())),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::{Reduce, Space};
    use super::*;
    use crate::semantics::arith::Arith;

    /// Returns a kernel with every control structure and some operations of each kind.
    fn kernel() -> Kernel {
        let kernel = Kernel::new();
        let k = &kernel;
        let logits = k.in_hbm(Elem::Bf16, &[16, 256]);
        let results = k.window(Elem::I32, 128);
        let buffer = k.scratch(Elem::Bf16, &[8, 256], Space::Vmem);
        k.comment("a comment");
        let x = k.load(&buffer, k.i32(128));
        let start = [k.trunc(x), k.splat(k.i32(1))];
        let state = k.for_each("a loop", k.i32(3), start, |i, [a, b]| [k.add(a, i), b]);
        let [found, _] = k.while_loop(
            "a search",
            state,
            |[a, b]| k.any(k.lt(a, b)),
            |[a, b]| [k.max(a, b), k.choose(k.le(a, b), a, b)],
        );
        k.when("a branch", k.eq(k.step(), k.i32(0)), || k.store(&results, k.i32(0), found));
        let row = k.mul(k.step(), k.i32(8));
        k.slice(&logits, &[row, k.i32(0)], &[8, 128]);
        kernel
    }

    #[test]
    fn the_plain_text_is_for_readers() {
        let text = kernel().plain_text("name", Grid { steps: 2, cores: 1 });
        assert_eq!(text, include_str!("../testdata/mosaic_plain.mlir"), "{text}");
    }

    #[test]
    fn the_versioned_text_is_generic() {
        let text = kernel().stable_text("name", Grid { steps: 2, cores: 1 });
        assert_eq!(text, include_str!("../testdata/mosaic_versioned.mlir"), "{text}");
    }

    #[test]
    fn le_and_max_are_one_operation() {
        let k = &Kernel::new();
        k.le(k.step(), k.i32(5));
        k.max(k.step(), k.i32(5));
        let text = k.plain_text("name", Grid { steps: 1, cores: 1 });
        for line in ["%2 = arith.cmpi sge, %1, %0 : i32", "%3 = arith.maxsi %0, %1 : i32"] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn reductions_start_with_the_identity_of_their_type() {
        for (how, elem, identity) in [
            (Reduce::Min, Elem::I32, "dense<2147483647> : vector<8xi32>"),
            (Reduce::Max, Elem::F32, "dense<0xFF800000> : vector<8xf32>"),
            (Reduce::Or, Elem::I32, "dense<0> : vector<8xi32>"),
        ] {
            let k = &Kernel::new();
            k.over_lanes(how, k.load(&k.window(elem, 128), k.i32(0)));
            assert!(
                k.plain_text("name", Grid { steps: 1, cores: 1 }).contains(identity),
                "{how:?} of {elem}"
            );
        }
    }
}

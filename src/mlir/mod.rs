//! Builders of MLIR text: StableHLO programs and the Mosaic kernels inside them.
//!
//! Both builders share one small intermediate representation:
//!
//! ```text
//!   kernels/stablehlo     kernels/tpu           the algorithms
//!          │                   │
//!   stablehlo::Hlo      mosaic::Kernel          a builder per target: names, attributes, types
//!          │                   │
//!          ├── arith ──────────┤                `Arith` for every builder, from a table of names
//!          │                upstream            MLIR's own dialects: arith, math, vector, memref, scf
//!          └────── builder ────┘                insertion point, constants, regions, loops
//!                     │
//!            ir, types, check, print            values and operations, rules for types, text
//! ```
//!
//! * [`types`] contains element types, shapes and the types of values. [`ir`] contains values, attributes,
//!   operations, regions, functions and modules. They do not depend on a dialect.
//! * [`builder::Builder`] adds operations to the innermost open region. It writes constants where the dialect requires
//!   them, and it builds regions and loops. It checks every operation that is added. The rules of the dialect must
//!   accept the types, and every operand must still be visible. The rules of a dialect are based on the rules in
//!   [`check`]. A violation is a mistake in a kernel. It causes a panic, and the message names the operation and its
//!   types.
//! * [`mod@print`] prints MLIR's generic form of every operation. A [`print::Form`] adds a prefix, comments, or a
//!   function that prints some operations in the custom syntax of their dialect.
//! * [`arith::Elementwise`] is a table of names. A builder that implements it gets
//!   [`Arith`](crate::semantics::arith::Arith), so it can run all of `src/semantics`.
//!   [`WideArith`](crate::semantics::arith::WideArith) differs too much between targets, so each builder implements it.
//!   StableHLO has 64-bit integers. A TPU core has only pairs of registers.
//!
//! # How to add an operation
//!
//! Add a method to the builder of the target (`self.builder.op(name).operands(…).attribute(…).result(ty)`), a rule to
//! the `check` of its dialect, and an example to the test of these rules. The generic form needs no other change. Add
//! an arm to the dialect's pretty form if readers or parsers need it.
//!
//! # How to add a target
//!
//! A target that is written in an MLIR dialect, for example Triton, needs a module with
//!
//! 1. a [`builder::Dialect`]: its constants and its rules. The rules of [`upstream`] can be reused;
//! 2. a struct that contains a [`builder::Builder`], with a method per operation of the dialect. Its loops are
//!    one-line calls of [`builder::Builder::while_loop`], [`upstream::for_each`] and [`upstream::if_else`];
//! 3. an implementation of [`arith::Elementwise`];
//! 4. a [`print::Form`].
//!
//! A target that is not MLIR, for example PTX, needs items 1 to 3. Instead of a form it needs a function that prints
//! the operations. [`builder::Builder::read`] provides the operations. The tests of this module contain an example.

pub mod arith;
pub mod builder;
pub mod check;
pub mod ir;
pub mod mosaic;
pub mod print;
pub mod reduce;
pub mod stablehlo;
pub mod types;
pub mod upstream;

/// A third target: instructions on registers, as in PTX. It shows that a target does not need its own values, regions
/// or loops.
#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::arith::{Binary, Elementwise, Predicate};
    use super::builder::{fixed, Builder, Dialect, Placement};
    use super::check::Checked;
    use super::ir::{Attributes, Node, Operation, Value};
    use super::types::{Elem, Type};
    use super::upstream;
    use crate::semantics::arith::Arith;
    use crate::semantics::clean::order_key;
    use crate::semantics::rules::least_weight;

    fn check(op: &Operation) -> Checked {
        upstream::check(op).unwrap_or(Err("there is no rule for this operation"))
    }

    static DIALECT: Dialect =
        Dialect { constant: "arith.constant", constants: Placement::FunctionEntry, check };

    struct Threads {
        builder: Builder,
    }

    impl Threads {
        fn while_loop<const N: usize>(
            &self,
            start: [Value; N],
            condition: impl FnOnce([Value; N]) -> Value,
            body: impl FnOnce([Value; N]) -> [Value; N],
        ) -> [Value; N] {
            let condition = |state: &[Value]| condition(fixed(state));
            let body = |state: &[Value]| body(fixed(state)).to_vec();
            fixed(&self.builder.while_loop(&upstream::WHILE, None, &start, condition, body))
        }
    }

    impl Elementwise for Threads {
        const SELECT: &'static str = "arith.select";
        const SCALAR_MASKS: bool = true;
        const BITCAST: &'static str = "arith.bitcast";

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
        fn repeat(&self, _: Value, ty: Type) -> Value {
            panic!("a thread has no {ty}")
        }
    }

    /// Prints instructions, one per line, and loops as labels and branches.
    fn print(text: &mut String, nodes: &[Node], labels: &mut usize) {
        for node in nodes {
            let Node::Operation(op) = node else { continue };
            let moves = |text: &mut String, to: &[Value], from: &[Value]| {
                for (to, from) in to.iter().zip(from) {
                    let _ = writeln!(text, "mov {to}, {from};");
                }
            };
            match op.name {
                "arith.constant" => {
                    let _ = writeln!(text, "mov {}, {};", op.results[0], op.attributes[0].1);
                }
                "scf.while" => {
                    *labels += 1;
                    let (label, [before, after]) = (*labels, op.regions.as_slice()) else { unreachable!() };
                    let (end, next) = (before.terminator().unwrap(), after.terminator().unwrap());
                    moves(text, &before.arguments, &op.operands);
                    let _ = writeln!(text, "loop{label}:");
                    print(text, &before.body, labels);
                    moves(text, &op.results, &end.operands[1..]);
                    let _ = writeln!(text, "@!{} bra end{label};", end.operands[0]);
                    moves(text, &after.arguments, &end.operands[1..]);
                    print(text, &after.body, labels);
                    moves(text, &before.arguments, &next.operands);
                    let _ = writeln!(text, "bra loop{label};\nend{label}:");
                }
                "scf.condition" | "scf.yield" => {}
                name => {
                    let name = name.strip_prefix("arith.").unwrap();
                    let operands: Vec<String> = op.operands.iter().map(Value::to_string).collect();
                    let predicate = op.integer("predicate").map_or_else(String::new, |p| format!(".{p}"));
                    let _ = writeln!(text, "{name}{predicate} {}, {};", op.results[0], operands.join(", "));
                }
            }
        }
    }

    #[test]
    fn a_third_target_needs_a_table_of_names_and_a_printer() {
        let threads = &Threads { builder: Builder::new(&DIALECT) };
        let bits = threads.builder.argument(Type::scalar(Elem::I32));
        let key = order_key(threads, bits);
        let [found] = threads.while_loop(
            [least_weight(threads, key, threads.int(0))],
            |[x]| threads.lt(x, threads.int(9)),
            |[x]| [threads.add(x, x)],
        );
        threads.or(found, key);
        let mut text = String::new();
        threads.builder.read(|constants, body| {
            let mut labels = 0;
            print(&mut text, constants, &mut labels);
            print(&mut text, body, &mut labels);
        });
        let expected = "
mov %1, 31 : i32;
mov %3, 2147483647 : i32;
mov %6, 0 : i32;
mov %9, 9 : i32;
shrsi %2, %0, %1;
andi %4, %2, %3;
xori %5, %0, %4;
maxsi %7, %5, %6;
mov %8, %7;
loop1:
cmpi.2 %10, %8, %9;
mov %13, %8;
@!%10 bra end1;
mov %11, %8;
addi %12, %11, %11;
mov %8, %12;
bra loop1;
end1:
ori %14, %13, %5;
";
        assert_eq!(text, expected.trim_start());
    }
}

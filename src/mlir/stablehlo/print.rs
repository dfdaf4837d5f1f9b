//! The pretty form of StableHLO operations.

use crate::mlir::ir::{types_of, Commas, Node, Operation, ResultTypes};
use crate::mlir::print::{Form, Printer, Results};

/// The form of programs that plugins read.
pub(super) static PRETTY: Form = Form { prefix: "", comments: false, sources: false, pretty: Some(pretty) };

fn pretty(printer: &mut Printer, op: &Operation) -> bool {
    let (left, name, names) = (Results(op), op.name, Commas(&op.operands));
    let operand = |i: usize| op.operands[i];
    let (from, to) = (Commas(op.operand_types()), ResultTypes(op.result_types()));
    match name {
        "stablehlo.constant" => printer.line(format_args!("{left}{name} {}", op.attributes[0].1)),
        "stablehlo.return" => printer.line(format_args!("{name} {names} : {from}")),
        "stablehlo.while" => pretty_while(printer, op),
        // StableHLO has no custom syntax for a gather. Its printer writes the attributes in `<{}>`.
        "stablehlo.gather" => printer.generic(op, ["<{", "}>"]),
        "stablehlo.compare" => {
            let (direction, kind) = (op.case("comparison_direction"), op.case("compare_type"));
            printer.line(format_args!("{left}{name} {direction}, {names}, {kind} : ({from}) -> {to}"));
        }
        "stablehlo.select" => {
            printer.line(format_args!("{left}{name} {names} : {}, {to}", operand(0).ty()));
        }
        "stablehlo.convert" | "stablehlo.bitcast_convert" | "stablehlo.reshape" => {
            printer.line(format_args!("{left}{name} {names} : ({from}) -> {to}"));
        }
        "stablehlo.broadcast_in_dim" => {
            let dims = op.integers("broadcast_dimensions");
            printer.line(format_args!("{left}{name} {names}, dims = {dims:?} : ({from}) -> {to}"));
        }
        "stablehlo.transpose" => {
            let dims = op.integers("permutation");
            printer.line(format_args!("{left}{name} {names}, dims = {dims:?} : ({from}) -> {to}"));
        }
        "stablehlo.iota" => {
            let dim = op.integer("iota_dimension").unwrap_or_default();
            printer.line(format_args!("{left}{name} dim = {dim} : {to}"));
        }
        "stablehlo.concatenate" => {
            let dim = op.integer("dimension").unwrap_or_default();
            printer.line(format_args!("{left}{name} {names}, dim = {dim} : ({from}) -> {to}"));
        }
        "stablehlo.slice" => {
            let limits = op.integers("limit_indices");
            let ranges = op.integers("start_indices").iter().zip(limits);
            let ranges = Commas(ranges.map(|(start, limit)| format!("{start}:{limit}")));
            printer.line(format_args!("{left}{name} {names} [{ranges}] : ({from}) -> {to}"));
        }
        "stablehlo.pad" => {
            let [low, high, interior] =
                ["edge_padding_low", "edge_padding_high", "interior_padding"].map(|name| op.integers(name));
            let padding = format!("low = {low:?}, high = {high:?}, interior = {interior:?}");
            printer.line(format_args!("{left}{name} {names}, {padding} : ({from}) -> {to}"));
        }
        "stablehlo.reduce" => return pretty_reduce(printer, op),
        "stablehlo.custom_call" => return false,
        _ => printer.line(format_args!("{left}{name} {names} : {to}")),
    }
    true
}

fn pretty_while(printer: &mut Printer, op: &Operation) {
    let [condition, body] = op.regions.as_slice() else {
        unreachable!("checked when the operation was added")
    };
    let pairs = condition.arguments.iter().zip(&op.operands);
    let pairs = Commas(pairs.map(|(argument, start)| format!("{argument} = {start}")));
    printer.line(format_args!("{}{}({pairs}) : {}", Results(op), op.name, Commas(types_of(&op.operands))));
    printer.line("cond {");
    printer.body(&condition.body);
    printer.line("} do {");
    printer.body(&body.body);
    printer.line("}");
}

/// Prints the short form, which is for a region with one operation.
fn pretty_reduce(printer: &mut Printer, op: &Operation) -> bool {
    let [region] = op.regions.as_slice() else { return false };
    let [Node::Operation(combine), Node::Operation(_)] = region.body.as_slice() else { return false };
    let (value, start, dims) = (op.operands[0], op.operands[1], op.integers("dimensions"));
    printer.line(format_args!(
        "{}{}({value} init: {start}) applies {} across dimensions = {dims:?} : ({}) -> {}",
        Results(op),
        op.name,
        combine.name,
        Commas(op.operand_types()),
        ResultTypes(op.result_types())
    ));
    true
}

#[cfg(test)]
mod tests {
    use super::super::{CallConfig, Elem, Hlo, Reduce, Value};
    use crate::mlir::arith::{Elementwise, Predicate};
    use crate::mlir::print::GENERIC;
    use crate::semantics::arith::Arith;

    /// Returns a program with an operation of each kind.
    fn program() -> (Hlo, Value) {
        let program = Hlo::new();
        let h = &program;
        let (x, y) = (h.argument(Elem::I32, &[2, 6]), h.argument(Elem::I32, &[2]));
        let sum = h.add(x, y);
        let mask = h.lt(x, h.int(-1));
        h.select(mask, sum, h.int(7));
        h.not(mask);
        h.reshape(h.slice(x, 1, 1, 4), &[6]);
        h.pad(x, 1, 1, 2, "-2147483648");
        h.transpose(x);
        h.iota(&[2, 6], 1);
        h.bitcast(h.convert(x, Elem::U16), Elem::Bf16);
        h.gather_rows(x, h.reduce(x, Reduce::Min));
        h.stack(&[x, x]);
        h.custom_call("callee", &CallConfig::Text("{\"a\":1}".to_owned()), &[x], &[(Elem::U64, vec![1, 2])]);
        let start = [h.broadcast(h.int(0), &[2]), h.constant_false()];
        let [last, _] = h.while_loop(start, |[_, go]| go, |[x, go]| [h.add(x, h.int(1)), go]);
        (program, last)
    }

    #[test]
    fn the_pretty_form_is_what_the_stablehlo_parser_expects() {
        let (program, result) = program();
        let text = program.finish("name", &[result]);
        assert_eq!(text, include_str!("../testdata/stablehlo_pretty.mlir"), "{text}");
    }

    #[test]
    fn the_generic_form_needs_no_code_of_the_dialect() {
        let (program, result) = program();
        let text = program.text(&GENERIC, "name", &[result]);
        assert_eq!(text, include_str!("../testdata/stablehlo_generic.mlir"), "{text}");
    }

    /// Returns the operations of the program that `build` creates.
    fn body(build: impl FnOnce(&Hlo)) -> Vec<String> {
        let h = &Hlo::new();
        build(h);
        let text = h.finish("name", &[]);
        let lines: Vec<&str> = text.lines().collect();
        lines[2..lines.len() - 3].iter().map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn comparisons_and_maxima_are_one_operation() {
        let lines = body(|h| {
            let (x, y) = (h.argument(Elem::I32, &[2]), h.argument(Elem::I32, &[2]));
            h.le(x, y);
            h.max(x, y);
            h.comparing(Predicate::Ge, h.argument(Elem::U64, &[2]), h.argument(Elem::U64, &[2]));
            h.flt(h.argument(Elem::Bf16, &[]), h.argument(Elem::Bf16, &[]));
        });
        let expected = "
%2 = stablehlo.compare LE, %0, %1, SIGNED : (tensor<2xi32>, tensor<2xi32>) -> tensor<2xi1>
%3 = stablehlo.maximum %0, %1 : tensor<2xi32>
%6 = stablehlo.compare GE, %4, %5, UNSIGNED : (tensor<2xui64>, tensor<2xui64>) -> tensor<2xi1>
%9 = stablehlo.compare LT, %7, %8, FLOAT : (tensor<bf16>, tensor<bf16>) -> tensor<i1>";
        assert_eq!(lines, expected.trim().lines().collect::<Vec<_>>());
    }

    #[test]
    fn reductions_start_with_the_identity_of_their_type() {
        for (how, elem, identity) in [
            (Reduce::Max, Elem::U64, "dense<0> : tensor<ui64>"),
            (Reduce::Min, Elem::U16, "dense<65535> : tensor<ui16>"),
            (Reduce::Max, Elem::F32, "dense<0xFF800000> : tensor<f32>"),
            (Reduce::Min, Elem::Bf16, "dense<0x7F80> : tensor<bf16>"),
            (Reduce::Max, Elem::F16, "dense<0xFC00> : tensor<f16>"),
            (Reduce::Min, Elem::I1, "dense<true> : tensor<i1>"),
        ] {
            let lines = body(|h| {
                h.reduce(h.argument(elem, &[2]), how);
            });
            assert!(lines[0].ends_with(&format!("stablehlo.constant {identity}")), "{lines:?}");
        }
    }
}

//! Type rules of StableHLO operations, according to the StableHLO specification.

use crate::mlir::check::{self, dimension, ensure, operands, result, Checked};
use crate::mlir::ir::{Attribute, Operation};
use crate::mlir::types::{Container, Elem, Type};

/// Returns how elements of a type are compared.
pub(super) fn compare_type(elem: Elem) -> &'static str {
    match elem {
        Elem::I32 => "SIGNED",
        Elem::F32 | Elem::Bf16 | Elem::F16 => "FLOAT",
        _ => "UNSIGNED",
    }
}

pub(super) fn check(op: &Operation) -> Checked {
    let tensor = |ty: Type| ty.container() == Container::Tensor && check::any_element(ty.elem());
    ensure(op.operand_types().chain(op.result_types()).all(tensor), "all values must be tensors")?;
    match op.name {
        "stablehlo.add"
        | "stablehlo.subtract"
        | "stablehlo.multiply"
        | "stablehlo.divide"
        | "stablehlo.remainder" => check::elementwise::<2>(op, check::number),
        "stablehlo.maximum" | "stablehlo.minimum" => check::elementwise::<2>(op, check::any_element),
        "stablehlo.and" | "stablehlo.or" | "stablehlo.xor" => {
            check::elementwise::<2>(op, check::integer_or_mask)
        }
        "stablehlo.shift_left" | "stablehlo.shift_right_arithmetic" | "stablehlo.shift_right_logical" => {
            check::elementwise::<2>(op, Elem::is_integer)
        }
        "stablehlo.not" => check::elementwise::<1>(op, check::integer_or_mask),
        "stablehlo.compare" => compare(op),
        "stablehlo.select" => check::select(op, false),
        "stablehlo.convert" => check::cast(op, check::any_element, check::any_element),
        "stablehlo.bitcast_convert" => check::bitcast(op),
        "stablehlo.constant" => check::constant(op),
        "stablehlo.broadcast_in_dim" => broadcast(op),
        "stablehlo.iota" => iota(op),
        "stablehlo.reshape" => check::reshape(op),
        "stablehlo.slice" => slice(op),
        "stablehlo.pad" => pad(op),
        "stablehlo.transpose" => transpose(op),
        "stablehlo.concatenate" => concatenate(op),
        "stablehlo.gather" => gather(op),
        "stablehlo.reduce" => reduce(op),
        "stablehlo.while" => check::while_loop(op, Type::tensor(Elem::I1, &[]), false),
        "stablehlo.return" => check::no_result(op),
        "stablehlo.custom_call" => custom_call(op),
        _ => Err("there is no rule for this operation"),
    }
}

fn compare(op: &Operation) -> Checked {
    check::comparison(op, check::any_element)?;
    let [a, _] = operands(op)?;
    ensure(op.case("compare_type") == compare_type(a.elem()), "the kind of comparison does not fit")?;
    let directions = ["EQ", "NE", "LT", "LE", "GT", "GE"];
    ensure(directions.contains(&op.case("comparison_direction")), "the direction does not exist")
}

/// Returns the numbers of an attribute that has one number for each dimension.
fn per_dimension<'a>(op: &'a Operation, attribute: &str, ty: Type) -> Result<&'a [i64], &'static str> {
    let numbers = op.integers(attribute);
    ensure(numbers.len() == ty.dims().len(), "there must be a number for each dimension")?;
    Ok(numbers)
}

/// Checks that operand and result have the same element type.
fn same_element(a: Type, b: Type) -> Checked {
    ensure(a.elem() == b.elem(), "operand and result must have the same element type")
}

fn broadcast(op: &Operation) -> Checked {
    let ([from], to) = (operands(op)?, result(op)?);
    same_element(from, to)?;
    let positions = per_dimension(op, "broadcast_dimensions", from)?;
    ensure(positions.windows(2).all(|pair| pair[0] < pair[1]), "dimensions must ascend")?;
    let fits = |(&position, &size): (&i64, &usize)| {
        let there = usize::try_from(position).ok().and_then(|at| to.dims().get(at));
        there.is_some_and(|&there| size == there || size == 1)
    };
    ensure(positions.iter().zip(from.dims()).all(fits), "a dimension that is not 1 changes its size")
}

fn iota(op: &Operation) -> Checked {
    let [] = operands(op)?;
    let to = result(op)?;
    ensure(check::number(to.elem()), "the element type is wrong")?;
    dimension(op, "iota_dimension", to).map(drop)
}

fn slice(op: &Operation) -> Checked {
    let ([from], to) = (operands(op)?, result(op)?);
    same_element(from, to)?;
    let (starts, limits) =
        (per_dimension(op, "start_indices", from)?, per_dimension(op, "limit_indices", from)?);
    ensure(per_dimension(op, "strides", from)?.iter().all(|&stride| stride == 1), "strides must be 1")?;
    ensure(to.dims().len() == from.dims().len(), "operand and result must have the same rank")?;
    for (i, (&start, &limit)) in starts.iter().zip(limits).enumerate() {
        let inside = 0 <= start && start <= limit && limit <= from.dims()[i] as i64;
        ensure(inside, "the slice is outside the operand")?;
        ensure(to.dims()[i] as i64 == limit - start, "the result must be as long as the slice")?;
    }
    Ok(())
}

fn pad(op: &Operation) -> Checked {
    let ([from, filler], to) = (operands(op)?, result(op)?);
    same_element(from, to)?;
    ensure(filler == Type::tensor(from.elem(), &[]), "the filler must be a scalar of the operand's type")?;
    ensure(to.dims().len() == from.dims().len(), "operand and result must have the same rank")?;
    let (low, high) =
        (per_dimension(op, "edge_padding_low", from)?, per_dimension(op, "edge_padding_high", from)?);
    ensure(per_dimension(op, "interior_padding", from)?.iter().all(|&n| n == 0), "nothing is put inside")?;
    let padded = (0..low.len()).all(|i| to.dims()[i] as i64 == from.dims()[i] as i64 + low[i] + high[i]);
    ensure(padded, "the result must be longer by the padding")
}

fn transpose(op: &Operation) -> Checked {
    let ([from], to) = (operands(op)?, result(op)?);
    same_element(from, to)?;
    let permutation = per_dimension(op, "permutation", from)?;
    let mut sorted = permutation.to_vec();
    sorted.sort_unstable();
    ensure(
        sorted.iter().copied().eq(0..sorted.len() as i64),
        "the permutation must name each dimension once",
    )?;
    let moved = permutation.iter().map(|&dim| from.dims()[dim as usize]);
    ensure(moved.eq(to.dims().iter().copied()), "the result must have the permuted shape")
}

fn concatenate(op: &Operation) -> Checked {
    let to = result(op)?;
    let dim = dimension(op, "dimension", to)?;
    ensure(!op.operands.is_empty(), "there must be operands")?;
    let mut length = 0;
    for from in op.operand_types() {
        same_element(from, to)?;
        ensure(from.dims().len() == to.dims().len(), "operands and result must have the same rank")?;
        let equal = |i: usize| i == dim || from.dims()[i] == to.dims()[i];
        ensure((0..to.dims().len()).all(equal), "operands may differ in length only")?;
        length += from.dims()[dim];
    }
    ensure(length == to.dims()[dim], "the result must be as long as all operands")
}

/// Checks a gather of whole rows of a table. It is the only kind of gather that kernels use.
fn gather(op: &Operation) -> Checked {
    let ([table, indices], to) = (operands(op)?, result(op)?);
    same_element(table, to)?;
    let ([_, width], [count, 1]) = (table.dims(), indices.dims()) else {
        return Err("table and indices must have two dimensions, indices one column");
    };
    ensure(indices.elem().is_integer(), "indices must be integers")?;
    ensure(op.integers("slice_sizes") == [1, *width as i64], "slices must be rows of the table")?;
    ensure(to.dims() == [*count, *width], "the result must be a row for each index")
}

fn reduce(op: &Operation) -> Checked {
    let ([from, start], to) = (operands(op)?, result(op)?);
    let [combine] = check::regions(op)?;
    let element = Type::tensor(from.elem(), &[]);
    ensure(start == element, "the start must be a scalar of the operand's type")?;
    check::region(combine, &[element, element], &[element])?;
    let kept = check::without_dimensions(from, op.integers("dimensions"))?;
    ensure(to == kept, "the result must lack the reduced dimensions, no others")
}

fn custom_call(op: &Operation) -> Checked {
    let layouts = |name: &str| match op.attribute(name) {
        Some(Attribute::List(layouts)) => layouts.len(),
        _ => 0,
    };
    let counts = (layouts("operand_layouts"), layouts("result_layouts"));
    ensure(counts == (op.operands.len(), op.results.len()), "there must be a layout for each array")?;
    let matrix = |ty: Type| matches!(ty.dims().len(), 0 | 2);
    ensure(op.operand_types().chain(op.result_types()).all(matrix), "arrays must have two dimensions")
}

#[cfg(test)]
mod tests {
    use super::super::{Hlo, Reduce, Value};
    use super::*;
    use crate::mlir::arith::{Elementwise, Predicate};
    use crate::mlir::check::testing::{assert_strict, op, region_of, Change};
    use crate::mlir::ir::Attributes;
    use crate::mlir::types::Constant;
    use crate::semantics::arith::Arith;

    fn tensor(elem: Elem, dims: &[usize]) -> Type {
        Type::tensor(elem, dims)
    }

    /// Returns an operation of each kind.
    fn examples() -> Vec<Operation> {
        let none = Attributes::new;
        let numbers = |name, numbers: &[usize]| (name, Attribute::i64s(numbers.iter().copied()));
        let (i32s, masks) = (tensor(Elem::I32, &[2, 5]), tensor(Elem::I1, &[2, 5]));
        let (int, mask) = (tensor(Elem::I32, &[]), tensor(Elem::I1, &[]));
        let row_major = |count| {
            Attribute::List(vec![Attribute::Verbatim("dense<[1, 0]> : tensor<2xindex>".into()); count])
        };
        let mut examples: Vec<Operation> = [
            "add",
            "subtract",
            "multiply",
            "divide",
            "remainder",
            "maximum",
            "minimum",
            "and",
            "or",
            "xor",
            "shift_left",
            "shift_right_arithmetic",
            "shift_right_logical",
        ]
        .map(|name| op(format!("stablehlo.{name}").leak(), &[i32s, i32s], &[i32s], none()))
        .into();
        let comparison = Hlo::comparison(Predicate::Lt, Elem::I32).1;
        let padding = vec![
            numbers("edge_padding_low", &[0, 1]),
            numbers("edge_padding_high", &[0, 2]),
            numbers("interior_padding", &[0, 0]),
        ];
        let ranges = vec![
            numbers("start_indices", &[0, 1]),
            numbers("limit_indices", &[2, 4]),
            numbers("strides", &[1, 1]),
        ];
        let layouts = vec![("operand_layouts", row_major(1)), ("result_layouts", row_major(1))];
        let value = Attribute::Constant(Constant { ty: i32s, bits: 1 });
        examples.extend([
            op("stablehlo.not", &[masks], &[masks], none()),
            op("stablehlo.compare", &[i32s, i32s], &[masks], comparison),
            op("stablehlo.select", &[masks, i32s, i32s], &[i32s], none()),
            op("stablehlo.convert", &[i32s], &[tensor(Elem::U64, &[2, 5])], none()),
            op("stablehlo.bitcast_convert", &[tensor(Elem::U16, &[2])], &[tensor(Elem::Bf16, &[2])], none()),
            op("stablehlo.constant", &[], &[i32s], vec![("value", value)]),
            op(
                "stablehlo.broadcast_in_dim",
                &[tensor(Elem::I32, &[2])],
                &[i32s],
                vec![numbers("broadcast_dimensions", &[0])],
            ),
            op("stablehlo.iota", &[], &[i32s], vec![("iota_dimension", Attribute::i64(1))]),
            op("stablehlo.reshape", &[i32s], &[tensor(Elem::I32, &[10])], none()),
            op("stablehlo.slice", &[i32s], &[tensor(Elem::I32, &[2, 3])], ranges),
            op("stablehlo.pad", &[i32s, int], &[tensor(Elem::I32, &[2, 8])], padding),
            op(
                "stablehlo.transpose",
                &[i32s],
                &[tensor(Elem::I32, &[5, 2])],
                vec![numbers("permutation", &[1, 0])],
            ),
            op(
                "stablehlo.concatenate",
                &[i32s, i32s],
                &[tensor(Elem::I32, &[4, 5])],
                vec![("dimension", Attribute::i64(0))],
            ),
            op(
                "stablehlo.gather",
                &[i32s, tensor(Elem::I32, &[7, 1])],
                &[tensor(Elem::I32, &[7, 5])],
                vec![numbers("slice_sizes", &[1, 5])],
            ),
            op("stablehlo.custom_call", &[i32s], &[masks], layouts),
            Operation {
                regions: vec![region_of(&[int, int], "stablehlo.return", &[int])],
                ..op(
                    "stablehlo.reduce",
                    &[i32s, int],
                    &[tensor(Elem::I32, &[2])],
                    vec![numbers("dimensions", &[1])],
                )
            },
            Operation {
                regions: vec![
                    region_of(&[i32s, mask], "stablehlo.return", &[mask]),
                    region_of(&[i32s, mask], "stablehlo.return", &[i32s, mask]),
                ],
                ..op("stablehlo.while", &[i32s, mask], &[i32s, mask], none())
            },
        ]);
        examples
    }

    #[test]
    fn one_wrong_type_is_refused() {
        let allowed = [
            ("stablehlo.convert", Change::Element),
            ("stablehlo.broadcast_in_dim", Change::Shape),
            ("stablehlo.iota", Change::Element),
            ("stablehlo.iota", Change::Shape),
            ("stablehlo.custom_call", Change::Element),
        ];
        assert_strict(check, &examples(), &allowed);
    }

    #[test]
    fn wrong_attributes_are_refused() {
        let with = |name: &str, attribute: &'static str, value: Attribute| {
            let mut op = examples().into_iter().find(|op| op.name == name).unwrap();
            let place = op.attributes.iter_mut().find(|(given, _)| *given == attribute).unwrap();
            place.1 = value;
            op
        };
        let numbers = |numbers: &[i64]| Attribute::Integers("i64", numbers.to_vec());
        for (name, attribute, value) in [
            ("stablehlo.compare", "compare_type", Attribute::Enum("stablehlo<comparison_type ", "FLOAT")),
            (
                "stablehlo.compare",
                "comparison_direction",
                Attribute::Enum("stablehlo<comparison_direction ", "AT"),
            ),
            ("stablehlo.broadcast_in_dim", "broadcast_dimensions", numbers(&[1])),
            ("stablehlo.broadcast_in_dim", "broadcast_dimensions", numbers(&[2])),
            ("stablehlo.broadcast_in_dim", "broadcast_dimensions", numbers(&[-1])),
            ("stablehlo.iota", "iota_dimension", Attribute::i64(2)),
            ("stablehlo.slice", "start_indices", numbers(&[0, 2])),
            ("stablehlo.slice", "limit_indices", numbers(&[2, 6])),
            ("stablehlo.slice", "strides", numbers(&[1, 2])),
            ("stablehlo.pad", "edge_padding_low", numbers(&[1, 1])),
            ("stablehlo.pad", "interior_padding", numbers(&[0, 1])),
            ("stablehlo.transpose", "permutation", numbers(&[0, 0])),
            ("stablehlo.transpose", "permutation", numbers(&[0, 1])),
            ("stablehlo.concatenate", "dimension", Attribute::i64(1)),
            ("stablehlo.gather", "slice_sizes", numbers(&[1, 4])),
            ("stablehlo.reduce", "dimensions", numbers(&[0])),
            ("stablehlo.reduce", "dimensions", numbers(&[2])),
        ] {
            let op = with(name, attribute, value);
            assert!(check(&op).is_err(), "{op} with {attribute} = {:?}", op.attribute(attribute));
        }
    }

    #[test]
    fn unknown_operations_and_types_are_refused() {
        let i32s = tensor(Elem::I32, &[2]);
        assert!(check(&op("stablehlo.tan", &[i32s], &[i32s], Attributes::new())).is_err());
        let vector = Type::vector(Elem::I32, &[2]);
        assert!(check(&op("stablehlo.add", &[vector, vector], &[vector], Attributes::new())).is_err());
        let masks = tensor(Elem::I1, &[2]);
        assert!(check(&op("stablehlo.add", &[masks, masks], &[masks], Attributes::new())).is_err());
    }

    fn ints(h: &Hlo) -> Value {
        h.argument(Elem::I32, &[4, 9])
    }

    #[test]
    #[should_panic(expected = "stablehlo.add(tensor<4x9xi32>, tensor<4x9xf32>) -> tensor<4x9xi32>: \
                    operands and result must have the same type")]
    fn a_panic_names_the_operation_and_its_types() {
        let h = &Hlo::new();
        h.add(ints(h), h.argument(Elem::F32, &[4, 9]));
    }

    #[test]
    #[should_panic(expected = "tensor<9xi32> cannot be repeated to tensor<4x9xi32>")]
    fn shapes_without_a_common_prefix_are_refused() {
        let h = &Hlo::new();
        h.add(ints(h), h.argument(Elem::I32, &[9]));
    }

    #[test]
    #[should_panic(
        expected = "stablehlo.while(tensor<4x9xi32>) -> tensor<4x9xi32>: a region yields the wrong types"
    )]
    fn a_loop_that_changes_the_type_of_its_state_is_refused() {
        let h = &Hlo::new();
        h.while_loop([ints(h)], |_| h.constant_false(), |[x]| [h.convert(x, Elem::F32)]);
    }

    #[test]
    #[should_panic(expected = "a region yields the wrong types")]
    fn a_condition_of_many_elements_is_refused() {
        let h = &Hlo::new();
        h.while_loop([ints(h)], |[x]| h.lt(x, h.int(0)), |state| state);
    }

    #[test]
    #[should_panic(expected = "belongs to a region that is closed")]
    fn values_of_a_closed_region_are_refused() {
        let h = &Hlo::new();
        let mut inside = None;
        h.while_loop(
            [ints(h)],
            |[x]| {
                inside = Some(h.add(x, x));
                h.constant_false()
            },
            |state| state,
        );
        h.add(inside.unwrap(), h.int(1));
    }

    #[test]
    #[should_panic(expected = "belongs to a region that is closed")]
    fn values_of_the_condition_are_refused_in_the_body() {
        let h = &Hlo::new();
        let inside = std::cell::Cell::new(None);
        h.while_loop(
            [ints(h)],
            |[x]| {
                inside.set(Some(h.add(x, x)));
                h.constant_false()
            },
            |_| [inside.get().unwrap()],
        );
    }

    #[test]
    #[should_panic(expected = "Or does not combine elements of type f32")]
    fn senseless_reductions_are_refused() {
        let h = &Hlo::new();
        h.reduce(h.argument(Elem::F32, &[4]), Reduce::Or);
    }

    #[test]
    #[should_panic(expected = "70000 is no constant of type ui16")]
    fn a_filler_of_another_type_is_refused() {
        let h = &Hlo::new();
        h.pad(h.argument(Elem::U16, &[4]), 0, 0, 1, "70000");
    }
}

//! Rules for the types of operations that several dialects share.
//!
//! A rule returns the reason why it rejects an operation. The builder adds the operation's name and types.

use super::ir::{types_of, Attribute, Operation, Region};
use super::types::{Elem, Type};

/// `Ok` if the types of an operation are correct. Otherwise the reason why they are not.
pub type Checked = Result<(), &'static str>;

/// Element types that a rule accepts.
pub type Accepts = fn(Elem) -> bool;

/// Accepts integers, floats and masks.
pub fn any_element(elem: Elem) -> bool {
    elem.bits().is_some()
}

/// Accepts integers and masks.
pub fn integer_or_mask(elem: Elem) -> bool {
    elem.is_integer() || elem.is_mask()
}

/// Accepts integers and floats.
pub fn number(elem: Elem) -> bool {
    elem.is_integer() || elem.is_float()
}

/// Returns the error `reason` unless `ok`.
pub fn ensure(ok: bool, reason: &'static str) -> Checked {
    ok.then_some(()).ok_or(reason)
}

/// Returns the types of the operands. There must be `N` operands.
pub fn operands<const N: usize>(op: &Operation) -> Result<[Type; N], &'static str> {
    let types: Vec<Type> = op.operand_types().collect();
    types.try_into().map_err(|_| "the number of operands is wrong")
}

/// Returns the type of the only result.
pub fn result(op: &Operation) -> Result<Type, &'static str> {
    match op.results.as_slice() {
        [result] => Ok(result.ty()),
        _ => Err("there must be one result"),
    }
}

/// Checks that there is no result.
pub fn no_result(op: &Operation) -> Checked {
    ensure(op.results.is_empty(), "there must be no result")
}

/// Checks that `N` operands and the result have the same type.
pub fn elementwise<const N: usize>(op: &Operation, accepts: Accepts) -> Checked {
    let (operands, result) = (operands::<N>(op)?, result(op)?);
    ensure(accepts(result.elem()), "the element type is wrong")?;
    ensure(operands.iter().all(|&ty| ty == result), "operands and result must have the same type")
}

/// Checks that two operands have the same type and that the result is a mask of their shape.
pub fn comparison(op: &Operation, accepts: Accepts) -> Checked {
    let ([a, b], result) = (operands(op)?, result(op)?);
    ensure(a == b, "operands must have the same type")?;
    ensure(accepts(a.elem()), "the element type is wrong")?;
    ensure(result == a.with_elem(Elem::I1), "the result must be a mask of the operands' shape")
}

/// Checks that two operands have the result's type. The mask has their shape, or is a scalar if the dialect allows
/// this.
pub fn select(op: &Operation, scalar_masks: bool) -> Checked {
    let ([mask, a, b], result) = (operands(op)?, result(op)?);
    let scalar = scalar_masks && mask == Type::scalar(Elem::I1);
    ensure(scalar || mask == result.with_elem(Elem::I1), "the mask must be an i1 of the result's shape")?;
    ensure(a == result && b == result, "both choices must have the result's type")
}

/// Checks a conversion between element types.
pub fn cast(op: &Operation, from: Accepts, to: Accepts) -> Checked {
    let ([operand], result) = (operands(op)?, result(op)?);
    ensure(operand.same_shape(result), "operand and result must have the same shape")?;
    ensure(from(operand.elem()), "the operand's element type is wrong")?;
    ensure(to(result.elem()), "the result's element type is wrong")
}

/// Checks that the element type changes but its width does not.
pub fn bitcast(op: &Operation) -> Checked {
    cast(op, number, number)?;
    let ([operand], result) = (operands(op)?, result(op)?);
    ensure(operand.elem().bits() == result.elem().bits(), "element types must have the same width")
}

/// Checks a constant of the result's type.
pub fn constant(op: &Operation) -> Checked {
    let [] = operands(op)?;
    let Some(Attribute::Constant(value)) = op.attribute("value") else { return Err("there is no value") };
    ensure(value.ty == result(op)?, "value and result must have the same type")
}

/// Checks that operand and result have the same number of elements. Their shapes can differ.
pub fn reshape(op: &Operation) -> Checked {
    let ([from], to) = (operands(op)?, result(op)?);
    ensure(from.container() == to.container(), "operand and result must be held alike")?;
    ensure(from.elem() == to.elem(), "operand and result must have the same element type")?;
    ensure(from.elements() == to.elements(), "operand and result must have as many elements")
}

/// Returns the dimension of `ty` that an attribute selects.
pub fn dimension(op: &Operation, attribute: &str, ty: Type) -> Result<usize, &'static str> {
    let dim = op.integer(attribute).and_then(|dim| usize::try_from(dim).ok());
    dim.filter(|&dim| dim < ty.dims().len()).ok_or("the dimension does not exist")
}

/// Returns `ty` without the dimensions `reduced`, which must exist.
pub fn without_dimensions(ty: Type, reduced: &[i64]) -> Result<Type, &'static str> {
    let rank = ty.dims().len() as i64;
    ensure(reduced.iter().all(|dim| (0..rank).contains(dim)), "a reduced dimension does not exist")?;
    let kept = (0..rank).filter(|dim| !reduced.contains(dim)).map(|dim| ty.dims()[dim as usize]);
    Ok(ty.with_dims(&kept.collect::<Vec<_>>()))
}

/// Returns the regions. There must be `N` regions.
pub fn regions<const N: usize>(op: &Operation) -> Result<&[Region; N], &'static str> {
    op.regions.as_slice().try_into().map_err(|_| "the number of regions is wrong")
}

/// Checks that the region takes arguments of the types `arguments` and yields values of the types `yielded`.
pub fn region(region: &Region, arguments: &[Type], yielded: &[Type]) -> Checked {
    let given: Vec<Type> = types_of(&region.arguments).collect();
    ensure(given == arguments, "a region's arguments have the wrong types")?;
    ensure(region.yielded() == yielded, "a region yields the wrong types")
}

/// Checks a loop that repeats while a condition is true. Every state must have the same types. The condition must have
/// the type `condition`.
pub fn while_loop(op: &Operation, condition: Type, condition_passes_state: bool) -> Checked {
    let [before, after] = regions(op)?;
    let state: Vec<Type> = op.operand_types().collect();
    let passed = if condition_passes_state { state.as_slice() } else { &[] };
    region(before, &state, &[&[condition], passed].concat())?;
    region(after, &state, &state)?;
    ensure(op.result_types().eq(state), "results must have the types of the state")
}

/// Checks that the type is a scalar whose element type `accepts` accepts.
pub fn scalar(ty: Type, accepts: Accepts) -> Checked {
    ensure(ty == Type::scalar(ty.elem()) && accepts(ty.elem()), "an operand must be another scalar")
}

/// Tests of a dialect's rules, with correct operations and with variants that have one wrong type.
#[cfg(test)]
pub(super) mod testing {
    use super::super::ir::{Attributes, Node, Value};
    use super::super::types::{Container, Space};
    use super::*;
    use std::panic::Location;

    fn values(types: &[Type]) -> Vec<Value> {
        types.iter().map(|&ty| Value::constant(ty, 0)).collect()
    }

    /// Returns an operation without regions.
    pub(crate) fn op(
        name: &'static str,
        operands: &[Type],
        results: &[Type],
        attributes: Attributes,
    ) -> Operation {
        let (operands, results) = (values(operands), values(results));
        let source = Location::caller();
        Operation { name, operands, results, attributes, regions: Vec::new(), label: None, source }
    }

    /// Returns a region that contains only its terminator.
    pub(crate) fn region_of(arguments: &[Type], terminator: &'static str, yielded: &[Type]) -> Region {
        let end = op(terminator, yielded, &[], Attributes::new());
        Region { arguments: values(arguments), body: vec![Node::Operation(end)] }
    }

    /// The change that is applied to a correct operation.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(crate) enum Change {
        Element,
        Shape,
        Memory,
        Count,
    }

    fn changed(change: Change, ty: Type) -> Option<Type> {
        match change {
            Change::Element => {
                let elem = if ty.elem() == Elem::F32 { Elem::I32 } else { Elem::F32 };
                Some(ty.with_elem(elem))
            }
            Change::Shape => Some(ty.with_dims(&[ty.dims(), &[3]].concat())),
            Change::Memory => match ty.container() {
                Container::Memref(space) => {
                    let other = if space == Space::Vmem { Space::Smem } else { Space::Vmem };
                    Some(Type::memref(ty.elem(), ty.dims(), other))
                }
                _ => None,
            },
            Change::Count => None,
        }
    }

    /// Returns every list of values that differs from `list` in one change.
    fn changed_lists(change: Change, list: &[Value]) -> Vec<Vec<Value>> {
        if change == Change::Count {
            let longer = [list, &values(&[Type::scalar(Elem::I1)])].concat();
            let shorter = list.split_last().map(|(_, shorter)| shorter.to_vec());
            return std::iter::once(longer).chain(shorter).collect();
        }
        let with = |i: usize| {
            let mut list = list.to_vec();
            list[i] = Value::constant(changed(change, list[i].ty())?, 0);
            Some(list)
        };
        (0..list.len()).filter_map(with).collect()
    }

    fn wrong(change: Change, right: &Operation) -> Vec<Operation> {
        let mut all = Vec::new();
        for operands in changed_lists(change, &right.operands) {
            all.push(Operation { operands, ..right.clone() });
        }
        for results in changed_lists(change, &right.results) {
            all.push(Operation { results, ..right.clone() });
        }
        for (i, region) in right.regions.iter().enumerate() {
            let replaced = |region: Region| {
                let mut op = right.clone();
                op.regions[i] = region;
                op
            };
            for arguments in changed_lists(change, &region.arguments) {
                all.push(replaced(Region { arguments, ..region.clone() }));
            }
            let end = region.terminator().expect("a region has a terminator");
            for operands in changed_lists(change, &end.operands) {
                let end = Node::Operation(Operation { operands, ..end.clone() });
                all.push(replaced(Region { body: vec![end], ..region.clone() }));
            }
        }
        if change == Change::Count {
            let mut op = right.clone();
            op.regions.push(Region::default());
            all.extend((!right.regions.is_empty()).then_some(op));
        }
        all
    }

    /// Asserts that `check` accepts the operations and rejects every variant with one wrong type. Variants in `allowed`
    /// may be accepted. `check` must accept at least one variant of each entry of `allowed`, so that no entry is
    /// obsolete.
    pub(crate) fn assert_strict(
        check: fn(&Operation) -> Checked,
        right: &[Operation],
        allowed: &[(&str, Change)],
    ) {
        for op in right {
            assert_eq!(check(op), Ok(()), "{op}");
            for change in [Change::Element, Change::Shape, Change::Memory, Change::Count] {
                let wrong = wrong(change, op);
                let accepted = wrong.iter().find(|op| check(op).is_ok());
                if allowed.contains(&(op.name, change)) {
                    assert!(accepted.is_some(), "{change:?} is always refused: {op}");
                } else if let Some(accepted) = accepted {
                    panic!("{accepted} is accepted; right is {op}");
                }
            }
        }
    }
}

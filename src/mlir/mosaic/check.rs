//! Type rules for operations in Mosaic kernels: the rules of the `tpu` dialect, and the additional rules of a TPU
//! for MLIR's dialects.

use crate::mlir::check::{self, ensure, operands, result, Checked};
use crate::mlir::ir::Operation;
use crate::mlir::types::{Container, Elem, Space, Type};
use crate::mlir::upstream;

pub(super) fn check(op: &Operation) -> Checked {
    if let Some(checked) = upstream::check(op) {
        return checked.and_then(|()| space(op));
    }
    match op.name {
        "tpu.bitcast" => check::bitcast(op),
        "tpu.fptosi" => check::cast(op, Elem::is_float, Elem::is_integer),
        "tpu.iota" => iota(op),
        "tpu.concatenate" => concatenate(op),
        "tpu.dynamic_rotate" => rotate(op),
        "tpu.assume_multiple" => assume_multiple(op),
        "tpu.vector_store" => vector_store(op),
        "tpu.memref_slice" => slice(op),
        "tpu.memref_squeeze" => squeeze(op),
        "tpu.enqueue_dma" => {
            let [from, to, semaphore] = operands(op)?;
            copy(op, from, to, semaphore)
        }
        "tpu.wait_dma2" => {
            let [semaphore, from, to] = operands(op)?;
            copy(op, from, to, semaphore)
        }
        _ => Err("there is no rule for this operation"),
    }
}

fn in_space(memory: Type, space: Space) -> bool {
    memory.container() == Container::Memref(space)
}

/// Checks that vectors are loaded from VMEM, and scalars from SMEM.
fn space(op: &Operation) -> Checked {
    let memory = |i: usize| op.operands[i].ty();
    match op.name {
        "vector.load" => ensure(in_space(memory(0), Space::Vmem), "vectors must be in VMEM"),
        "memref.load" => ensure(in_space(memory(0), Space::Smem), "scalars must be in SMEM"),
        "memref.store" => ensure(in_space(memory(1), Space::Smem), "scalars must be in SMEM"),
        _ => Ok(()),
    }
}

fn iota(op: &Operation) -> Checked {
    let [] = operands(op)?;
    let to = result(op)?;
    ensure(
        to.container() == Container::Vector && to.elem() == Elem::I32,
        "the result must be a vector of i32",
    )?;
    check::without_dimensions(to, op.integers("dimensions")).map(drop)
}

fn concatenate(op: &Operation) -> Checked {
    let to = result(op)?;
    ensure(op.operands.len() > 1, "there must be several operands")?;
    let mut dims = to.dims().to_vec();
    let dimension = op.integer("dimension").and_then(|dimension| usize::try_from(dimension).ok());
    let dimension =
        dimension.filter(|&dimension| dimension < dims.len()).ok_or("the dimension must exist")?;
    ensure(dims[dimension] % op.operands.len() == 0, "the operands must have equal sizes")?;
    dims[dimension] /= op.operands.len();
    ensure(to.container() == Container::Vector, "the result must be a vector")?;
    let part = to.with_dims(&dims);
    ensure(op.operand_types().all(|ty| ty == part), "each operand must be a part of the result")
}

fn rotate(op: &Operation) -> Checked {
    let ([vector, by], to) = (operands(op)?, result(op)?);
    ensure(vector.container() == Container::Vector, "the operand must be a vector")?;
    ensure(by == Type::scalar(Elem::I32), "the distance must be an i32")?;
    check::dimension(op, "dimension", vector)?;
    ensure(vector == to, "operand and result must have the same type")
}

fn assume_multiple(op: &Operation) -> Checked {
    let ([value], to) = (operands(op)?, result(op)?);
    check::scalar(value, |elem| elem.is_integer() || elem == Elem::Index)?;
    ensure(op.integer("multiple").is_some_and(|multiple| multiple > 0), "the multiple must be positive")?;
    ensure(value == to, "operand and result must have the same type")
}

/// Checks that the attribute with the sizes of the groups of operands is `expected`.
fn segments(op: &Operation, expected: &[i64]) -> Checked {
    ensure(op.integers("operandSegmentSizes") == expected, "the groups of operands have the wrong sizes")
}

fn vector_store(op: &Operation) -> Checked {
    check::no_result(op)?;
    let [vector, memory, at @ ..] = op.operands.as_slice() else { return Err("there is nothing to store") };
    segments(op, &[1, 1, at.len() as i64, 0])?;
    upstream::indices(memory.ty(), at)?;
    upstream::vector_access(memory.ty(), vector.ty())?;
    ensure(in_space(memory.ty(), Space::Vmem), "vectors must be in VMEM")
}

/// Checks that both types are references to the same kind of memory.
fn same_memory(from: Type, to: Type) -> Checked {
    ensure(from.is_memref() && to.is_memref(), "operand and result must be memrefs")?;
    ensure(from.container() == to.container(), "operand and result must be in the same memory")?;
    ensure(from.elem() == to.elem(), "operand and result must have the same element type")
}

fn slice(op: &Operation) -> Checked {
    let to = result(op)?;
    let [from, at @ ..] = op.operands.as_slice() else { return Err("there is no memory to slice") };
    let from = from.ty();
    same_memory(from, to)?;
    segments(op, &[1, at.len() as i64, 0])?;
    let offset = Type::scalar(Elem::I32);
    ensure(at.iter().all(|at| at.ty() == offset), "offsets must be i32")?;
    let rank = from.dims().len();
    ensure(at.len() == rank && to.dims().len() == rank, "there must be an offset and a size per dimension")?;
    let fits = from.dims().iter().zip(to.dims()).all(|(have, want)| want <= have);
    ensure(fits, "the slice must fit the memory")
}

/// Checks that only leading dimensions of size 1 are removed.
fn squeeze(op: &Operation) -> Checked {
    let ([from], to) = (operands(op)?, result(op)?);
    same_memory(from, to)?;
    let removed = from.dims().strip_suffix(to.dims());
    let ones = removed.is_some_and(|removed| removed.iter().all(|&size| size == 1));
    ensure(ones, "only leading dimensions of size 1 may be removed")
}

fn copy(op: &Operation, from: Type, to: Type, semaphore: Type) -> Checked {
    check::no_result(op)?;
    ensure(from.is_memref() && to.is_memref(), "copies are from memory to memory")?;
    ensure(from.elem() == to.elem(), "both sides must have the same element type")?;
    ensure(from.dims() == to.dims(), "both sides must have the same shape")?;
    let one = Type::memref(Elem::DmaSemaphore, &[], Space::Semaphore);
    ensure(semaphore == one, "a copy needs one semaphore")
}

#[cfg(test)]
mod tests {
    use super::super::{register, Kernel, Value};
    use super::*;
    use crate::mlir::check::testing::{assert_strict, op, region_of, Change};
    use crate::mlir::ir::{Attribute, Attributes};
    use crate::mlir::types::Constant;
    use crate::semantics::arith::Arith;

    const INT: fn() -> Type = || Type::scalar(Elem::I32);

    fn numbers(name: &'static str, numbers: &[i64]) -> (&'static str, Attribute) {
        (name, Attribute::Integers("i64", numbers.to_vec()))
    }

    /// Returns an operation of each kind on elements, scalars or registers.
    fn element_examples() -> Vec<Operation> {
        let none = Attributes::new;
        let (ints, floats, masks) = (register(Elem::I32), register(Elem::F32), register(Elem::I1));
        let predicate = || vec![("predicate", Attribute::Integer(2, "i64"))];
        let mut examples = Vec::new();
        for name in
            ["addi", "subi", "muli", "minsi", "maxsi", "shli", "shrsi", "shrui", "andi", "ori", "xori"]
        {
            examples.push(op(format!("arith.{name}").leak(), &[ints, ints], &[ints], none()));
        }
        for name in ["addf", "subf", "mulf", "divf", "minimumf", "maximumf"] {
            examples.push(op(format!("arith.{name}").leak(), &[floats, floats], &[floats], none()));
        }
        let value = Attribute::Constant(Constant { ty: ints, bits: 1 });
        examples.extend([
            op("arith.andi", &[masks, masks], &[masks], none()),
            op("math.floor", &[floats], &[floats], none()),
            op("arith.constant", &[], &[ints], vec![("value", value)]),
            op("arith.cmpi", &[ints, ints], &[masks], predicate()),
            op("arith.cmpf", &[floats, floats], &[masks], predicate()),
            op("arith.select", &[masks, ints, ints], &[ints], none()),
            op("arith.select", &[Type::scalar(Elem::I1), ints, ints], &[ints], none()),
            op("arith.extf", &[register(Elem::Bf16)], &[floats], none()),
            op("arith.truncf", &[floats], &[register(Elem::Bf16)], none()),
            op("arith.sitofp", &[ints], &[floats], none()),
            op("arith.fptosi", &[floats], &[ints], none()),
            op("arith.index_cast", &[INT()], &[Type::scalar(Elem::Index)], none()),
            op("tpu.bitcast", &[register(Elem::U16)], &[register(Elem::Bf16)], none()),
            op("tpu.fptosi", &[floats], &[ints], none()),
            op("tpu.assume_multiple", &[INT()], &[INT()], vec![("multiple", Attribute::Integer(8, "i32"))]),
        ]);
        examples
    }

    /// Returns an operation of each kind that moves, repeats or combines elements, or accesses memory.
    fn data_examples() -> Vec<Operation> {
        let none = Attributes::new;
        let (ints, column) = (register(Elem::I32), Type::vector(Elem::I32, &[8, 1]));
        let (rows, block) = (Type::vector(Elem::I32, &[8]), Type::vector(Elem::I32, &[1, 8, 128]));
        let (index, one) = (Type::scalar(Elem::Index), Type::vector(Elem::I32, &[1]));
        let vmem = Type::memref(Elem::I32, &[8, 256], Space::Vmem);
        let smem = Type::memref(Elem::I32, &[4], Space::Smem);
        let buffers = Type::memref(Elem::I32, &[2, 8, 128], Space::Vmem);
        let [buffer, part] =
            [&[1, 8, 128][..], &[8, 128]].map(|dims| Type::memref(Elem::I32, dims, Space::Vmem));
        let hbm = Type::memref(Elem::I32, &[8, 128], Space::Any);
        let semaphore = Type::memref(Elem::DmaSemaphore, &[], Space::Semaphore);
        let segments =
            |sizes: &[i64]| vec![("operandSegmentSizes", Attribute::Integers("i32", sizes.to_vec()))];
        let reduction =
            vec![("kind", Attribute::Enum("vector.kind<", "maxsi")), numbers("reduction_dims", &[1])];
        let list = |numbers: [usize; 3]| Attribute::List(numbers.map(Attribute::i64).to_vec());
        let slice =
            vec![("offsets", list([0, 4, 64])), ("sizes", list([1, 4, 64])), ("strides", list([1, 1, 1]))];
        vec![
            op("tpu.iota", &[], &[ints], vec![numbers("dimensions", &[1])]),
            op(
                "tpu.dynamic_rotate",
                &[ints, INT()],
                &[ints],
                vec![("dimension", Attribute::Integer(1, "si32"))],
            ),
            op(
                "tpu.concatenate",
                &[ints, ints],
                &[Type::vector(Elem::I32, &[8, 256])],
                vec![("dimension", Attribute::Integer(1, "i32"))],
            ),
            op("vector.broadcast", &[column], &[ints], none()),
            op("vector.shape_cast", &[ints], &[block], none()),
            op("vector.multi_reduction", &[ints, rows], &[rows], reduction),
            op("vector.extract", &[one], &[INT()], vec![numbers("static_position", &[0])]),
            op("vector.extract_strided_slice", &[block], &[Type::vector(Elem::I32, &[1, 4, 64])], slice),
            op("vector.load", &[vmem, index, index], &[ints], none()),
            op("tpu.vector_store", &[ints, vmem, index, index], &[], segments(&[1, 1, 2, 0])),
            op("memref.load", &[smem, index], &[INT()], none()),
            op("memref.store", &[INT(), smem, index], &[], none()),
            op("tpu.memref_slice", &[buffers, INT(), INT(), INT()], &[buffer], segments(&[1, 3, 0])),
            op("tpu.memref_squeeze", &[buffer], &[part], none()),
            op("tpu.enqueue_dma", &[hbm, part, semaphore], &[], none()),
            op("tpu.wait_dma2", &[semaphore, hbm, part], &[], none()),
        ]
    }

    fn control_examples() -> Vec<Operation> {
        let (ints, floats, mask) = (register(Elem::I32), register(Elem::F32), Type::scalar(Elem::I1));
        let state = [ints, floats];
        let with = |op: Operation, regions| Operation { regions, ..op };
        let none = Attributes::new;
        vec![
            with(
                op("scf.for", &[INT(), INT(), INT(), ints, floats], &state, none()),
                vec![region_of(&[INT(), ints, floats], "scf.yield", &state)],
            ),
            with(
                op("scf.while", &state, &state, none()),
                vec![
                    region_of(&state, "scf.condition", &[mask, ints, floats]),
                    region_of(&state, "scf.yield", &state),
                ],
            ),
            with(
                op("scf.if", &[mask], &state, none()),
                vec![region_of(&[], "scf.yield", &state), region_of(&[], "scf.yield", &state)],
            ),
        ]
    }

    #[test]
    fn one_wrong_type_is_refused() {
        let examples = [element_examples(), data_examples(), control_examples()].concat();
        // The two sides of a copy are in different memories, and an iota may have any shape.
        let allowed = [
            ("tpu.iota", Change::Shape),
            ("tpu.enqueue_dma", Change::Memory),
            ("tpu.wait_dma2", Change::Memory),
        ];
        assert_strict(check, &examples, &allowed);
    }

    #[test]
    fn wrong_attributes_are_refused() {
        let with = |name: &str, attribute: &'static str, value: Attribute| {
            let examples = [element_examples(), data_examples()].concat();
            let mut op = examples.into_iter().find(|op| op.name == name).unwrap();
            let place = op.attributes.iter_mut().find(|(given, _)| *given == attribute).unwrap();
            place.1 = value;
            op
        };
        let numbers = |given: &[i64]| Attribute::Integers("i64", given.to_vec());
        let list = |given: [usize; 3]| Attribute::List(given.map(Attribute::i64).to_vec());
        for (name, attribute, value) in [
            ("arith.cmpi", "predicate", Attribute::Integer(10, "i64")),
            ("arith.cmpf", "predicate", Attribute::Integer(-1, "i64")),
            ("tpu.assume_multiple", "multiple", Attribute::Integer(0, "i32")),
            ("tpu.iota", "dimensions", numbers(&[2])),
            ("tpu.dynamic_rotate", "dimension", Attribute::Integer(2, "si32")),
            ("tpu.concatenate", "dimension", Attribute::Integer(0, "i32")),
            ("vector.multi_reduction", "reduction_dims", numbers(&[0])),
            ("vector.multi_reduction", "kind", Attribute::Enum("vector.kind<", "maximumf")),
            ("vector.extract", "static_position", numbers(&[1])),
            ("vector.extract_strided_slice", "offsets", list([0, 5, 64])),
            ("vector.extract_strided_slice", "sizes", list([1, 3, 64])),
            ("vector.extract_strided_slice", "strides", list([1, 2, 1])),
            ("tpu.vector_store", "operandSegmentSizes", numbers(&[1, 1, 1, 0])),
            ("tpu.memref_slice", "operandSegmentSizes", numbers(&[1, 2, 0])),
        ] {
            let op = with(name, attribute, value);
            assert!(check(&op).is_err(), "{op} with {attribute} = {:?}", op.attribute(attribute));
        }
    }

    #[test]
    fn unknown_operations_are_refused() {
        let ints = register(Elem::I32);
        for name in ["tpu.tan", "stablehlo.add"] {
            assert!(check(&op(name, &[ints, ints], &[ints], Attributes::new())).is_err());
        }
    }

    fn value(k: &Kernel, elem: Elem) -> Value {
        let memory = k.window(elem, 128);
        k.load(&memory, k.i32(0))
    }

    #[test]
    #[should_panic(expected = "arith.addi(vector<8x128xi32>, vector<8x128xf32>) -> vector<8x128xi32>: \
                    operands and result must have the same type")]
    fn a_panic_names_the_operation_and_its_types() {
        let k = &Kernel::new();
        k.add(value(k, Elem::I32), value(k, Elem::F32));
    }

    #[test]
    #[should_panic(expected = "scf.for \"a loop\"(i32, i32, i32, vector<8x128xi32>)")]
    fn a_loop_that_changes_the_shape_of_its_state_is_refused() {
        let k = &Kernel::new();
        k.for_each("a loop", k.i32(5), [value(k, Elem::I32)], |_, _| [k.i32(0)]);
    }

    #[test]
    #[should_panic(expected = "scf.while \"a search\"")]
    fn a_condition_in_a_register_is_refused() {
        let k = &Kernel::new();
        k.while_loop("a search", [value(k, Elem::I32)], |[x]| k.lt(x, k.i32(0)), |state| state);
    }

    #[test]
    #[should_panic(expected = "scf.if \"a branch\"")]
    fn branches_of_different_types_are_refused() {
        let k = &Kernel::new();
        let condition = k.lt(k.step(), k.i32(1));
        k.if_else("a branch", condition, || vec![k.i32(0)], || vec![k.f32(0.0)]);
    }

    #[test]
    #[should_panic(expected = "belongs to a region that is closed")]
    fn values_of_a_closed_region_are_refused() {
        let k = &Kernel::new();
        let mut inside = None;
        k.when("a branch", k.lt(k.step(), k.i32(1)), || inside = Some(k.add(k.step(), k.step())));
        k.add(inside.unwrap(), k.i32(1));
    }

    #[test]
    #[should_panic(expected = "tpu.enqueue_dma")]
    fn a_copy_between_shapes_is_refused() {
        let k = &Kernel::new();
        let (from, to) = (k.in_hbm(Elem::F32, &[8, 256]), k.scratch(Elem::F32, &[8, 128], Space::Vmem));
        let semaphores = k.scratch(Elem::DmaSemaphore, &[1], Space::Semaphore);
        k.start_copy(&from, &to, &k.element(&semaphores, k.i32(0)));
    }
}

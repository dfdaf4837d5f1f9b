"""Loads, stores, views and transfers of memory: `vector`, `memref` and `tpu`. An access out of bounds is an error."""

from dataclasses import replace

from ..element import SEMAPHORES, WIDTHS, type_of
from .ops_vector import to_scalar
from .translate import Value, operation


def data_memory(t, op, memory):
    if memory.type.elem in SEMAPHORES:
        t.fail(op, "a semaphore instead of data")
    return memory


def loadable_memory(t, op, memory):
    """Rejects memory that loads and stores cannot access. The kernel must use a transfer for that memory."""
    if memory.type.space not in ("vmem", "smem"):
        t.fail(op, f"direct access to {memory.type}")
    return data_memory(t, op, memory)


def box(t, op, memory, indices, sizes, strides=None):
    """Checks the bounds of a box in memory, at run time if its indices are not constant. Returns the key of the box."""
    shape = memory.type.shape
    strides = strides or (1,) * len(shape)
    if not len(shape) == len(indices) == len(sizes) == len(strides):
        t.fail(op, f"{len(indices)} indices and {len(sizes)} sizes for {memory.type}")
    checks, key = [], []
    inside = True
    for whole, index, size, stride in zip(shape, indices, sizes, strides):
        span = (size - 1) * stride + 1
        step = f":{stride}" if stride != 1 else ""
        if isinstance(index.const, int):
            inside &= 0 <= index.const <= whole - span
            key.append(":" if size == whole and not step else f"{index.const}:{index.const + span}{step}")
        else:
            checks.append(f"0 <= {index.expr} <= {whole - span}")
            key.append(f"{index.expr}:{index.expr} + {span}{step}")
    condition = " and ".join(checks) if inside else "False"
    if condition:
        places = ", ".join(i.expr for i in indices)
        t.line(f"if not ({condition}): M.out_of_bounds({t.current}, {shape}, [{places}], {tuple(sizes)})")
    return key


def padded_shape(t, op, memory, vector):
    """The shape of a vector, with leading ones for the missing dimensions of the memory."""
    missing = len(memory.type.shape) - len(vector.shape)
    if missing < 0 or memory.type.elem != vector.elem:
        t.fail(op, f"{vector} of {memory.type}")
    return (1,) * missing + vector.shape


def subscript(memory, key):
    """The expression of a box of a memory. `Packed` needs both ends of a slice."""
    if all(k == ":" for k in key) and not memory.packed:
        return f"{memory.expr}[...]" if key else f"{memory.expr}[()]"
    if memory.packed:
        key = [f"0:{size}" if k == ":" else k for k, size in zip(key, memory.type.shape)]
    return f"{memory.expr}[{', '.join(key)}]"


def check_packed(t, op, memory, strides):
    if memory.packed and any(s != 1 for s in strides):
        t.fail(op, "strides through a bitcast memory")


def load_box(t, op, memory, indices, result, strides=None, mask=None):
    loadable_memory(t, op, memory)
    sizes = padded_shape(t, op, memory, result)
    check_packed(t, op, memory, strides or ())
    key = box(t, op, memory, indices, sizes, strides)
    if not t.is_used(op):
        return
    expr = subscript(memory, key)
    if sizes != result.shape:
        expr = f"{expr}.reshape({result.shape})"
    if mask is None:
        t.define(op, f"{expr}.copy()")
    else:
        t.define(op, f"where({mask.expr}, {expr}, garbage({result.shape}, {result.elem}))")


def store_box(t, op, memory, indices, value, strides=None, mask=None):
    loadable_memory(t, op, memory)
    sizes = padded_shape(t, op, memory, value.type)
    check_packed(t, op, memory, strides or ())
    key = box(t, op, memory, indices, sizes, strides)
    target = subscript(memory, key)
    expr = value.expr if sizes == value.type.shape else f"{value.expr}.reshape({sizes})"
    if mask is None:
        t.line(f"{target} = {expr}")
    else:
        chosen = mask.expr if sizes == value.type.shape else f"{mask.expr}.reshape({sizes})"
        t.line(f"{target} = where({chosen}, {expr}, {target})")


def plain_access(attributes):
    """Accepts cache hints and alignment promises, which do not change the result."""
    for hint in ("nontemporal", "alignment"):
        attributes.take(hint)


def unit_strides(t, op, attributes):
    strides = attributes.array("strides")
    if any(s != 1 for s in strides):
        t.fail(op, f"strides {strides}")


@operation("vector.load", pure=False)
def vector_load(t, op, attributes):
    """Loads a vector from a box of memory."""
    plain_access(attributes)
    memory, *indices = t.operands(op)
    load_box(t, op, memory, indices, type_of(op.results[0].type))


@operation("vector.store", pure=False)
def vector_store(t, op, attributes):
    """Stores a vector to a box of memory."""
    plain_access(attributes)
    value, memory, *indices = t.operands(op)
    store_box(t, op, memory, indices, value)


def segments(t, op, attributes):
    """The operands, in groups. An attribute of the operation holds the sizes of the groups."""
    sizes = attributes.array("operandSegmentSizes")
    operands, groups = t.operands(op), []
    for size in sizes:
        groups.append(operands[:size])
        operands = operands[size:]
    return groups


def rank_split(t, op, before):
    """Splits the operands into `before` values, the memory, its indices, and a mask or None."""
    operands = t.operands(op)
    memory = operands[before]
    rank = len(memory.type.shape)
    rest = operands[before + 1 + rank :]
    if len(rest) > 1:
        t.fail(op, "too many operands")
    return operands[:before], memory, operands[before + 1 : before + 1 + rank], rest[0] if rest else None


@operation("tpu.vector_load", pure=False)
def tpu_vector_load(t, op, attributes):
    """Loads a vector from a box of memory. Lanes whose mask is false hold garbage."""
    unit_strides(t, op, attributes)
    attributes.take("operandSegmentSizes")
    _, memory, indices, mask = rank_split(t, op, 0)
    load_box(t, op, memory, indices, type_of(op.results[0].type), mask=mask)


@operation("tpu.vector_store", pure=False)
def tpu_vector_store(t, op, attributes):
    """Stores the lanes of a vector whose mask is true to a box of memory."""
    unit_strides(t, op, attributes)
    attributes.take("operandSegmentSizes")
    add = attributes.take("add")
    if add is not None and str(add) != "false":
        t.fail(op, "adding stores are not supported")
    (value,), memory, indices, mask = rank_split(t, op, 1)
    store_box(t, op, memory, indices, value, mask=mask)


@operation("tpu.strided_load", pure=False)
def strided_load(t, op, attributes):
    """Loads elements with a stride."""
    _, memory, indices, _ = rank_split(t, op, 0)
    load_box(t, op, memory, indices, type_of(op.results[0].type), attributes.array("strides"))


@operation("tpu.strided_store", pure=False)
def strided_store(t, op, attributes):
    """Stores elements with a stride."""
    (value,), memory, indices, _ = rank_split(t, op, 1)
    store_box(t, op, memory, indices, value, attributes.array("strides"))


def sublanes(t, op, attributes, memory, shape):
    """The strides of `tpu.load` and `tpu.store`, which access one register. A mask of sublanes is not supported."""
    if "false" in str(attributes.take("sublane_mask")):
        t.fail(op, "masked sublanes")
    stride = attributes.integer("sublane_stride", 1)
    strides = [1] * len(memory.type.shape)
    if len(shape) < 2:
        t.fail(op, "a register of one dimension")
    strides[-2] = stride
    return tuple(strides)


@operation("tpu.load", pure=False)
def tpu_load(t, op, attributes):
    """Loads a register. Its sublanes have a stride in memory."""
    _, memory, indices, _ = rank_split(t, op, 0)
    result = type_of(op.results[0].type)
    load_box(t, op, memory, indices, result, sublanes(t, op, attributes, memory, result.shape))


@operation("tpu.store", pure=False)
def tpu_store(t, op, attributes):
    """Stores the lanes of a register whose mask is true. The sublanes have a stride in memory."""
    attributes.take("operandSegmentSizes")
    add = attributes.take("add")
    if add is not None and str(add) != "false":
        t.fail(op, "adding stores are not supported")
    (value,), memory, indices, mask = rank_split(t, op, 1)
    store_box(t, op, memory, indices, value, sublanes(t, op, attributes, memory, value.type.shape), mask)


@operation("memref.load", pure=False)
def memref_load(t, op, attributes):
    """Loads a scalar."""
    plain_access(attributes)
    memory, *indices = t.operands(op)
    loadable_memory(t, op, memory)
    if memory.packed:
        t.fail(op, "a scalar of a bitcast memory")
    box(t, op, memory, indices, (1,) * len(indices))
    if t.is_used(op):
        key = ", ".join(i.expr for i in indices) or "()"
        t.define(op, to_scalar(memory.type, f"{memory.expr}[{key}]"))


@operation("memref.store", pure=False)
def memref_store(t, op, attributes):
    """Stores a scalar."""
    plain_access(attributes)
    value, memory, *indices = t.operands(op)
    loadable_memory(t, op, memory)
    if memory.packed:
        t.fail(op, "a scalar of a bitcast memory")
    box(t, op, memory, indices, (1,) * len(indices))
    t.line(f"{memory.expr}[{', '.join(i.expr for i in indices) or '()'}] = {value.expr}")


@operation("memref.alloca", pure=False)
def alloca(t, op, attributes):
    """Allocates uninitialized memory."""
    plain_access(attributes)
    attributes.take("operandSegmentSizes")
    memory = data_memory(t, op, Value(type_of(op.results[0].type), ""))
    t.define(op, f"garbage({memory.type.shape}, {memory.type.elem})")


# Views


def view(t, op, expr, source, *, packed=None):
    result = type_of(op.results[0].type)
    if result.space != source.type.space:
        t.fail(op, f"{source.type} to {result}")
    t.define(op, expr, packed=source.packed if packed is None else packed)


@operation("tpu.memref_slice", pure=False)
def memref_slice(t, op, attributes):
    """A view of a box of a memory."""
    groups = attributes.array("operandSegmentSizes")
    source, *rest = t.operands(op)
    result = type_of(op.results[0].type)
    rank = len(source.type.shape)
    if groups and groups[2] or len(rest) != rank or source.type.elem != result.elem:
        t.fail(op, "dynamic sizes are not supported")
    if source.packed:
        t.fail(op, "a slice of a bitcast memory")
    key = box(t, op, source, rest, result.shape)
    view(t, op, f"{source.expr}[{', '.join(key)}]" if key else source.expr, source)


@operation("tpu.memref_squeeze")
def memref_squeeze(t, op, attributes):
    """A view without some dimensions of size one."""
    source, result = t.operand(op, 0), type_of(op.results[0].type)
    if source.packed:
        t.fail(op, "a bitcast memory")
    key, kept = [], list(result.shape)
    # Matches from the last dimension, because the dropped dimensions usually come first.
    for size in reversed(source.type.shape):
        if kept and kept[-1] == size:
            kept.pop()
            key.append(":")
        elif size == 1:
            key.append("0")
        else:
            t.fail(op, f"{source.type} to {result}")
    if kept or source.type.elem != result.elem:
        t.fail(op, f"{source.type} to {result}")
    view(t, op, f"{source.expr}[{', '.join(reversed(key))}, ...]", source)


@operation("tpu.memref_reshape")
def memref_reshape(t, op, attributes):
    """A view with another shape."""
    source, result = t.operand(op, 0), type_of(op.results[0].type)
    if source.packed or source.type.size != result.size or source.type.elem != result.elem:
        t.fail(op, f"{source.type} to {result}")
    view(t, op, f"reshape_view({source.expr}, {result.shape})", source)


@operation("tpu.memref_bitcast")
def memref_bitcast(t, op, attributes):
    """A view with another element type. Elements of another width share words along the second dimension from the end."""
    source, result = t.operand(op, 0), type_of(op.results[0].type)
    old, new = source.type, result
    if source.packed or old.elem in SEMAPHORES:
        t.fail(op, f"{old}")
    if WIDTHS[old.elem] == WIDTHS[new.elem]:
        if old.shape != new.shape:
            t.fail(op, f"{old} to {new}")
        view(t, op, f"{source.expr}.view({new.elem})", source)
        return
    scale = list(old.shape)
    if len(scale) < 2 or scale[-2] * WIDTHS[old.elem] % WIDTHS[new.elem]:
        t.fail(op, f"{old} to {new}")
    scale[-2] = scale[-2] * WIDTHS[old.elem] // WIDTHS[new.elem]
    if tuple(scale) != new.shape:
        t.fail(op, f"{old} to {new}")
    view(t, op, f"Packed({source.expr}, {new.elem}, {new.shape})", source, packed=True)


@operation("tpu.erase_memref_layout", "tpu.reinterpret_cast")
def same_memory(t, op, attributes):
    """The identity, because the interpreter has no tilings. A change of anything else but the memory space is an error."""
    attributes.take("operandSegmentSizes")
    source, result = t.operand(op, 0), type_of(op.results[0].type)
    if len(op.operands) != 1 or replace(source.type, space=result.space) != result:
        t.fail(op, f"{source.type} to {result}")
    t.alias(op.results[0], source)


# Transfers and semaphores


def whole_memory(t, op, memory):
    if memory.packed:
        t.fail(op, "a transfer of a bitcast memory")
    return data_memory(t, op, memory).expr


def semaphore(t, op, value, kind):
    if SEMAPHORES.get(value.type.elem) != kind or value.type.shape != ():
        t.fail(op, f"{value.type} instead of one {kind} semaphore")
    return value.expr


@operation("tpu.enqueue_dma", pure=False)
def enqueue_dma(t, op, attributes):
    """Starts a transfer between memories of this core."""
    attributes.take("priority")
    attributes.take("strict_ordering")
    source, source_semaphore, target, target_semaphore, *remote = segments(t, op, attributes)
    if source_semaphore or not target_semaphore or any(remote):
        t.fail(op, "transfers to other devices or cores are not supported")
    source, target = source[0], target[0]
    arguments = [whole_memory(t, op, source), whole_memory(t, op, target), semaphore(t, op, target_semaphore[0], "dma")]
    t.line(f"M.start({t.current}, {', '.join(arguments)})")


@operation("tpu.wait_dma2", pure=False)
def wait_dma2(t, op, attributes):
    """Waits for the number of bytes that the target has."""
    attributes.take("strict_ordering")
    groups = segments(t, op, attributes) or [[v] for v in t.operands(op)]
    (sem,), (source,), (target,), *remote = groups
    if any(remote):
        t.fail(op, "transfers to other devices or cores are not supported")
    whole_memory(t, op, source)
    t.line(f"M.wait_dma({t.current}, {semaphore(t, op, sem, 'dma')}, {whole_memory(t, op, target)})")


@operation("tpu.sem_alloc", pure=False)
def sem_alloc(t, op, attributes):
    """Allocates semaphores with value zero."""
    type = type_of(op.results[0].type)
    if type.elem not in SEMAPHORES:
        t.fail(op, f"{type}")
    t.define(op, f"M.allocate({type.shape}, {f'{SEMAPHORES[type.elem]} semaphore'!r})")


@operation("tpu.sem_signal", pure=False)
def sem_signal(t, op, attributes):
    """Increments a semaphore of this core."""
    groups = segments(t, op, attributes) or [[v] for v in t.operands(op)]
    (sem,), (amount,), *remote = groups
    if any(remote):
        t.fail(op, "signals to other devices or cores are not supported")
    t.line(f"M.signal({semaphore(t, op, sem, 'regular')}, {amount.expr})")


@operation("tpu.sem_wait", pure=False)
def sem_wait(t, op, attributes):
    """Waits until a semaphore reaches an amount, and decrements it by that amount."""
    sem, amount = t.operands(op)
    kind = SEMAPHORES.get(sem.type.elem, "regular")
    t.line(f"M.wait({t.current}, {semaphore(t, op, sem, kind)}, {amount.expr})")


@operation("tpu.sem_read", pure=False)
def sem_read(t, op, attributes):
    """The value of a semaphore."""
    sem = t.operand(op, 0)
    kind = SEMAPHORES.get(sem.type.elem, "regular")
    t.define(op, f"{semaphore(t, op, sem, kind)}.item().count")



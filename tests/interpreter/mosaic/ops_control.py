"""Control flow: `scf`, `func` and `cf.assert`, and the regions and traces of `tpu`."""

from jaxlib.mlir import ir

from .translate import operation


def assign(t, targets, values):
    """Assigns all targets at once, because a value can be read from a variable that another assignment changes."""
    if targets:
        t.line(f"{', '.join(v.expr for v in targets)} = {', '.join(v.expr for v in values)}")


def carried(t, op, mlir_values):
    """New variables for values that differ between iterations or branches."""
    variables = [t.bind_new(value) for value in mlir_values]
    if any(v.type.is_memref for v in variables):
        t.fail(op, "a memory reference that depends on control flow")
    return variables


def nested(t, block):
    """Translates the body of a region. Returns its terminator and the terminator's operands."""
    operations = list(block.operations)
    t.indent += 1
    before = len(t.lines)
    for inner in operations[:-1]:
        t.operation(inner.operation)
    if len(t.lines) == before:
        t.line("pass")
    t.indent -= 1
    return operations[-1].operation, [t.values[v] for v in operations[-1].operands]


def inline(t, op, block):
    """Translates a region that runs exactly once, in place."""
    operations = list(block.operations)
    for inner in operations[:-1]:
        t.operation(inner.operation)
    for result, value in zip(op.results, operations[-1].operands, strict=True):
        t.alias(result, t.values[value])


@operation("scf.for", pure=False)
def for_loop(t, op, attributes):
    """Counts from the lower bound to the upper bound, which is excluded."""
    if attributes.take("unsignedCmp") is not None:
        t.fail(op, "unsigned bounds")
    low, high, step, *initial = t.operands(op)
    counter = t.counter(op, "for", attributes, ["entered", "iterations"])
    block = op.regions[0].blocks[0]
    index, *arguments = block.arguments
    index = t.bind_new(index)
    variables = carried(t, op, arguments)
    if not (isinstance(step.const, int) and step.const > 0):
        t.line(f"if {step.expr} <= 0: M.error({t.current}, 'the step is not positive')")
    loop = t.fresh("r")
    t.line(f"{loop} = range({low.expr}, {high.expr}, {step.expr})")
    t.line(f"if len({loop}) > {t.options.max_iterations}: M.endless({t.current})")
    t.line(f"T[{counter}] += 1; T[{counter + 1}] += len({loop})")
    assign(t, variables, initial)
    t.line(f"for {index.expr} in {loop}:")
    _, yielded = nested(t, block)
    t.indent += 1
    assign(t, variables, yielded)
    t.indent -= 1
    # The variables hold the initial values if the body never ran, otherwise those of its last iteration.
    assign(t, carried(t, op, op.results), variables)


@operation("scf.while", pure=False)
def while_loop(t, op, attributes):
    """Runs the first region, and then the second as long as the condition holds."""
    counter = t.counter(op, "while", attributes, ["entered", "iterations"])
    before, after = (region.blocks[0] for region in op.regions)
    variables = carried(t, op, before.arguments)
    results = carried(t, op, op.results)
    count = t.fresh("n")
    assign(t, variables, t.operands(op))
    t.line(f"{count} = 0")
    t.line("while True:")
    terminator, (condition, *values) = nested(t, before)
    if terminator.name != "scf.condition":
        t.fail(op, f"{terminator.name} where scf.condition is expected")
    t.indent += 1
    t.line(f"if not {condition.expr}:")
    t.indent += 1
    assign(t, results, values)
    t.line("break")
    t.indent -= 1
    t.line(f"{count} += 1")
    t.line(f"if {count} > {t.options.max_iterations}: M.endless({t.current})")
    arguments = carried(t, op, after.arguments)
    assign(t, arguments, values)
    t.indent -= 1
    _, yielded = nested(t, after)
    t.indent += 1
    assign(t, variables, yielded)
    t.indent -= 1
    t.line(f"T[{counter}] += 1; T[{counter + 1}] += {count}")


@operation("scf.if", pure=False)
def branch(t, op, attributes):
    """Runs one of two regions."""
    counter = t.counter(op, "if", attributes, ["then", "else"])
    condition = t.operand(op, 0)
    results = carried(t, op, op.results)
    t.line(f"if {condition.expr}:")
    for way, region in enumerate(op.regions):
        if way:
            t.line("else:")
        t.indent += 1
        t.line(f"T[{counter + way}] += 1")
        t.indent -= 1
        if len(region.blocks):
            _, values = nested(t, region.blocks[0])
            t.indent += 1
            assign(t, results, values)
            t.indent -= 1


@operation("func.return", pure=False)
def return_values(t, op, attributes):
    """Ends a function."""
    t.line(f"return ({''.join(v.expr + ', ' for v in t.operands(op))})")


@operation("func.call", pure=False)
def call(t, op, attributes):
    """Calls another function of the kernel."""
    callee = ir.FlatSymbolRefAttr(attributes.take("callee")).value
    if any(v.packed for v in t.operands(op)):
        t.fail(op, "a bitcast memory as an argument")
    function = t.hoist(t.program.function(callee), "f_")
    results = carried(t, op, op.results)
    arguments = ", ".join(v.expr for v in t.operands(op))
    t.line(f"{''.join(r.expr + ', ' for r in results)}{'= ' if results else ''}{function}({arguments})")


@operation("cf.assert", pure=False)
def check(t, op, attributes):
    """An assertion of the program. A failed assertion is an error."""
    message = ir.StringAttr(attributes.take("msg")).value
    t.line(f"if not {t.operand(op, 0).expr}: M.error({t.current}, {message!r})")


@operation("tpu.region", pure=False)
def region(t, op, attributes):
    """A scope of allocations."""
    inline(t, op, op.regions[0].blocks[0])


@operation("tpu.trace", pure=False)
def trace(t, op, attributes):
    """A named region for profilers."""
    for label in ("message", "level"):
        attributes.take(label)
    inline(t, op, op.regions[0].blocks[0])


@operation("tpu.trace_start", "tpu.trace_stop", pure=False)
def trace_event(t, op, attributes):
    """A mark for profilers."""
    for label in ("message", "level"):
        attributes.take(label)

//! The two texts of a kernel.

use std::fmt::Write as _;

use super::{Elem, Kernel, Memory, Node, Operand, Operation, Region, Shape, Space, Type, LANES, SUBLANES};

/// Version of the form of operations that this writer follows.
const STABLE_VERSION: u32 = 15;

impl Elem {
    fn name(self) -> &'static str {
        match self {
            Elem::I1 => "i1",
            Elem::I32 => "i32",
            Elem::F32 => "f32",
            Elem::Bf16 => "bf16",
            Elem::Index => "index",
            Elem::DmaSemaphore => "!tpu.dma_semaphore",
        }
    }
}

fn type_text(ty: Type) -> String {
    let elem = ty.elem.name();
    match ty.shape {
        Shape::Scalar => elem.to_owned(),
        Shape::Register => format!("vector<{SUBLANES}x{LANES}x{elem}>"),
        Shape::Column => format!("vector<{SUBLANES}x1x{elem}>"),
        Shape::Rows => format!("vector<{SUBLANES}x{elem}>"),
        Shape::Block => format!("vector<1x{SUBLANES}x{LANES}x{elem}>"),
        Shape::One => format!("vector<1x{elem}>"),
    }
}

fn memory_type(memory: &Memory) -> String {
    let space = match memory.space {
        Space::Any => "any",
        Space::Vmem => "vmem",
        Space::Smem => "smem",
        Space::Semaphore => "semaphore_mem",
    };
    let mut dims = String::new();
    for dim in &memory.dims {
        let _ = write!(dims, "{dim}x");
    }
    format!("memref<{dims}{}, #tpu.memory_space<{space}>>", memory.elem.name())
}

/// A constant as an attribute.
pub(super) fn literal(ty: Type, bits: u32) -> String {
    let number = match ty.elem {
        Elem::I1 => (bits != 0).to_string(),
        // Bits, so that nothing is rounded on the way through decimal.
        Elem::F32 => format!("0x{bits:08X}"),
        Elem::Bf16 => format!("0x{bits:04X}"),
        _ => (bits as i32).to_string(),
    };
    match (ty.shape, ty.elem) {
        (Shape::Scalar, Elem::I1) => number,
        (Shape::Scalar, _) => format!("{number} : {}", ty.elem.name()),
        _ => format!("dense<{number}> : {}", type_text(ty)),
    }
}

/// Which text is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Every operation in MLIR's generic form, its name versioned.
    Stable,
    /// MLIR's own assembly where it is short, remarks and labels.
    Plain,
}

struct Writer {
    form: Form,
    text: String,
    indent: usize,
}

fn name_of(operand: &Operand) -> String {
    match operand {
        Operand::Value(id, _) => format!("%{id}"),
        Operand::Memory(memory) => format!("%{}", memory.id),
    }
}

fn type_of(operand: &Operand) -> String {
    match operand {
        Operand::Value(_, ty) => type_text(*ty),
        Operand::Memory(memory) => memory_type(memory),
    }
}

fn list<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    items.iter().map(text).collect::<Vec<_>>().join(", ")
}

impl Writer {
    fn line(&mut self, text: &str) {
        let indent = self.indent * 2;
        let _ = writeln!(self.text, "{:indent$}{text}", "");
    }

    fn region(&mut self, region: &Region) {
        self.indent += 1;
        for node in &region.body {
            match node {
                Node::Operation(operation) => self.operation(operation),
                Node::Comment(text) if self.form == Form::Plain => self.line(&format!("// {text}")),
                Node::Comment(_) => {}
            }
        }
        self.indent -= 1;
    }

    fn operation(&mut self, operation: &Operation) {
        if self.form == Form::Plain && self.plain(operation) {
            return;
        }
        let prefix = if self.form == Form::Stable { "stable_mosaic." } else { "" };
        let mut head = format!(
            "{}\"{prefix}{}\"({})",
            results(operation),
            operation.name,
            list(&operation.operands, name_of)
        );
        let types = {
            let mut results: Vec<String> = operation.results.iter().map(|r| type_text(r.1)).collect();
            results.extend(operation.memory_result.as_ref().map(memory_type));
            let results =
                if results.len() == 1 { results.remove(0) } else { format!("({})", results.join(", ")) };
            format!("({}) -> {results}", list(&operation.operands, type_of))
        };
        let attributes = match operation.attributes.as_slice() {
            [] => String::new(),
            some => format!(" {{{}}}", list(some, |(name, value)| format!("{name} = {value}"))),
        };
        let location = operation.label.as_ref().map_or(String::new(), |label| format!(" loc({label:?})"));
        if operation.regions.is_empty() {
            let _ = write!(head, "{attributes} : {types}{location}");
            self.line(&head);
            return;
        }
        self.line(&format!("{head} ({{"));
        for (i, region) in operation.regions.iter().enumerate() {
            if i > 0 {
                self.line("}, {");
            }
            if !region.arguments.is_empty() {
                self.line(&format!("^bb0({}):", arguments(region)));
            }
            self.region(region);
        }
        self.line(&format!("}}){attributes} : {types}{location}"));
    }

    /// Writes the operation in MLIR's own assembly, if it is one of those that gain by it.
    fn plain(&mut self, operation: &Operation) -> bool {
        let names: Vec<String> = operation.operands.iter().map(name_of).collect();
        let types: Vec<String> = operation.operands.iter().map(type_of).collect();
        let result = operation.results.first().map(|r| type_text(r.1));
        let name = operation.name;
        let left = results(operation);
        if let Some(label) = &operation.label {
            self.line(&format!("// {label}"));
        }
        let text = match (name, result) {
            ("arith.constant", _) => format!("{left}arith.constant {}", operation.attributes[0].1),
            ("arith.cmpi" | "arith.cmpf", _) => {
                let number =
                    operation.attributes[0].1.split(' ').next().and_then(|n| n.parse::<usize>().ok());
                let integer = ["eq", "ne", "slt", "sle", "sgt", "sge"];
                let float = [
                    "false", "oeq", "ogt", "oge", "olt", "ole", "one", "ord", "ueq", "ugt", "uge", "ult",
                    "ule", "une", "uno",
                ];
                let predicates: &[&str] = if name == "arith.cmpi" { &integer } else { &float };
                let Some(predicate) = number.and_then(|n| predicates.get(n)) else { return false };
                format!("{left}{name} {predicate}, {} : {}", names.join(", "), types[0])
            }
            ("arith.select", Some(result)) => {
                format!("{left}arith.select {} : {}, {result}", names.join(", "), types[0])
            }
            (
                "arith.extf" | "arith.sitofp" | "arith.index_cast" | "vector.broadcast" | "vector.shape_cast",
                Some(result),
            ) => {
                format!("{left}{name} {} : {} to {result}", names[0], types[0])
            }
            ("tpu.bitcast", Some(result)) => format!("{left}{name} {} : {} -> {result}", names[0], types[0]),
            ("math.floor", _) => format!("{left}{name} {} : {}", names[0], types[0]),
            ("vector.load", Some(result)) => {
                format!("{left}vector.load {}[{}] : {}, {result}", names[0], names[1..].join(", "), types[0])
            }
            ("memref.load", _) => format!("{left}memref.load {}[{}] : {}", names[0], names[1], types[0]),
            ("memref.store", _) => {
                format!("memref.store {}, {}[{}] : {}", names[0], names[1], names[2], types[1])
            }
            ("scf.yield", _) if names.is_empty() => return true,
            ("scf.yield", _) => format!("scf.yield {} : {}", names.join(", "), types.join(", ")),
            ("scf.condition", _) => {
                format!("scf.condition({}) {} : {}", names[0], names[1..].join(", "), types[1..].join(", "))
            }
            ("scf.for", _) => {
                let region = &operation.regions[0];
                let carried: Vec<String> = region.arguments[1..]
                    .iter()
                    .zip(&names[3..])
                    .map(|(argument, start)| format!("%{} = {start}", argument.0))
                    .collect();
                let state = match carried.as_slice() {
                    [] => String::new(),
                    some => format!(" iter_args({}) -> ({})", some.join(", "), types[3..].join(", ")),
                };
                self.line(&format!(
                    "{left}scf.for %{} = {} to {} step {}{state} : i32 {{",
                    region.arguments[0].0, names[0], names[1], names[2]
                ));
                self.region(region);
                "}".to_owned()
            }
            ("scf.if", _) => {
                let types = match operation.results.as_slice() {
                    [] => String::new(),
                    some => format!(" -> ({})", list(some, |r| type_text(r.1))),
                };
                self.line(&format!("{left}scf.if {}{types} {{", names[0]));
                self.region(&operation.regions[0]);
                if !operation.results.is_empty() || operation.regions[1].body.len() > 1 {
                    self.line("} else {");
                    self.region(&operation.regions[1]);
                }
                "}".to_owned()
            }
            (_, Some(result)) if name.starts_with("arith.") && names.len() == 2 => {
                format!("{left}{name} {} : {result}", names.join(", "))
            }
            _ => return false,
        };
        self.line(&text);
        true
    }
}

fn results(operation: &Operation) -> String {
    match (operation.results.as_slice(), &operation.memory_result) {
        (_, Some(memory)) => format!("%{} = ", memory.id),
        ([], None) => String::new(),
        (some, None) => format!("{} = ", list(some, |r| format!("%{}", r.0))),
    }
}

fn arguments(region: &Region) -> String {
    list(&region.arguments, |(id, ty)| format!("%{id}: {}", type_text(*ty)))
}

impl Kernel {
    /// The text that libtpu promises to go on reading.
    pub fn stable_text(&self, name: &str, steps: usize) -> String {
        self.text(Form::Stable, name, steps)
    }

    /// The text for people.
    pub fn plain_text(&self, name: &str, steps: usize) -> String {
        self.text(Form::Plain, name, steps)
    }

    fn text(&self, form: Form, name: &str, steps: usize) -> String {
        let mut writer = Writer { form, text: String::new(), indent: 0 };
        let parameters = self.parameters.borrow();
        let scratch = self.scratch.borrow();
        let memories: Vec<&Memory> = parameters.iter().map(|p| &p.memory).chain(scratch.iter()).collect();
        let arguments = format!("%0: i32, {}", list(&memories, |m| format!("%{}: {}", m.id, memory_type(m))));
        let windows =
            list(&parameters, |parameter| match (parameter.window, parameter.memory.dims.as_slice()) {
                (true, [rows, width]) => {
                    format!(
                        "{{transform_indices = @rows_of_step, window_bounds = array<i64: {rows}, {width}>}}"
                    )
                }
                _ => "{}".to_owned(),
            });
        let attributes = format!(
            "dimension_semantics = [#tpu.dimension_semantics<arbitrary>], iteration_bounds = array<i64: {steps}>, \
             scalar_prefetch = 0 : i64, scratch_operands = {} : i64, tpu.core_type = #tpu.core_type<tc>, \
             window_params = [{windows}]",
            scratch.len()
        );
        let types = format!("i32, {}", list(&memories, |m| memory_type(m)));
        let state = self.state.borrow();
        let body = &state.open[0];
        let constants: Vec<Node> = state.constants.iter().cloned().map(Node::Operation).collect();
        let constants = Region { arguments: Vec::new(), body: constants };
        match form {
            Form::Stable => {
                writer.line("\"builtin.module\"() ({");
                writer.indent = 1;
                writer.line("\"stable_mosaic.func.func\"() ({");
                writer.line(&format!("^bb0({arguments}):"));
                writer.region(&constants);
                writer.region(body);
                writer.line("  \"stable_mosaic.func.return\"() : () -> ()");
                writer.line(&format!(
                    "}}) {{{attributes}, function_type = ({types}) -> (), sym_name = \"{name}\"}} : () -> ()"
                ));
                writer.line("\"stable_mosaic.func.func\"() ({");
                writer.line("^bb0(%0: i32):");
                writer.line("  %1 = \"stable_mosaic.arith.constant\"() {value = 0 : i32} : () -> i32");
                writer.line("  \"stable_mosaic.func.return\"(%0, %1) : (i32, i32) -> ()");
                writer
                    .line("}) {function_type = (i32) -> (i32, i32), sym_name = \"rows_of_step\"} : () -> ()");
                writer.indent = 0;
                writer.line(&format!("}}) {{stable_mosaic.version = {STABLE_VERSION} : i64}} : () -> ()"));
            }
            Form::Plain => {
                writer.line("module {");
                writer.indent = 1;
                writer.line(&format!("func.func @{name}({arguments}) attributes {{{attributes}}} {{"));
                writer.region(&constants);
                writer.region(body);
                writer.line("  return");
                writer.line("}");
                writer.line("func.func @rows_of_step(%0: i32) -> (i32, i32) {");
                writer.line("  %1 = arith.constant 0 : i32");
                writer.line("  return %0, %1 : i32, i32");
                writer.line("}");
                writer.indent = 0;
                writer.line("}");
            }
        }
        writer.text
    }
}

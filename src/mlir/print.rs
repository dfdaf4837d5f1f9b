//! Prints MLIR text. The printer can print the generic form of every operation. A [`Form`] describes the differences of
//! a text from the generic form.

use std::fmt::{self, Write as _};

use super::ir::{types_of, Attribute, Commas, Function, Module, Named, Node, Operation, ResultTypes, Value};
use super::types::Type;

/// The differences between texts of the same operations.
#[derive(Debug)]
pub struct Form {
    /// The text before the names of operations in the generic form.
    pub prefix: &'static str,
    /// Whether comments and labels are printed, for readers.
    pub comments: bool,
    /// Whether a comment before each operation with one result names the place in the source of the emitter that adds
    /// the operation.
    pub sources: bool,
    /// Prints an operation in the custom syntax of its dialect, or returns `false` to request the generic form. If
    /// `None`, everything is printed in the generic form, including functions and modules.
    pub pretty: Option<fn(&mut Printer, &Operation) -> bool>,
}

/// The generic form, which MLIR parsers accept for every dialect.
pub static GENERIC: Form = Form { prefix: "", comments: false, sources: false, pretty: None };

/// Text under construction.
#[derive(Debug)]
pub struct Printer {
    text: String,
    indent: usize,
    form: &'static Form,
}

/// The left side of an operation: `%1, %2 = `, or nothing.
pub(super) struct Results<'a>(pub(super) &'a Operation);

impl fmt::Display for Results<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.results.as_slice() {
            [] => Ok(()),
            results => write!(f, "{} = ", Commas(results)),
        }
    }
}

/// Arguments of a region or function: `%1: i32, %2: f32`.
struct Arguments<'a>(&'a [Value]);

impl fmt::Display for Arguments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, argument) in self.0.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{argument}: {}", argument.ty())?;
        }
        Ok(())
    }
}

/// The arguments of a function with their attributes: `%1: i32, %2: f32 {a = 1 : i32}`.
struct FunctionArguments<'a>(&'a Function<'a>);

impl fmt::Display for FunctionArguments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, argument) in self.0.arguments.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            let attributes = self.0.argument_attributes.get(i).map_or(&[][..], Vec::as_slice);
            write!(f, "{comma}{argument}: {}{}", argument.ty(), Braced(attributes, ["{", "}"]))?;
        }
        Ok(())
    }
}

/// Returns the text of a module.
pub fn print(form: &'static Form, module: &Module<'_>) -> String {
    let mut printer = Printer { text: String::new(), indent: 0, form };
    printer.module(module);
    printer.text
}

/// Returns the text of a function in MLIR's custom assembly format.
pub fn print_function(form: &'static Form, function: &Function<'_>) -> String {
    let mut printer = Printer { text: String::new(), indent: 0, form };
    printer.pretty_function(function);
    printer.text
}

impl Printer {
    /// Writes a line.
    pub fn line(&mut self, text: impl fmt::Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{:1$}{text}", "", self.indent * 2);
    }

    /// Writes lines with additional indentation.
    pub fn indented(&mut self, lines: impl FnOnce(&mut Printer)) {
        self.indent += 1;
        lines(self);
        self.indent -= 1;
    }

    /// Writes the contents of a region, without its arguments.
    pub fn body(&mut self, body: &[Node]) {
        self.indented(|printer| {
            for node in body {
                match node {
                    Node::Operation(operation) => printer.operation(operation),
                    Node::Comment(text) if printer.form.comments => printer.line(format_args!("// {text}")),
                    Node::Comment(_) => {}
                }
            }
        });
    }

    /// Writes an operation.
    pub fn operation(&mut self, op: &Operation) {
        if let (true, Some(label)) = (self.form.comments, &op.label) {
            self.line(format_args!("// {label}"));
        }
        if let (true, [result]) = (self.form.sources, op.results.as_slice()) {
            self.line(format_args!("// {result} is from {}", op.source));
        }
        if !self.form.pretty.is_some_and(|pretty| pretty(self, op)) {
            self.generic(op, ["{", "}"]);
        }
    }

    /// Writes an operation in the generic form, with its attributes in `braces`.
    pub fn generic(&mut self, op: &Operation, braces: [&str; 2]) {
        let prefix = self.form.prefix;
        let head = format!("{}\"{prefix}{}\"({})", Results(op), op.name, Commas(&op.operands));
        let tail = Tail { op, braces };
        if op.regions.is_empty() {
            return self.line(format_args!("{head}{tail}"));
        }
        self.line(format_args!("{head} ({{"));
        for (i, region) in op.regions.iter().enumerate() {
            if i > 0 {
                self.line("}, {");
            }
            self.block(&region.arguments, |printer| printer.body(&region.body));
        }
        self.line(format_args!("}}){tail}"));
    }

    /// Writes a block of the generic form.
    fn block(&mut self, arguments: &[Value], body: impl FnOnce(&mut Printer)) {
        if !arguments.is_empty() {
            self.line(format_args!("^bb0({}):", Arguments(arguments)));
        }
        body(self);
    }

    fn module(&mut self, module: &Module<'_>) {
        if self.form.pretty.is_none() {
            self.line("\"builtin.module\"() ({");
            self.indented(|printer| module.functions.iter().for_each(|f| printer.generic_function(f)));
            let name = module.name.map(|name| ("sym_name", Attribute::String(name.to_owned())));
            let attributes: Vec<_> = module.attributes.iter().cloned().chain(name).collect();
            return self.line(format_args!("}}){} : () -> ()", Braced(&attributes, ["{", "}"])));
        }
        let name = module.name.map_or_else(String::new, |name| format!("@{name} "));
        let attributes = match module.attributes.as_slice() {
            [] => String::new(),
            some => format!("attributes {{{}}} ", Named(some)),
        };
        self.line(format_args!("module {name}{attributes}{{"));
        self.indented(|printer| module.functions.iter().for_each(|f| printer.pretty_function(f)));
        self.line("}");
    }

    fn generic_function(&mut self, function: &Function<'_>) {
        let prefix = self.form.prefix;
        self.line(format_args!("\"{prefix}func.func\"() ({{"));
        self.block(&function.arguments, |printer| {
            printer.body(function.constants);
            printer.body(function.body);
            let (names, types) = (Commas(&function.returns), Commas(types_of(&function.returns)));
            let end = format!("\"{prefix}func.return\"({names}) : ({types}) -> ()");
            printer.indented(|printer| printer.line(end));
        });
        let types = |values: &[Value]| types_of(values).collect::<Vec<Type>>();
        let mut attributes = function.attributes.clone();
        let signature = Attribute::Function(types(&function.arguments), types(&function.returns));
        if !function.argument_attributes.is_empty() {
            let lists = function.argument_attributes.iter().cloned().map(Attribute::Dictionary);
            attributes.push(("arg_attrs", Attribute::List(lists.collect())));
        }
        attributes.push(("function_type", signature));
        attributes.push(("sym_name", Attribute::String(function.name.to_owned())));
        let visibility = function.visibility.map(|v| ("sym_visibility", Attribute::String(v.to_owned())));
        attributes.extend(visibility);
        self.line(format_args!("}}){} : () -> ()", Braced(&attributes, ["{", "}"])));
    }

    fn pretty_function(&mut self, function: &Function<'_>) {
        let visibility = function.visibility.map_or_else(String::new, |v| format!("{v} "));
        let results = match function.returns.as_slice() {
            [] => String::new(),
            some => format!(" -> ({})", Commas(types_of(some))),
        };
        let attributes = match function.attributes.as_slice() {
            [] => String::new(),
            some => format!(" attributes {{{}}}", Named(some)),
        };
        let (name, arguments) = (function.name, FunctionArguments(function));
        self.line(format_args!("func.func {visibility}@{name}({arguments}){results}{attributes} {{"));
        self.body(function.constants);
        self.body(function.body);
        let end = match function.returns.as_slice() {
            [] => "return".to_owned(),
            some => format!("return {} : {}", Commas(some), Commas(types_of(some))),
        };
        self.indented(|printer| printer.line(end));
        self.line("}");
    }
}

/// Attributes in braces after a space, if there are any.
struct Braced<'a>(&'a [(&'static str, Attribute)], [&'a str; 2]);

impl fmt::Display for Braced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            ([], _) => Ok(()),
            (some, [open, close]) => write!(f, " {open}{}{close}", Named(some)),
        }
    }
}

/// The text after the operands, or after the regions, in the generic form.
struct Tail<'a> {
    op: &'a Operation,
    braces: [&'a str; 2],
}

impl fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tail { op, braces } = *self;
        let (operands, results) = (Commas(op.operand_types()), ResultTypes(op.result_types()));
        write!(f, "{} : ({operands}) -> {results}", Braced(&op.attributes, braces))?;
        match &op.label {
            Some(label) => write!(f, " loc({})", Attribute::String(label.clone())),
            None => Ok(()),
        }
    }
}

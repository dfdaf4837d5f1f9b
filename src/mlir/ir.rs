//! The intermediate representation: values, operations, regions, functions and modules, as MLIR defines them.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;

use super::types::{Constant, Type};

/// A typed value of the program under construction: the result of an operation, an argument, or a constant.
///
/// A constant stays a literal until an operation uses it. Until then it can take any shape, and builders can
/// simplify operations on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    ty: Type,
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// An SSA value. It has a number and a scope in which it is visible.
    Ssa { id: u32, scope: u32 },
    /// The bits of each element.
    Literal(u64),
}

impl Value {
    /// Returns the constant of type `ty`. All its elements have the same bits.
    pub fn constant(ty: Type, bits: u64) -> Value {
        Value { ty, source: Source::Literal(bits) }
    }

    pub(super) fn ssa(ty: Type, id: u32, scope: u32) -> Value {
        Value { ty, source: Source::Ssa { id, scope } }
    }

    /// Returns the type.
    pub fn ty(&self) -> Type {
        self.ty
    }

    /// Returns the bits of each element, if the value is a constant that no operation has used yet.
    pub fn literal(&self) -> Option<u64> {
        match self.source {
            Source::Literal(bits) => Some(bits),
            Source::Ssa { .. } => None,
        }
    }

    /// Returns the scope in which an SSA value is visible.
    pub(super) fn scope(&self) -> Option<u32> {
        match self.source {
            Source::Ssa { scope, .. } => Some(scope),
            Source::Literal(_) => None,
        }
    }
}

/// Displays the name of the value in the text. A literal has no name and is displayed as its constant.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            Source::Ssa { id, .. } => write!(f, "%{id}"),
            Source::Literal(bits) => Constant { ty: self.ty, bits }.fmt(f),
        }
    }
}

/// A compile-time parameter of an operation. It is displayed in MLIR's syntax.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// `5 : i64`: a number and its type.
    Integer(i64, &'static str),
    /// `true`.
    Bool(bool),
    /// `array<i64: 1, 2>`: the type of the numbers, and the numbers.
    Integers(&'static str, Vec<i64>),
    /// `dense<1> : tensor<4xi32>`.
    Constant(Constant),
    /// `#vector.kind<add>` is `Enum("vector.kind<", "add")`: a case of an enumeration that a dialect defines.
    Enum(&'static str, &'static str),
    /// `"text"`.
    String(String),
    /// `[a, b]`.
    List(Vec<Attribute>),
    /// `{a = 1 : i64}`.
    Dictionary(Attributes),
    /// `(i32) -> i32`.
    Function(Vec<Type>, Vec<Type>),
    /// Text that is printed unchanged: an attribute that only its dialect can parse.
    Verbatim(Cow<'static, str>),
}

/// Named attributes in the order in which they are printed.
pub type Attributes = Vec<(&'static str, Attribute)>;

impl Attribute {
    /// Returns an attribute with a number of type `i64`.
    pub fn i64(number: usize) -> Attribute {
        Attribute::Integer(number as i64, "i64")
    }

    /// Returns the attribute `array<i64: …>`.
    pub fn i64s(numbers: impl IntoIterator<Item = usize>) -> Attribute {
        Attribute::Integers("i64", numbers.into_iter().map(|n| n as i64).collect())
    }
}

/// Displays items separated by commas.
pub(super) struct Commas<I>(pub(super) I);

impl<I: IntoIterator<Item: fmt::Display> + Clone> fmt::Display for Commas<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, item) in self.0.clone().into_iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            item.fmt(f)?;
        }
        Ok(())
    }
}

/// Displays `name = attribute` for each attribute.
pub(super) struct Named<'a>(pub(super) &'a [(&'static str, Attribute)]);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, attribute)) in self.0.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{name} = {attribute}")?;
        }
        Ok(())
    }
}

/// Displays types as a result list. A single type has no parentheses.
pub(super) struct ResultTypes<I>(pub(super) I);

impl<I: ExactSizeIterator<Item = Type> + Clone> fmt::Display for ResultTypes<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => Commas(self.0.clone()).fmt(f),
            _ => write!(f, "({})", Commas(self.0.clone())),
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attribute::Integer(number, ty) => write!(f, "{number} : {ty}"),
            Attribute::Bool(value) => write!(f, "{value}"),
            Attribute::Integers(ty, numbers) if numbers.is_empty() => write!(f, "array<{ty}>"),
            Attribute::Integers(ty, numbers) => write!(f, "array<{ty}: {}>", Commas(numbers)),
            Attribute::Constant(constant) => constant.fmt(f),
            Attribute::Enum(kind, case) => write!(f, "#{kind}{case}>"),
            Attribute::String(text) => write_string(f, text),
            Attribute::List(items) => write!(f, "[{}]", Commas(items)),
            Attribute::Dictionary(entries) => write!(f, "{{{}}}", Named(entries)),
            Attribute::Function(arguments, results) => {
                write!(f, "({}) -> {}", Commas(arguments), ResultTypes(results.iter().copied()))
            }
            Attribute::Verbatim(text) => f.write_str(text),
        }
    }
}

/// Writes an MLIR string literal.
fn write_string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    let mut rest = text;
    let special = |c: char| c == '"' || c == '\\' || c.is_ascii_control();
    while let Some(at) = rest.find(special) {
        let byte = rest.as_bytes()[at];
        write!(f, "{}", &rest[..at])?;
        match byte {
            b'"' | b'\\' => write!(f, "\\{}", char::from(byte))?,
            _ => write!(f, "\\{byte:02X}")?,
        }
        rest = &rest[at + 1..];
    }
    write!(f, "{rest}\"")
}

/// An operation.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The name, with its dialect: `arith.addi`.
    pub name: &'static str,
    /// The operands. All of them are SSA values.
    pub operands: Vec<Value>,
    /// The results.
    pub results: Vec<Value>,
    /// Compile-time parameters.
    pub attributes: Attributes,
    /// Nested code.
    pub regions: Vec<Region>,
    /// The purpose of a loop or a branch. It is printed as a comment and as the location. Profilers show the location.
    pub label: Option<String>,
    /// The place in the source of the emitter that adds the operation.
    pub source: &'static Location<'static>,
}

/// A block of code inside an operation. Its last operation is a terminator.
#[derive(Clone, Debug, Default)]
pub struct Region {
    /// The arguments.
    pub arguments: Vec<Value>,
    /// The code.
    pub body: Vec<Node>,
}

/// An element of a region's body.
#[derive(Clone, Debug)]
pub enum Node {
    /// An operation.
    Operation(Operation),
    /// A comment, printed only in texts for readers.
    Comment(String),
}

impl Operation {
    /// Returns the attribute with this name.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|(given, _)| *given == name).map(|(_, attribute)| attribute)
    }

    /// Returns the number in an attribute.
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.attribute(name)? {
            Attribute::Integer(number, _) => Some(*number),
            _ => None,
        }
    }

    /// Returns the numbers in an attribute. The result is empty if the attribute is missing.
    pub fn integers(&self, name: &str) -> &[i64] {
        match self.attribute(name) {
            Some(Attribute::Integers(_, numbers)) => numbers,
            _ => &[],
        }
    }

    /// Returns the case of an enumeration in an attribute. The result is empty if the attribute is missing.
    pub fn case(&self, name: &str) -> &'static str {
        match self.attribute(name) {
            Some(Attribute::Enum(_, case)) => case,
            _ => "",
        }
    }

    /// Returns the types of the operands.
    pub fn operand_types(&self) -> impl ExactSizeIterator<Item = Type> + Clone + '_ {
        types_of(&self.operands)
    }

    /// Returns the types of the results.
    pub fn result_types(&self) -> impl ExactSizeIterator<Item = Type> + Clone + '_ {
        types_of(&self.results)
    }
}

/// Displays the name and the types, for messages.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(label) = &self.label {
            write!(f, " {label:?}")?;
        }
        write!(f, "({}) -> {}", Commas(self.operand_types()), ResultTypes(self.result_types()))
    }
}

/// Returns the types of values.
pub fn types_of(values: &[Value]) -> impl ExactSizeIterator<Item = Type> + Clone + '_ {
    values.iter().map(Value::ty)
}

impl Region {
    /// Returns the last operation, which determines the values that the region yields.
    pub fn terminator(&self) -> Option<&Operation> {
        match self.body.last() {
            Some(Node::Operation(operation)) => Some(operation),
            _ => None,
        }
    }

    /// Returns the types of the values that the region yields.
    pub fn yielded(&self) -> Vec<Type> {
        self.terminator().map_or_else(Vec::new, |terminator| terminator.operand_types().collect())
    }
}

/// A function that is printed. It borrows its contents from its builder.
#[derive(Clone, Debug)]
pub struct Function<'a> {
    /// The name.
    pub name: &'a str,
    /// `Some("public")` for the entry point of a StableHLO module.
    pub visibility: Option<&'static str>,
    /// The arguments.
    pub arguments: Vec<Value>,
    /// The attributes of each argument. Empty if no argument has attributes.
    pub argument_attributes: Vec<Attributes>,
    /// The values that the function returns.
    pub returns: Vec<Value>,
    /// Other attributes.
    pub attributes: Attributes,
    /// Constants that are visible in every region.
    pub constants: &'a [Node],
    /// The code, without the return.
    pub body: &'a [Node],
}

/// A module.
#[derive(Clone, Debug)]
pub struct Module<'a> {
    /// The name, if it has one.
    pub name: Option<&'a str>,
    /// Attributes.
    pub attributes: Attributes,
    /// The functions.
    pub functions: Vec<Function<'a>>,
}

#[cfg(test)]
mod tests {
    use super::super::types::Elem;
    use super::*;

    #[test]
    fn attributes_are_spelled_as_mlir_spells_them() {
        let i32 = Type::scalar(Elem::I32);
        for (attribute, text) in [
            (Attribute::Integer(-1, "si32"), "-1 : si32"),
            (Attribute::Bool(false), "false"),
            (Attribute::i64s([1, 2]), "array<i64: 1, 2>"),
            (Attribute::Integers("i32", Vec::new()), "array<i32>"),
            (Attribute::Enum("vector.kind<", "add"), "#vector.kind<add>"),
            (Attribute::Function(vec![i32], vec![i32]), "(i32) -> i32"),
            (Attribute::Function(vec![i32, i32], Vec::new()), "(i32, i32) -> ()"),
            (Attribute::String("a\"b\\c\n\u{e9}".to_owned()), "\"a\\\"b\\\\c\\0A\u{e9}\""),
            (Attribute::List(vec![Attribute::Dictionary(vec![("a", Attribute::i64(1))])]), "[{a = 1 : i64}]"),
        ] {
            assert_eq!(attribute.to_string(), text);
        }
    }
}

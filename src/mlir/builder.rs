//! The common part of the builders of all dialects: insertion point, constants, regions and loops.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::Location;

use super::check::Checked;
use super::ir::{types_of, Attribute, Attributes, Node, Operation, Region, Value};
use super::types::{Constant, Type};

/// The properties of a dialect that the builder needs.
#[derive(Debug)]
pub struct Dialect {
    /// The operation that creates a constant from its attribute `value`.
    pub constant: &'static str,
    /// Where constants are written.
    pub constants: Placement,
    /// Checks the types of an operation with its attributes and regions. Rejects unknown operations.
    pub check: fn(&Operation) -> Checked,
}

/// Where constants are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Directly before each use.
    BeforeUse,
    /// At the start of the function, each constant once.
    FunctionEntry,
}

/// The scope of a function's arguments, of its constants, and of results of operations outside all regions.
const FUNCTION_SCOPE: u32 = 0;

/// Builds one function. Methods take `&self`, so that nested calls read like expressions.
#[derive(Debug)]
pub struct Builder {
    dialect: &'static Dialect,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    next_id: u32,
    next_scope: u32,
    /// The scopes whose values are visible at the insertion point. The innermost scope is last.
    visible: Vec<u32>,
    /// The bodies of the function and of the open regions. The innermost body is last.
    open: Vec<Vec<Node>>,
    /// Constants at the start of the function.
    constants: Vec<Node>,
    constant_values: HashMap<Constant, Value>,
}

impl State {
    fn fresh(&mut self, ty: Type, scope: u32) -> Value {
        self.next_id += 1;
        Value::ssa(ty, self.next_id - 1, scope)
    }

    fn fresh_scope(&mut self) -> u32 {
        self.next_scope += 1;
        self.next_scope - 1
    }

    fn innermost(&self) -> u32 {
        *self.visible.last().expect("the function's scope is always visible")
    }

    fn push(&mut self, node: Node) {
        self.open.last_mut().expect("the function's body is always open").push(node);
    }
}

/// The syntax of a dialect's loop that repeats while a condition is true.
#[derive(Debug)]
pub struct WhileLoop {
    /// The operation.
    pub name: &'static str,
    /// The terminator of the condition's region. Its first operand is the condition.
    pub condition_end: &'static str,
    /// Whether the terminator of the condition passes the state after the condition.
    pub condition_passes_state: bool,
    /// The terminator of the body's region.
    pub body_end: &'static str,
    /// Whether both regions have the same arguments. A syntax that names the arguments only once needs this.
    pub shared_arguments: bool,
}

/// An operation that is not added yet.
#[derive(Debug)]
#[must_use = "an operation is added when its results are declared"]
pub struct Pending<'a> {
    builder: &'a Builder,
    operation: Operation,
}

impl<'a> Pending<'a> {
    /// Sets the operands.
    pub fn operands(mut self, operands: impl Into<Vec<Value>>) -> Pending<'a> {
        self.operation.operands = operands.into();
        self
    }

    /// Adds an attribute.
    pub fn attribute(mut self, name: &'static str, attribute: Attribute) -> Pending<'a> {
        self.operation.attributes.push((name, attribute));
        self
    }

    /// Adds attributes.
    pub fn attributes(mut self, attributes: Attributes) -> Pending<'a> {
        self.operation.attributes.extend(attributes);
        self
    }

    /// Sets the regions.
    pub fn regions(mut self, regions: impl Into<Vec<Region>>) -> Pending<'a> {
        self.operation.regions = regions.into();
        self
    }

    /// Describes the purpose of a loop or a branch.
    pub fn label(mut self, label: Option<&str>) -> Pending<'a> {
        self.operation.label = label.map(str::to_owned);
        self
    }

    /// Adds the operation, which has one result.
    pub fn result(self, ty: Type) -> Value {
        let operation = self.builder.checked(self.operation, [ty]);
        let result = operation.results[0];
        self.builder.push(operation);
        result
    }

    /// Adds the operation and returns its results.
    pub fn results(self, types: impl IntoIterator<Item = Type>) -> Vec<Value> {
        let operation = self.builder.checked(self.operation, types);
        let results = operation.results.clone();
        self.builder.push(operation);
        results
    }

    /// Adds the operation, which has no result.
    pub fn no_result(self) {
        self.builder.push(self.builder.checked(self.operation, []));
    }
}

impl Builder {
    /// Returns an empty function.
    pub fn new(dialect: &'static Dialect) -> Builder {
        let state = State {
            next_id: 0,
            next_scope: FUNCTION_SCOPE + 1,
            visible: vec![FUNCTION_SCOPE],
            open: vec![Vec::new()],
            constants: Vec::new(),
            constant_values: HashMap::new(),
        };
        Builder { dialect, state: RefCell::new(state) }
    }

    /// Adds an argument to the function. The caller keeps the list of arguments.
    pub fn argument(&self, ty: Type) -> Value {
        self.state.borrow_mut().fresh(ty, FUNCTION_SCOPE)
    }

    /// Starts an operation. It is added to the innermost open region when its results are declared.
    ///
    /// It then panics if the dialect rejects its types or if an operand is not visible. Either is a mistake in a
    /// kernel.
    #[track_caller]
    pub fn op(&self, name: &'static str) -> Pending<'_> {
        Pending { builder: self, operation: operation(name) }
    }

    /// Adds a comment. It is printed only in texts for readers.
    pub fn comment(&self, text: impl Into<String>) {
        self.state.borrow_mut().push(Node::Comment(text.into()));
    }

    /// Writes the operation's constants, creates its results, and checks the operation.
    fn checked(&self, mut operation: Operation, results: impl IntoIterator<Item = Type>) -> Operation {
        for operand in &mut operation.operands {
            *operand = self.materialized(*operand);
        }
        {
            let state = &mut *self.state.borrow_mut();
            let scope = state.innermost();
            operation.results = results.into_iter().map(|ty| state.fresh(ty, scope)).collect();
            let visible = |value: &Value| value.scope().is_none_or(|scope| state.visible.contains(&scope));
            if let Some(operand) = operation.operands.iter().find(|operand| !visible(operand)) {
                panic!("{operation}: operand {operand} belongs to a region that is closed");
            }
        }
        if let Err(reason) = (self.dialect.check)(&operation) {
            panic!("{operation}: {reason}");
        }
        operation
    }

    fn push(&self, operation: Operation) {
        self.state.borrow_mut().push(Node::Operation(operation));
    }

    /// Converts the value to an SSA value. If it is a constant, adds the operation that creates it.
    pub fn materialized(&self, value: Value) -> Value {
        let Some(bits) = value.literal() else { return value };
        let constant = Constant { ty: value.ty(), bits };
        let state = &mut *self.state.borrow_mut();
        match self.dialect.constants {
            Placement::BeforeUse => {
                let result = state.fresh(constant.ty, state.innermost());
                state.push(self.constant(constant, result));
                result
            }
            Placement::FunctionEntry => {
                if let Some(&known) = state.constant_values.get(&constant) {
                    return known;
                }
                let result = state.fresh(constant.ty, FUNCTION_SCOPE);
                state.constants.push(self.constant(constant, result));
                state.constant_values.insert(constant, result);
                result
            }
        }
    }

    fn constant(&self, constant: Constant, result: Value) -> Node {
        Node::Operation(Operation {
            results: vec![result],
            attributes: vec![("value", Attribute::Constant(constant))],
            ..operation(self.dialect.constant)
        })
    }

    /// Builds a region whose arguments have these types. `body` receives the arguments and returns the operands of
    /// the terminator.
    pub fn region(
        &self,
        arguments: impl IntoIterator<Item = Type>,
        terminator: &'static str,
        body: impl FnOnce(&[Value]) -> Vec<Value>,
    ) -> Region {
        let (scope, arguments) = self.arguments(arguments);
        self.region_with(scope, arguments, terminator, body)
    }

    /// Returns the arguments of a region, in a new scope.
    fn arguments(&self, types: impl IntoIterator<Item = Type>) -> (u32, Vec<Value>) {
        let state = &mut *self.state.borrow_mut();
        let scope = state.fresh_scope();
        (scope, types.into_iter().map(|ty| state.fresh(ty, scope)).collect())
    }

    fn region_with(
        &self,
        scope: u32,
        arguments: Vec<Value>,
        terminator: &'static str,
        body: impl FnOnce(&[Value]) -> Vec<Value>,
    ) -> Region {
        {
            let state = &mut *self.state.borrow_mut();
            let inside = state.fresh_scope();
            state.visible.extend([scope, inside]);
            state.open.push(Vec::new());
        }
        let results = body(&arguments);
        self.op(terminator).operands(results).no_result();
        let state = &mut *self.state.borrow_mut();
        state.visible.truncate(state.visible.len() - 2);
        Region { arguments, body: state.open.pop().expect("pushed above") }
    }

    /// Repeats `body` on the state while `condition` is true. Returns the last state.
    pub fn while_loop(
        &self,
        syntax: &WhileLoop,
        label: Option<&str>,
        start: &[Value],
        condition: impl FnOnce(&[Value]) -> Value,
        body: impl FnOnce(&[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let start: Vec<Value> = start.iter().map(|&value| self.materialized(value)).collect();
        let (scope, arguments) = self.arguments(types_of(&start));
        let before = self.region_with(scope, arguments.clone(), syntax.condition_end, |state| {
            let passed = if syntax.condition_passes_state { state } else { &[] };
            [&[condition(state)], passed].concat()
        });
        let after = match syntax.shared_arguments {
            true => self.region_with(scope, arguments, syntax.body_end, body),
            false => self.region(types_of(&start), syntax.body_end, body),
        };
        let types: Vec<Type> = types_of(&start).collect();
        self.op(syntax.name).operands(start).regions([before, after]).label(label).results(types)
    }

    /// Passes the constants at the start of the function and the body of the function to `read`. No region may be
    /// open.
    pub fn read<R>(&self, read: impl FnOnce(&[Node], &[Node]) -> R) -> R {
        let state = self.state.borrow();
        let [body] = state.open.as_slice() else { panic!("a region is open") };
        read(&state.constants, body)
    }
}

#[track_caller]
fn operation(name: &'static str) -> Operation {
    Operation {
        name,
        operands: Vec::new(),
        results: Vec::new(),
        attributes: Vec::new(),
        regions: Vec::new(),
        label: None,
        source: Location::caller(),
    }
}

/// Returns the values of a state of fixed length.
pub(super) fn fixed<const N: usize>(values: &[Value]) -> [Value; N] {
    values.try_into().expect("a loop keeps the length of its state")
}

#[cfg(test)]
mod tests {
    use super::super::ir::Module;
    use super::super::print::{print, GENERIC};
    use super::super::types::Elem;
    use super::super::{ir::Function, upstream};
    use super::*;

    fn check(op: &Operation) -> Checked {
        upstream::check(op).unwrap_or(Err("there is no rule for this operation"))
    }

    static AT_USE: Dialect = Dialect { constant: "arith.constant", constants: Placement::BeforeUse, check };
    static AT_ENTRY: Dialect =
        Dialect { constant: "arith.constant", constants: Placement::FunctionEntry, check };

    /// Returns the generic text of a function that adds the same constant twice, the second time in a branch.
    fn text(dialect: &'static Dialect) -> String {
        let builder = Builder::new(dialect);
        let (x, go) = (builder.argument(Type::scalar(Elem::I32)), builder.argument(Type::scalar(Elem::I1)));
        let one = Value::constant(x.ty(), 1);
        let add = |a: Value| builder.op("arith.addi").operands([a, one]).result(a.ty());
        let sum = add(x);
        let sums = upstream::if_else(&builder, "why", go, || vec![add(sum)], || vec![one]);
        builder.read(|constants, body| {
            let main = Function {
                name: "main",
                visibility: None,
                arguments: vec![x, go],
                argument_attributes: Vec::new(),
                returns: sums,
                attributes: Vec::new(),
                constants,
                body,
            };
            print(&GENERIC, &Module { name: Some("m"), attributes: Vec::new(), functions: vec![main] })
        })
    }

    #[test]
    fn constants_before_each_use() {
        let expected = r#"
"builtin.module"() ({
  "func.func"() ({
  ^bb0(%0: i32, %1: i1):
    %2 = "arith.constant"() {value = 1 : i32} : () -> i32
    %3 = "arith.addi"(%0, %2) : (i32, i32) -> i32
    %7 = "scf.if"(%1) ({
      %4 = "arith.constant"() {value = 1 : i32} : () -> i32
      %5 = "arith.addi"(%3, %4) : (i32, i32) -> i32
      "scf.yield"(%5) : (i32) -> ()
    }, {
      %6 = "arith.constant"() {value = 1 : i32} : () -> i32
      "scf.yield"(%6) : (i32) -> ()
    }) : (i1) -> i32 loc("why")
    "func.return"(%7) : (i32) -> ()
  }) {function_type = (i32, i1) -> i32, sym_name = "main"} : () -> ()
}) {sym_name = "m"} : () -> ()
"#;
        assert_eq!(text(&AT_USE), expected.trim_start());
    }

    #[test]
    fn constants_once_at_the_functions_start() {
        let expected = r#"
"builtin.module"() ({
  "func.func"() ({
  ^bb0(%0: i32, %1: i1):
    %2 = "arith.constant"() {value = 1 : i32} : () -> i32
    %3 = "arith.addi"(%0, %2) : (i32, i32) -> i32
    %5 = "scf.if"(%1) ({
      %4 = "arith.addi"(%3, %2) : (i32, i32) -> i32
      "scf.yield"(%4) : (i32) -> ()
    }, {
      "scf.yield"(%2) : (i32) -> ()
    }) : (i1) -> i32 loc("why")
    "func.return"(%5) : (i32) -> ()
  }) {function_type = (i32, i1) -> i32, sym_name = "main"} : () -> ()
}) {sym_name = "m"} : () -> ()
"#;
        assert_eq!(text(&AT_ENTRY), expected.trim_start());
    }

    #[test]
    #[should_panic(expected = "arith.tan(i32) -> i32: there is no rule for this operation")]
    fn unknown_operations_are_refused() {
        let builder = Builder::new(&AT_USE);
        let x = builder.argument(Type::scalar(Elem::I32));
        builder.op("arith.tan").operands([x]).result(x.ty());
    }

    #[test]
    #[should_panic(expected = "a region is open")]
    fn an_open_region_is_not_a_function() {
        let builder = Builder::new(&AT_USE);
        builder.region([], "scf.yield", |_| builder.read(|_, _| Vec::new()));
    }
}

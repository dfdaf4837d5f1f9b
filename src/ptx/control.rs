//! Variables, conditions and loops.

use super::operands::Class;
use super::{Int, Mask, Ptx, Variable, Wide, WideVariable};
use crate::semantics::arith::Arith;

impl Ptx {
    /// Returns a new variable with a value.
    pub fn variable(&self, value: Int) -> Variable {
        let variable = Variable(self.new_register(Class::Word));
        self.set(variable, value);
        variable
    }

    /// Assigns a value to a variable.
    pub fn set(&self, variable: Variable, value: Int) {
        self.line(format_args!("mov.b32 {variable}, {value}"));
    }

    /// If the mask is true, adds `value` to a variable. This is one instruction.
    pub fn add_if(&self, mask: Mask, variable: Variable, value: Int) {
        self.line(format_args!("@{mask} add.s32 {variable}, {variable}, {value}"));
    }

    /// Returns the value that a variable has now.
    pub fn get(&self, variable: Variable) -> Int {
        self.int_op("mov.b32", &[&variable])
    }

    /// Returns a new 64-bit variable with a value.
    pub fn wide_variable(&self, value: Wide) -> WideVariable {
        let variable = WideVariable(self.new_register(Class::Wide));
        self.set_wide(variable, value);
        variable
    }

    /// Assigns a value to a 64-bit variable.
    pub fn set_wide(&self, variable: WideVariable, value: Wide) {
        self.line(format_args!("mov.b64 {variable}, {value}"));
    }

    /// Returns the value that a 64-bit variable has now.
    pub fn get_wide(&self, variable: WideVariable) -> Wide {
        self.wide_op("mov.b64", &[&variable])
    }

    /// Runs `body` in the threads whose mask is true.
    pub fn when(&self, mask: Mask, body: impl FnOnce()) {
        let end = self.new_label();
        self.line(format_args!("@!{mask} bra {end}"));
        body();
        self.place(&end);
    }

    /// Runs `then` in the threads whose mask is true, and `otherwise` in the others.
    pub fn when_else(&self, mask: Mask, then: impl FnOnce(), otherwise: impl FnOnce()) {
        let (other, end) = (self.new_label(), self.new_label());
        self.line(format_args!("@!{mask} bra {other}"));
        then();
        self.line(format_args!("bra {end}"));
        self.place(&other);
        otherwise();
        self.place(&end);
    }

    /// Runs `body` while `condition` is true.
    pub fn repeat_while(&self, condition: impl FnOnce() -> Mask, body: impl FnOnce()) {
        let (start, end) = (self.new_label(), self.new_label());
        self.place(&start);
        let condition = condition();
        self.line(format_args!("@!{condition} bra {end}"));
        body();
        self.line(format_args!("bra {start}"));
        self.place(&end);
    }

    /// Runs `body` for `from`, `from + step`, … below `to`.
    pub fn for_range(&self, from: Int, to: Int, step: usize, body: impl FnOnce(Int)) {
        let index = self.variable(from);
        self.repeat_while(
            || self.lt(self.get(index), to),
            || {
                body(self.get(index));
                self.set(index, self.add(self.get(index), self.int(step as i32)));
            },
        );
    }

    fn new_label(&self) -> String {
        let number = self.labels.replace(self.labels.get() + 1);
        format!("L{number}")
    }

    fn place(&self, label: &str) {
        self.body.borrow_mut().push_str(&format!("{label}:\n"));
    }
}

//! A builder of kernels in PTX, the assembly language of NVIDIA GPUs ("Parallel Thread Execution ISA", NVIDIA).
//!
//! A kernel is written as one function that calls methods of [`Ptx`]. Each method appends an instruction to the text of
//! the kernel and returns the register of its result. The builder implements
//! [`Arith`](crate::semantics::arith::Arith) and [`WideArith`](crate::semantics::arith::WideArith), so the functions of
//! the sampling contract, except the long division, add their instructions to the kernel.
//!
//! Floating-point instructions that round state their rounding (`.rn`, `.rzi`). No instruction of binary32 fuses a
//! multiplication with an addition, and no instruction flushes subnormals to zero. Every thread of a block must execute
//! the same barriers ([`Ptx::barrier`], [`Ptx::barrier_count`]). Every thread of a warp must execute the same warp
//! operations ([`Ptx::warp_max`] and others).

mod arith;
mod control;
mod division;
mod float64;
mod memory;
mod operands;
mod threads;

use std::cell::{Cell, RefCell};
use std::fmt::{Display, Write};

pub use memory::{Address, Shared};
pub use operands::{Double, Float, Int, Mask, Variable, Wide, WideVariable};

use operands::Class;

/// The version of the PTX language. Version 7.4 has every instruction that the builder emits.
const VERSION: &str = "7.4";
/// The least compute capability that runs the kernels: 8.0 has reductions over a warp (`redux.sync`).
const TARGET: &str = "sm_80";
/// The number of threads of a warp.
pub const WARP: usize = 32;

/// The builder of one kernel. Methods take `&self`, so that calls can be nested like expressions.
pub struct Ptx {
    /// The number of threads of a block.
    threads: usize,
    /// The number of blocks that a multiprocessor must be able to run at the same time.
    resident_blocks: usize,
    body: RefCell<String>,
    /// The number of registers of each class.
    registers: [Cell<usize>; Class::COUNT],
    labels: Cell<usize>,
    parameters: Cell<usize>,
    /// The sizes in bytes of the arrays in shared memory.
    shared: RefCell<Vec<usize>>,
}

impl Ptx {
    /// Returns an empty kernel for blocks of `threads` threads. The assembler limits the registers of a thread so that
    /// a multiprocessor can run `resident_blocks` blocks at the same time.
    pub fn new(threads: usize, resident_blocks: usize) -> Ptx {
        assert!(threads.is_multiple_of(WARP) && (WARP..=1024).contains(&threads), "{threads} threads");
        Ptx {
            threads,
            resident_blocks,
            body: RefCell::default(),
            registers: Default::default(),
            labels: Cell::default(),
            parameters: Cell::default(),
            shared: RefCell::default(),
        }
    }

    /// The number of threads of a block.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Declares the next argument of the kernel, an address in global memory, and reads it.
    pub fn argument(&self) -> Wide {
        let number = self.parameters.replace(self.parameters.get() + 1);
        let pointer = self.wide_register();
        self.line(format_args!("ld.param.u64 {pointer}, [argument_{number}]"));
        pointer
    }

    /// Returns the text of the module.
    pub fn text(&self, name: &str) -> String {
        let mut text = format!(".version {VERSION}\n.target {TARGET}\n.address_size 64\n\n");
        let out = &mut text;
        let parameters: Vec<String> =
            (0..self.parameters.get()).map(|number| format!("\t.param .u64 argument_{number}")).collect();
        write!(out, ".visible .entry {name}(\n{}\n)\n", parameters.join(",\n")).expect("a string grows");
        write!(out, ".maxntid {}, 1, 1\n.minnctapersm {}\n{{\n", self.threads, self.resident_blocks)
            .expect("a string grows");
        for class in Class::ALL {
            let count = self.registers[class as usize].get();
            if count > 0 {
                let (ty, prefix) = (class.declared_type(), class.prefix());
                writeln!(out, "\t.reg {ty} {prefix}<{count}>;").expect("a string grows");
            }
        }
        for (number, bytes) in self.shared.borrow().iter().enumerate() {
            writeln!(out, "\t.shared .align 16 .b8 shared_{number}[{bytes}];").expect("a string grows");
        }
        out.push_str(&self.body.borrow());
        out.push_str("\tret;\n}\n");
        text
    }

    /// Appends an instruction.
    fn line(&self, text: impl Display) {
        writeln!(self.body.borrow_mut(), "\t{text};").expect("a string grows");
    }

    fn new_register(&self, class: Class) -> u32 {
        let count = &self.registers[class as usize];
        count.replace(count.get() + 1) as u32
    }

    fn int_register(&self) -> Int {
        Int::register(self.new_register(Class::Word))
    }

    fn float_register(&self) -> Float {
        Float::register(self.new_register(Class::Word))
    }

    fn wide_register(&self) -> Wide {
        Wide::register(self.new_register(Class::Wide))
    }

    fn mask_register(&self) -> Mask {
        Mask::register(self.new_register(Class::Predicate))
    }

    /// Appends an instruction whose result is an integer.
    fn int_op(&self, instruction: &str, operands: &[&dyn Display]) -> Int {
        let result = self.int_register();
        self.op(instruction, &result, operands);
        result
    }

    fn float_op(&self, instruction: &str, operands: &[&dyn Display]) -> Float {
        let result = self.float_register();
        self.op(instruction, &result, operands);
        result
    }

    fn wide_op(&self, instruction: &str, operands: &[&dyn Display]) -> Wide {
        let result = self.wide_register();
        self.op(instruction, &result, operands);
        result
    }

    fn mask_op(&self, instruction: &str, operands: &[&dyn Display]) -> Mask {
        let result = self.mask_register();
        self.op(instruction, &result, operands);
        result
    }

    fn op(&self, instruction: &str, result: &dyn Display, operands: &[&dyn Display]) {
        let operands: String = operands.iter().map(|operand| format!(", {operand}")).collect();
        self.line(format_args!("{instruction} {result}{operands}"));
    }
}

//! Builders of MLIR text: StableHLO programs and the Mosaic kernels inside them.
//!
//! Both builders share one small intermediate representation:
//!
//! ```text
//!   kernels/stablehlo     kernels/tpu           the algorithms
//!          │                   │
//!   stablehlo::Hlo      mosaic::Kernel          a builder per target: names, attributes, types
//!          │                   │
//!          ├── arith ──────────┤                `Arith` for every builder, from a table of names
//!          │                upstream            MLIR's own dialects: arith, math, vector, memref, scf
//!          └────── builder ────┘                insertion point, constants, regions, loops
//!                     │
//!            ir, types, check, print            values and operations, rules for types, text
//! ```
//!
//! * [`types`] contains element types, shapes and the types of values. [`ir`] contains values, attributes,
//!   operations, regions, functions and modules. They do not depend on a dialect.
//! * [`builder::Builder`] adds operations to the innermost open region. It writes constants where the dialect requires
//!   them, and it builds regions and loops. It checks every operation that is added. The rules of the dialect must
//!   accept the types, and every operand must still be visible. The rules of a dialect are based on the rules in
//!   [`check`]. A violation is a mistake in a kernel. It causes a panic, and the message names the operation and its
//!   types.
//! * [`mod@print`] prints MLIR's generic form of every operation. A [`print::Form`] adds a prefix, comments, or a
//!   function that prints some operations in the custom syntax of their dialect.
//! * [`arith::Elementwise`] is a table of names. A builder that implements it gets
//!   [`Arith`](crate::semantics::arith::Arith), so it can run all of `src/semantics`.
//!   [`WideArith`](crate::semantics::arith::WideArith) differs too much between targets, so each builder implements it.
//!   StableHLO has 64-bit integers. A TPU core has only pairs of registers.
//!
//! # How to add an operation
//!
//! Add a method to the builder of the target (`self.builder.op(name).operands(…).attribute(…).result(ty)`), a rule to
//! the `check` of its dialect, and an example to the test of these rules. The generic form needs no other change. Add
//! an arm to the dialect's pretty form if readers or parsers need it.
//!
//! # How to add a target
//!
//! A target that is written in an MLIR dialect, for example Triton, needs a module with
//!
//! 1. a [`builder::Dialect`]: its constants and its rules. The rules of [`upstream`] can be reused;
//! 2. a struct that contains a [`builder::Builder`], with a method per operation of the dialect. Its loops are
//!    one-line calls of [`builder::Builder::while_loop`], [`upstream::for_each`] and [`upstream::if_else`];
//! 3. an implementation of [`arith::Elementwise`];
//! 4. a [`print::Form`].
//!
//! A target that is not MLIR needs its own builder. [`crate::ptx`] is an example. A PTX kernel consists of instructions
//! on registers that can change. It has labels instead of regions. Such a builder implements
//! [`Arith`](crate::semantics::arith::Arith) itself.

pub mod arith;
pub mod builder;
pub mod check;
pub mod ir;
pub mod mosaic;
pub mod print;
pub mod reduce;
pub mod stablehlo;
pub mod types;
pub mod upstream;

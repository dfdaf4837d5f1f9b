//! Plain draws: the blocks of a group of rows keep the logits in registers while they exchange their maxima.

use nucleus::dtype::Dtype;
use nucleus::kernels::{Gpu, Path as Way, Spec};
use nucleus::semantics::params::RowParams;
use nucleus::semantics::philox::random_words;
use rand::prelude::*;

use crate::common::interpreter::{kinds_from, problem_of, spec, Device};
use crate::common::{Problem, RowKind};
use crate::kernels::{check, check_with, Model, SCHEDULES};

/// With this option, the interpreter runs one block after the other. So only the last block of a row finds the records
/// of all blocks.
const ONE_BY_ONE: &[&str] = &["--resident=1"];

/// A GPU with one multiprocessor. In batches of at least six rows, a group has four rows and four blocks, and a row of
/// [`VOCAB`] logits has three slices.
fn small() -> Model {
    Model(Gpu { name: "small", multiprocessors: 1 })
}

const VOCAB: usize = 20_001;
const ROWS: usize = 4;

/// Returns a batch of plain draws.
fn plain(spec: &Spec, kinds: Vec<RowKind>, rng: &mut StdRng) -> Problem {
    let mut problem = problem_of(spec, kinds, rng);
    for (row, params) in problem.rows.iter_mut().enumerate() {
        let temperature = [1.0, 0.7, 3.0][row % 3];
        *params = RowParams::new(0, 1.0, 0.0, temperature, random_words(rng.random(), 1), spec.vocab);
    }
    problem
}

/// Returns two groups of plain draws. Each slice of a row contains the maximum of a row.
fn groups(spec: &Spec, rng: &mut StdRng) -> Problem {
    let mut problem = plain(spec, vec![RowKind::Normal; spec.batch], rng);
    let mut bits = problem.bits.clone();
    for (row, logits) in bits.chunks_mut(spec.vocab).enumerate() {
        logits[[100, 9_000, 20_000, 17_000][row % ROWS]] = spec.dtype.round(9.0);
    }
    problem.set_bits(bits);
    problem
}

/// Changes the text of one kernel of a program. `change` gets each instruction. Exactly `count` instructions must
/// change.
fn changed(program: &str, kernel: &str, count: usize, change: impl Fn(&str) -> Option<String>) -> String {
    let start = program.find(&format!(".visible .entry {kernel}(")).unwrap();
    let len = program[start..].find("ret;").unwrap();
    let (text, rest) = program[start..].split_at(len);
    let mut changes = 0;
    let instruction = |part: &str| {
        let new = change(part);
        changes += usize::from(new.is_some());
        new.unwrap_or_else(|| part.to_owned())
    };
    let text: String = text.split_inclusive(';').map(instruction).collect();
    assert_eq!(changes, count, "{kernel}");
    [&program[..start], &text, rest].concat()
}

/// Replaces the end of an instruction that contains `name`.
fn with_end<'a>(name: &'a str, end: &'a str, new: &'a str) -> impl Fn(&str) -> Option<String> + 'a {
    move |part| Some(part.strip_suffix(end).filter(|_| part.contains(name))?.to_owned() + new)
}

/// Returns the program without the second pass. Its results are right only if the scan has summed the weights of all
/// rows.
fn without_second_pass(program: &str) -> String {
    // 7 is the state of a row that needs the second pass.
    changed(program, "nucleus_finish_row", 2, with_end("setp.eq.s32", ", 7;", ", 99;"))
}

/// Returns the program in which no block waits. So no block finds the maximum of a row.
fn without_waiting(program: &str) -> String {
    changed(program, "nucleus_scan", 1, with_end("mov.b32", ", 256;", ", 0;"))
}

#[test]
fn plain_draws() {
    let mut rng = StdRng::seed_from_u64(31);
    let model = small();
    for (number, dtype) in [Dtype::F32, Dtype::Bf16, Dtype::F16].into_iter().enumerate() {
        // The last rows are not a whole group.
        let spec = spec(Way::Arbitrary, 2 * ROWS + 2, VOCAB - number, dtype, number == 0);
        let mut problem = plain(&spec, kinds_from(5 * number, spec.batch), &mut rng);
        let program = model.program(&spec);
        check("plain", &spec, &program, &problem).unwrap_or_else(|said| panic!("{said}"));
        // A row of the second group is not a plain draw.
        problem.rows[ROWS + 1] = RowParams::new(9, 0.9, 0.0, 1.0, random_words(rng.random(), 1), spec.vocab);
        check("plain_mixed", &spec, &program, &problem).unwrap_or_else(|said| panic!("{said}"));
    }
}

/// The wait of a block ends with or without the maximum of the row. The results are the same.
#[test]
fn both_ends_of_the_wait() {
    let mut rng = StdRng::seed_from_u64(32);
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let spec = spec(Way::Arbitrary, 2 * ROWS, VOCAB, dtype, false);
        let (program, problem) = (small().program(&spec), groups(&spec, &mut rng));
        let run = |name: &str, program: &str, options: &[&[&str]]| {
            check_with(name, &spec, program, &problem, options).map(|checked| checked.cases)
        };
        assert_eq!(run("held", &program, &[ONE_BY_ONE]), Ok(1));
        // If the blocks run at the same time, each block finds the maximum. So no row needs the second pass.
        let single = without_second_pass(&program);
        assert_eq!(run("held_once", &single, SCHEDULES), Ok(SCHEDULES.len()));
        let said = run("held_one_by_one", &single, &[ONE_BY_ONE]).unwrap_err();
        assert!(said.contains("mismatches"), "{said}");
        // If no block waits, all rows need the second pass.
        assert_eq!(run("held_never", &without_waiting(&program), SCHEDULES), Ok(SCHEDULES.len()));
        let said = run("held_neither", &without_waiting(&single), &SCHEDULES[..1]).unwrap_err();
        assert!(said.contains("mismatches"), "{said}");
    }
}

/// The checks find mistakes that the test adds to the exchange of the maxima.
#[test]
fn mistakes_in_the_exchange_are_found() {
    let spec = spec(Way::Arbitrary, 2 * ROWS, VOCAB, Dtype::F32, false);
    let (program, problem) = (small().program(&spec), groups(&spec, &mut StdRng::seed_from_u64(33)));
    let weak = |access: &str| {
        let strong = format!("{access}.relaxed.gpu.global");
        changed(&program, "nucleus_scan", 1, |part| {
            part.contains(&strong).then(|| part.replace(&strong, &format!("{access}.global")))
        })
    };
    for access in ["ld", "st"] {
        let said = check("held_weak", &spec, &weak(access), &problem).unwrap_err();
        assert!(said.contains("races with a"), "{said}");
    }
    // The blocks do not wait for the last of the three slices.
    let hasty = changed(&program, "nucleus_scan", 1, with_end("min.s32", ", 2;", ", 1;"));
    let said = check("held_hasty", &spec, &hasty, &problem).unwrap_err();
    assert!(said.contains("mismatches"), "{said}");
}

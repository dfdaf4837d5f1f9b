//! Writes the shared test vectors in `tests/vectors` with the sorted reference, checks that the committed files are up
//! to date, and checks every sampling function of the built-in backend with them. `make vectors` rewrites the files.

use std::mem::size_of;
use std::os::raw::c_void;
use std::ptr::{null, null_mut};

use nucleus::abi::*;
use nucleus::dtype::Dtype;
use nucleus::plan::Entry;

use crate::abi::{no_debug_arrays, outcome, zeroed, Outcome, Sampler};
use crate::common::vectors::{directory, parse, print, Case};
use crate::common::Answers;
use crate::vector_cases::{groups, Group};

/// A pointer to an argument; null if the case does not have it.
fn argument<T, A>(values: &Option<Vec<A>>) -> *const T {
    values.as_ref().map_or(null(), |values| values.as_ptr().cast())
}

/// An array of the logits' type, from bits or for bits.
enum Elements {
    Wide(Vec<u32>),
    Narrow(Vec<u16>),
}

impl Elements {
    fn new(dtype: Dtype, bits: &[u32]) -> Elements {
        match dtype {
            Dtype::F32 => Elements::Wide(bits.to_vec()),
            _ => Elements::Narrow(bits.iter().map(|&bits| bits as u16).collect()),
        }
    }
    fn pointer(&mut self) -> *mut c_void {
        match self {
            Elements::Wide(values) => values.as_mut_ptr().cast(),
            Elements::Narrow(values) => values.as_mut_ptr().cast(),
        }
    }
    fn bits(&self) -> Vec<u32> {
        match self {
            Elements::Wide(values) => values.clone(),
            Elements::Narrow(values) => values.iter().map(|&value| u32::from(value)).collect(),
        }
    }
}

fn dtype_number(dtype: Dtype) -> nuc_dtype {
    match dtype {
        Dtype::F32 => NUC_DTYPE_F32,
        Dtype::Bf16 => NUC_DTYPE_BF16,
        Dtype::F16 => NUC_DTYPE_F16,
    }
}

/// The outputs that a call requests.
#[derive(Clone, Copy)]
struct Wanted {
    row_status: bool,
    slices: bool,
}

/// Calls one of the functions that take structs, with every debug array. An array that is not wanted is empty in
/// the result.
fn call(sampler: &Sampler, entry: Entry, case: &Case, wanted: Wanted) -> (Outcome, Answers) {
    let (rows, wide) = (case.num_rows, case.num_rows * case.vocab);
    let slots = if wanted.slices { case.num_rows * case.max_k } else { 0 };
    // No sampler writes these initial values. So the comparison detects arrays that were not written.
    let mut answers = Answers {
        tokens: vec![-7; rows],
        row_status: vec![77; if wanted.row_status { rows } else { 0 }],
        greedy_sampled: vec![-7; rows],
        random_high: vec![77; rows],
        random_low: vec![77; rows],
        next_tokens: vec![-7; rows],
        weights: vec![-7; wide],
        indices_k: vec![-7; slots],
        weights_k: vec![-7; slots],
        ..Answers::default()
    };
    let mut logits = Elements::new(case.dtype, &case.logits);
    let mut topk_logits = Elements::new(case.dtype, &vec![0x7fab; wide]);
    let mut topk_logits_k = Elements::new(case.dtype, &vec![0x7fab; slots]);
    let batch = nuc_batch {
        struct_size: size_of::<nuc_batch>(),
        logits: logits.pointer(),
        dtype: dtype_number(case.dtype),
        num_rows: rows,
        vocab: case.vocab,
        top_k: argument(&case.top_k),
        top_p: argument(&case.top_p),
        min_p: argument(&case.min_p),
        temperature: argument(&case.temperature),
        random_words: argument(&case.random_words),
        seed: argument(&case.seed),
        offset: argument(&case.offset),
        // SAFETY: a struct of the ABI.
        ..unsafe { zeroed() }
    };
    let options = nuc_call_options {
        struct_size: size_of::<nuc_call_options>(),
        keep_ties: i32::from(case.keep_ties),
        use_replace_val: 1,
        replace_val: f32::from_bits(case.replace_val),
        reserved: 0,
    };
    let debug = nuc_debug_arrays {
        greedy_sampled: answers.greedy_sampled.as_mut_ptr(),
        topk_logits_unsorted: topk_logits.pointer(),
        topk_topp_unnorm_probs_i32_unsorted: answers.weights.as_mut_ptr(),
        random_unnorm_cdf_sampled_high: answers.random_high.as_mut_ptr(),
        random_unnorm_cdf_sampled_low: answers.random_low.as_mut_ptr(),
        next_tokens: answers.next_tokens.as_mut_ptr(),
        ..no_debug_arrays()
    };
    let debug = if wanted.slices {
        nuc_debug_arrays {
            topk_indices_k: answers.indices_k.as_mut_ptr(),
            topk_logits_k: topk_logits_k.pointer(),
            topk_topp_unnorm_probs_i32_k: answers.weights_k.as_mut_ptr(),
            ..debug
        }
    } else {
        debug
    };
    let function = match entry {
        Entry::Automatic => nuc_topk_topp_and_sample,
        Entry::Arbitrary => nuc_arbitrary_topk_topp_and_sample,
        Entry::Bounded => nuc_bounded_topk_topp_and_sample,
        Entry::Reference => nuc_reference_topk_topp_and_sample,
    };
    let row_status = if wanted.row_status { answers.row_status.as_mut_ptr() } else { null_mut() };
    let tokens = answers.tokens.as_mut_ptr();
    // SAFETY: the arrays have the lengths that the shapes require.
    let outcome =
        outcome(|error| unsafe { function(sampler.0, &batch, &options, tokens, row_status, &debug, error) });
    answers.topk_logits = topk_logits.bits();
    answers.topk_logits_k = topk_logits_k.bits();
    (outcome, answers)
}

/// The tokens and the statuses from nuc_sample_flat.
fn call_flat(sampler: &Sampler, path: nuc_path, case: &Case) -> (Vec<i32>, Vec<u32>) {
    let (mut tokens, mut row_status) = (vec![-7; case.num_rows], vec![77; case.num_rows]);
    let mut logits = Elements::new(case.dtype, &case.logits);
    // SAFETY: the arrays have the lengths that the shapes require.
    let outcome = outcome(|error| unsafe {
        nuc_sample_flat(
            sampler.0,
            path,
            logits.pointer(),
            dtype_number(case.dtype),
            case.num_rows,
            case.vocab,
            0,
            argument(&case.top_k),
            argument(&case.top_p),
            argument(&case.min_p),
            argument(&case.temperature),
            argument(&case.random_words),
            argument(&case.seed),
            argument(&case.offset),
            i32::from(case.keep_ties),
            tokens.as_mut_ptr(),
            row_status.as_mut_ptr(),
            error,
        )
    });
    assert_eq!(outcome.status, NUC_OK, "{}: {outcome:?}", case.name);
    (tokens, row_status)
}

/// The groups with the results of the reference.
fn generated() -> Vec<Group> {
    let mut groups = groups();
    for case in groups.iter_mut().flat_map(|group| &mut group.cases) {
        let wanted = Wanted { row_status: true, slices: case.has_slices() };
        let (outcome, answers) = call(&Sampler::on(None, case.max_k), Entry::Reference, case, wanted);
        assert_eq!(outcome.status, NUC_OK, "{}: {outcome:?}", case.name);
        case.expected = answers;
    }
    groups
}

/// The committed cases of all files.
fn committed() -> Vec<Case> {
    let files = groups().into_iter().map(|group| directory().join(group.file).with_extension("txt"));
    files.flat_map(|file| parse(&std::fs::read_to_string(file).unwrap())).collect()
}

/// The committed files are what the sorted reference computes, and there are no other files.
#[test]
fn the_files_are_up_to_date() {
    let update = std::env::var_os("NUCLEUS_UPDATE_VECTORS").is_some();
    let mut names = vec!["README.md".to_owned()];
    for group in generated() {
        let name = format!("{}.txt", group.file);
        let (file, text) = (directory().join(&name), print(group.comment, &group.cases));
        if update {
            std::fs::write(&file, &text).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(found == text, "tests/vectors/{name} is out of date: run `make vectors`");
        names.push(name);
    }
    let entries = std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut found: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    found.sort();
    names.sort();
    assert_eq!(found, names, "files in tests/vectors");
}

/// The files can be read back, have different names, and contain what the README says about them.
#[test]
fn the_files_cover_every_type_path_and_status() {
    let cases = committed();
    let generated: Vec<Case> = generated().into_iter().flat_map(|group| group.cases).collect();
    assert!(cases == generated, "a case changes when it is written and read");
    let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), cases.len(), "two cases have the same name");

    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
        for path in [Entry::Automatic, Entry::Arbitrary, Entry::Bounded] {
            for keep_ties in [false, true] {
                let found = cases
                    .iter()
                    .any(|case| (case.dtype, case.path, case.keep_ties) == (dtype, path, keep_ties));
                assert!(found || path == Entry::Arbitrary && keep_ties, "{dtype:?} {path:?} {keep_ties}");
            }
        }
        let of_type = || cases.iter().filter(|case| case.dtype == dtype);
        for status in 0..=8 {
            // A +inf is a candidate, and a bad parameter excludes every other bit.
            let possible = [0, 1, 2, 3, 4, 6, 8].contains(&status);
            assert_eq!(
                of_type().any(|case| case.expected.row_status.contains(&status)),
                possible,
                "{status}"
            );
        }
    }
    let rows: usize = cases.iter().map(|case| case.num_rows).sum();
    let bytes: u64 =
        std::fs::read_dir(directory()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    println!("{} cases, {rows} rows, {bytes} bytes", cases.len());
    assert!(rows >= 300 && bytes < 700_000, "{rows} rows, {bytes} bytes");
}

/// Every sampling function that accepts a case computes its results, with one and with two threads.
#[test]
fn every_sampling_function_agrees_with_the_vectors() {
    for case in committed() {
        for threads in [1, 2] {
            let sampler = Sampler::with_threads(None, case.max_k, threads);
            let check = |entry: Entry, wanted: Wanted| {
                let (outcome, answers) = call(&sampler, entry, &case, wanted);
                assert_eq!(outcome.status, NUC_OK, "{} {entry:?}: {outcome:?}", case.name);
                let mut want = case.expected.clone();
                if !wanted.slices {
                    (want.indices_k, want.topk_logits_k, want.weights_k) = (vec![], vec![], vec![]);
                }
                assert_eq!(answers, want, "{} {entry:?}, {threads} threads", case.name);
            };
            let slices = case.has_slices();
            for entry in [Entry::Reference, Entry::Automatic] {
                check(entry, Wanted { row_status: true, slices });
            }
            check(case.path, Wanted { row_status: true, slices });
            let (paths, arbitrary): (&[nuc_path], bool) = match case.path {
                Entry::Bounded => (&[NUC_PATH_BOUNDED], false),
                _ => (&[NUC_PATH_AUTO, NUC_PATH_ARBITRARY], true),
            };
            if arbitrary {
                check(Entry::Arbitrary, Wanted { row_status: true, slices });
            }
            for &path in paths {
                let (tokens, row_status) = call_flat(&sampler, path, &case);
                assert_eq!(
                    (&tokens, &row_status),
                    (&case.expected.tokens, &case.expected.row_status),
                    "{}",
                    case.name
                );
            }
        }
    }
}

/// Without statuses, a case with impossible parameters fails and names one of its rows. The other cases succeed.
#[test]
fn without_statuses_the_call_fails() {
    for case in committed() {
        let slices = case.has_slices();
        let sampler = Sampler::on(None, case.max_k);
        let (outcome, answers) = call(&sampler, case.path, &case, Wanted { row_status: false, slices });
        let is_bad = |row: i64| case.expected.row_status[row as usize] == NUC_ROW_BAD_PARAMETER;
        if (0..case.num_rows as i64).any(is_bad) {
            assert_eq!(outcome.status, NUC_INVALID_ARGUMENT, "{}", case.name);
            assert!(outcome.row >= 0 && is_bad(outcome.row), "{}: {outcome:?}", case.name);
            assert!(answers.tokens.iter().all(|&token| token == -7), "{}: an output was written", case.name);
        } else {
            assert_eq!((outcome.status, answers.tokens), (NUC_OK, case.expected.tokens), "{}", case.name);
        }
    }
}

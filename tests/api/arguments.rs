//! Wrong arguments of the Rust interface: the error names the argument, and no output is written.

use nucleus::{f16, Backend, Batch, ErrorKind, Outputs, Path, Sampler};

const LOGITS: [f32; 6] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];

fn sampler() -> Sampler {
    Sampler::builder().backend(Backend::Builtin).num_threads(1).max_k(2).build().unwrap()
}

fn batch() -> Batch<'static> {
    Batch::new(&LOGITS, 3).unwrap()
}

/// The argument that an error names.
fn argument<T: std::fmt::Debug>(outcome: Result<T, nucleus::Error>) -> &'static str {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let name = error.argument().unwrap_or_else(|| panic!("{error} names no argument"));
    assert!(error.to_string().contains(name), "{error}");
    name
}

#[test]
fn shapes_are_checked() {
    assert_eq!(argument(Batch::new(&LOGITS, 4)), "logits");
    assert_eq!(argument(Batch::new(&LOGITS, 0)), "vocab");
    assert_eq!(argument(Batch::new(&LOGITS, (1 << 24) + 1)), "vocab");
    assert_eq!(argument(Batch::strided(&LOGITS, 2, 3, 2)), "row_stride");
    assert_eq!(argument(Batch::strided(&LOGITS, 2, 3, 4)), "logits");
    assert_eq!(argument(Batch::strided(&LOGITS, usize::MAX, 3, 4)), "logits");
    // Two rows of 2 logits, 4 elements apart.
    let strided = Batch::strided(&LOGITS, 2, 2, 4).unwrap().temperature(&[0.0, 0.0]);
    assert_eq!(sampler().sample(&strided).unwrap(), [1, 1]);
}

#[test]
fn options_of_the_sampler_are_checked() {
    let builtin = || Sampler::builder().backend(Backend::Builtin);
    assert_eq!(argument(builtin().max_k(0).build()), "max_k");
    assert_eq!(argument(builtin().max_k(1025).build()), "max_k");
    assert_eq!(argument(builtin().num_threads(1025).build()), "num_threads");
    assert_eq!(argument(builtin().device_index(1).build()), "device_index");
}

#[test]
fn lengths_of_parameters_are_checked() {
    let sampler = sampler();
    assert_eq!(argument(sampler.sample(&batch().top_k(&[1]))), "top_k");
    assert_eq!(argument(sampler.sample(&batch().top_p(&[1.0; 3]))), "top_p");
    assert_eq!(argument(sampler.sample(&batch().min_p(&[]))), "min_p");
    assert_eq!(argument(sampler.sample(&batch().temperature(&[1.0]))), "temperature");
    assert_eq!(argument(sampler.sample(&batch().seed(&[1]))), "seed");
    assert_eq!(argument(sampler.sample(&batch().offset(&[1]))), "offset");
    assert_eq!(argument(sampler.sample(&batch().random_words(&[[0; 4]]))), "random_words");
    let both = batch().random_words(&[[0; 4]; 2]);
    assert_eq!(argument(sampler.sample(&both.seed(&[1, 2]))), "random_words");
    assert_eq!(argument(sampler.sample(&both.offset(&[1, 2]))), "random_words");
    assert_eq!(argument(sampler.sample(&batch().replace_val(f32::NAN))), "replace_val");
}

#[test]
fn outputs_are_checked_before_they_are_written() {
    let sampler = sampler();
    let (mut good, mut short) = ([7; 2], [7; 1]);
    let greedy = batch().temperature(&[0.0, 0.0]);
    let outputs = Outputs::new().tokens(&mut good).next_tokens(&mut short);
    assert_eq!(argument(sampler.sample_into(&greedy, outputs)), "next_tokens");
    assert_eq!((good, short), ([7; 2], [7; 1]));
    let mut halves = vec![f16::ZERO; 6];
    let outputs = Outputs::new().topk_logits_unsorted(&mut halves);
    assert_eq!(argument(sampler.sample_into(&greedy, outputs)), "topk_logits_unsorted");
    // The k-slices have max_k = 2 slots per row.
    let (mut three, mut two) = ([7; 6], [7; 4]);
    let keeps_two = greedy.top_k(&[2, 2]);
    let outputs = Outputs::new().topk_indices_k(&mut three);
    assert_eq!(argument(sampler.sample_into(&keeps_two, outputs)), "topk_indices_k");
    sampler.sample_into(&keeps_two, Outputs::new().topk_indices_k(&mut two)).unwrap();
    assert_eq!(two, [1, 2, 1, 2]);
}

#[test]
fn impossible_rows_are_named() {
    let sampler = sampler();
    let wrong = batch().temperature(&[1.0, -1.0]);
    let error = sampler.sample(&wrong).unwrap_err();
    assert_eq!((error.argument(), error.row()), (Some("temperature"), Some(1)));
    // The row has no k, so it does not fit the bounded path.
    let error = sampler.sample(&batch().path(Path::Bounded).top_k(&[2, 0])).unwrap_err();
    assert_eq!((error.argument(), error.row()), (Some("top_k"), Some(1)));
}

#[test]
fn a_batch_can_be_empty() {
    let empty = Batch::new(&[0.0_f32; 0], 3).unwrap();
    assert_eq!(sampler().sample(&empty).unwrap(), [0; 0]);
    assert_eq!(sampler().sample_debug(&empty).unwrap().tokens, [0; 0]);
}

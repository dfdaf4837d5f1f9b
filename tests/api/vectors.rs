//! The shared test vectors (tests/vectors/README.md), through the Rust interface.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use nucleus::{bf16, f16, Backend, Batch, Dtype, ErrorKind, Logits, LogitsArray, Path, Sampler};

/// The lines of a case: the key, and the words after it.
struct Case<'t>(HashMap<&'t str, Vec<&'t str>>);

impl Case<'_> {
    fn words(&self, key: &str) -> &[&str] {
        self.0.get(key).unwrap_or_else(|| panic!("no line {key}"))
    }

    fn word(&self, key: &str) -> &str {
        match self.words(key) {
            [word] => word,
            words => panic!("the line {key} has {} words", words.len()),
        }
    }

    fn count(&self, key: &str) -> usize {
        self.word(key).parse().unwrap()
    }

    fn hex(&self, key: &str) -> Vec<u64> {
        self.words(key).iter().map(|word| u64::from_str_radix(word, 16).unwrap()).collect()
    }

    fn hex32(&self, key: &str) -> Vec<u32> {
        self.hex(key).into_iter().map(|bits| bits.try_into().unwrap()).collect()
    }

    fn decimal<T: FromStr<Err: std::fmt::Debug>>(&self, key: &str) -> Vec<T> {
        self.words(key).iter().map(|word| word.parse().unwrap()).collect()
    }

    /// An array of parameters, if the case has it.
    fn optional<T>(&self, key: &str, read: impl Fn(&Self, &str) -> Vec<T>) -> Option<Vec<T>> {
        self.0.contains_key(key).then(|| read(self, key))
    }

    fn floats(&self, key: &str) -> Vec<f32> {
        self.hex32(key).into_iter().map(f32::from_bits).collect()
    }

    fn dtype(&self) -> Dtype {
        match self.word("dtype") {
            "f32" => Dtype::F32,
            "bf16" => Dtype::Bf16,
            "f16" => Dtype::F16,
            other => panic!("no type {other}"),
        }
    }

    fn path(&self) -> Path {
        match self.word("path") {
            "auto" => Path::Automatic,
            "arbitrary" => Path::Arbitrary,
            "bounded" => Path::Bounded,
            other => panic!("no path {other}"),
        }
    }

    /// The logits as an array of their type.
    fn logits(&self) -> LogitsArray {
        let bits = self.hex32("logits");
        let narrow = |bits: Vec<u32>| bits.into_iter().map(|bits| u16::try_from(bits).unwrap());
        match self.dtype() {
            Dtype::F32 => LogitsArray::F32(bits.into_iter().map(f32::from_bits).collect()),
            Dtype::Bf16 => LogitsArray::Bf16(narrow(bits).map(bf16::from_bits).collect()),
            Dtype::F16 => LogitsArray::F16(narrow(bits).map(f16::from_bits).collect()),
        }
    }

    /// Compares every result of one sampler.
    fn check(&self, sampler: &Sampler, path: Path) {
        let logits = self.logits();
        let logits: Logits<'_> = match &logits {
            LogitsArray::F32(values) => values.into(),
            LogitsArray::Bf16(values) => values.into(),
            LogitsArray::F16(values) => values.into(),
        };
        let top_k = self.optional("top_k", Case::decimal::<i32>);
        let [top_p, min_p, temperature] =
            ["top_p", "min_p", "temperature"].map(|key| self.optional(key, Case::floats));
        let [seed, offset] = ["seed", "offset"].map(|key| self.optional(key, Case::hex));
        let words = self.optional("random_words", Case::hex32);
        let words: Option<Vec<[u32; 4]>> =
            words.map(|words| words.chunks(4).map(|row| row.try_into().unwrap()).collect());

        let mut batch = Batch::new(logits, self.count("vocab"))
            .unwrap()
            .keep_ties(self.count("keep_ties") != 0)
            .replace_val(self.floats("replace_val")[0])
            .path(path);
        assert_eq!(batch.num_rows(), self.count("num_rows"));
        if let Some(top_k) = &top_k {
            batch = batch.top_k(top_k);
        }
        if let Some(top_p) = &top_p {
            batch = batch.top_p(top_p);
        }
        if let Some(min_p) = &min_p {
            batch = batch.min_p(min_p);
        }
        if let Some(temperature) = &temperature {
            batch = batch.temperature(temperature);
        }
        if let Some(seed) = &seed {
            batch = batch.seed(seed);
        }
        if let Some(offset) = &offset {
            batch = batch.offset(offset);
        }
        if let Some(words) = &words {
            batch = batch.random_words(words);
        }

        let debug = sampler.sample_debug(&batch).unwrap();
        assert_eq!(debug.tokens, self.decimal::<i32>("tokens"));
        let status: Vec<u32> = debug.row_status.iter().map(|status| status.bits()).collect();
        assert_eq!(status, self.hex32("row_status"));
        assert_eq!(debug.greedy_sampled, self.decimal::<i32>("greedy_sampled"));
        assert_eq!(debug.next_tokens, self.decimal::<i32>("next_tokens"));
        assert_eq!(debug.topk_logits_unsorted.dtype(), self.dtype());
        assert_eq!(debug.topk_logits_unsorted.to_bits(), self.hex32("topk_logits_unsorted"));
        let weights = "topk_topp_unnorm_probs_i32_unsorted";
        assert_eq!(debug.topk_topp_unnorm_probs_i32_unsorted, self.decimal::<i32>(weights));
        let (high, low) = ("random_unnorm_cdf_sampled_high", "random_unnorm_cdf_sampled_low");
        assert_eq!(debug.random_unnorm_cdf_sampled_high, self.hex32(high));
        assert_eq!(debug.random_unnorm_cdf_sampled_low, self.hex32(low));
        assert_eq!(debug.k_slices.is_some(), path == Path::Bounded);
        if let Some(slices) = debug.k_slices {
            assert_eq!(slices.topk_indices_k, self.decimal::<i32>("topk_indices_k"));
            assert_eq!(slices.topk_logits_k.to_bits(), self.hex32("topk_logits_k"));
            let weights = "topk_topp_unnorm_probs_i32_k";
            assert_eq!(slices.topk_topp_unnorm_probs_i32_k, self.decimal::<i32>(weights));
        }

        let sampled = sampler.sample_with_status(&batch).unwrap();
        assert_eq!((&sampled.tokens, &sampled.row_status), (&debug.tokens, &debug.row_status));
        match (sampler.sample(&batch), debug.row_status.iter().position(|status| status.bad_parameter())) {
            (Ok(tokens), None) => assert_eq!(tokens, debug.tokens),
            (Err(error), Some(row)) => {
                assert_eq!((error.kind(), error.row()), (ErrorKind::InvalidArgument, Some(row)));
            }
            (outcome, bad) => panic!("{outcome:?}, and the first bad row is {bad:?}"),
        }
    }
}

/// Parses a file into its cases.
fn cases(text: &str) -> Vec<Case<'_>> {
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("nucleus-vectors 1"));
    let (mut cases, mut keys) = (Vec::new(), HashMap::new());
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split(' ');
        match words.next().unwrap() {
            "end" => cases.push(Case(std::mem::take(&mut keys))),
            key => assert!(keys.insert(key, words.collect()).is_none(), "two lines {key}"),
        }
    }
    assert!(keys.is_empty(), "the last case has no end");
    cases
}

#[test]
fn every_vector_has_its_results() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut checked = 0;
    for file in entries.map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for case in cases(&text) {
            println!("{} of {}", case.word("case"), file.display());
            for num_threads in [1, 3] {
                let builder = Sampler::builder().backend(Backend::Builtin).num_threads(num_threads);
                let sampler = builder.max_k(case.count("max_k")).build().unwrap();
                let path = case.path();
                case.check(&sampler, path);
                if path == Path::Automatic {
                    case.check(&sampler, Path::Arbitrary);
                    case.check(&sampler, Path::Reference);
                }
            }
            checked += 1;
        }
    }
    println!("{checked} cases");
    assert!(checked > 0, "{} has no cases", directory.display());
}

//! The shared test vectors: the text format that tests/vectors/README.md specifies.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use nucleus::dtype::Dtype;
use nucleus::plan::Entry;

use super::Answers;

/// The first line of every file: the version of the format.
pub const FIRST_LINE: &str = "nucleus-vectors 1";

/// One call: the arguments and the results of a batch. Floats and logits are bit patterns. An argument that is `None`
/// is a null pointer.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    pub name: String,
    pub dtype: Dtype,
    pub path: Entry,
    pub num_rows: usize,
    pub vocab: usize,
    pub max_k: usize,
    pub keep_ties: bool,
    pub replace_val: u32,
    pub logits: Vec<u32>,
    pub top_k: Option<Vec<i32>>,
    pub top_p: Option<Vec<u32>>,
    pub min_p: Option<Vec<u32>>,
    pub temperature: Option<Vec<u32>>,
    pub seed: Option<Vec<u64>>,
    pub offset: Option<Vec<u64>>,
    pub random_words: Option<Vec<u32>>,
    pub expected: Answers,
}

impl Case {
    /// Whether the case has k-slices.
    pub fn has_slices(&self) -> bool {
        self.path == Entry::Bounded
    }
}

pub fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// The words of the format for the types of logits.
const DTYPES: [(&str, Dtype); 3] = [("f32", Dtype::F32), ("bf16", Dtype::Bf16), ("f16", Dtype::F16)];
/// The words of the format for the paths.
const PATHS: [(&str, Entry); 3] =
    [("auto", Entry::Automatic), ("arbitrary", Entry::Arbitrary), ("bounded", Entry::Bounded)];

pub fn dtype_word(dtype: Dtype) -> &'static str {
    DTYPES.iter().find(|(_, other)| *other == dtype).unwrap().0
}

fn path_word(path: Entry) -> &'static str {
    PATHS.iter().find(|(_, other)| *other == path).unwrap().0
}

/// The value that belongs to a word.
fn named<T: Copy>(list: &[(&str, T)], word: &str) -> T {
    list.iter().find(|(name, _)| *name == word).unwrap_or_else(|| panic!("{word} is not in the format")).1
}

/// A type of number in the files. Numbers that can be -1 and counts are decimal; bit patterns are hexadecimal.
trait Number: Copy {
    fn print(self, digits: usize) -> String;
    fn parse(word: &str) -> Self;
}

impl Number for i32 {
    fn print(self, _digits: usize) -> String {
        self.to_string()
    }
    fn parse(word: &str) -> i32 {
        word.parse().unwrap()
    }
}

macro_rules! hexadecimal {
    ($($number:ty)*) => {$(
        impl Number for $number {
            fn print(self, digits: usize) -> String {
                format!("{self:0digits$x}")
            }
            fn parse(word: &str) -> $number {
                <$number>::from_str_radix(word, 16).unwrap()
            }
        }
    )*};
}

hexadecimal!(u32 u64);

/// Writes a file.
pub fn print(comment: &str, cases: &[Case]) -> String {
    let mut text = format!("{FIRST_LINE}\n# {comment}\n");
    for case in cases {
        print_case(&mut text, case);
    }
    text
}

fn print_case(text: &mut String, case: &Case) {
    let bits = 2 * case.dtype.size();
    for (key, word) in [
        ("case", case.name.as_str()),
        ("dtype", dtype_word(case.dtype)),
        ("path", path_word(case.path)),
        ("num_rows", &case.num_rows.to_string()),
        ("vocab", &case.vocab.to_string()),
        ("max_k", &case.max_k.to_string()),
        ("keep_ties", &i32::from(case.keep_ties).to_string()),
        ("replace_val", &case.replace_val.print(8)),
    ] {
        writeln!(text, "{}{key} {word}", if key == "case" { "\n" } else { "" }).unwrap();
    }
    line(text, "logits", Some(&case.logits), bits);
    line(text, "top_k", case.top_k.as_ref(), 0);
    line(text, "top_p", case.top_p.as_ref(), 8);
    line(text, "min_p", case.min_p.as_ref(), 8);
    line(text, "temperature", case.temperature.as_ref(), 8);
    line(text, "seed", case.seed.as_ref(), 16);
    line(text, "offset", case.offset.as_ref(), 16);
    line(text, "random_words", case.random_words.as_ref(), 8);

    let expected = &case.expected;
    line(text, "tokens", Some(&expected.tokens), 0);
    line(text, "row_status", Some(&expected.row_status), 8);
    line(text, "greedy_sampled", Some(&expected.greedy_sampled), 0);
    line(text, "topk_logits_unsorted", Some(&expected.topk_logits), bits);
    line(text, "topk_topp_unnorm_probs_i32_unsorted", Some(&expected.weights), 0);
    line(text, "random_unnorm_cdf_sampled_high", Some(&expected.random_high), 8);
    line(text, "random_unnorm_cdf_sampled_low", Some(&expected.random_low), 8);
    line(text, "next_tokens", Some(&expected.next_tokens), 0);
    if case.has_slices() {
        line(text, "topk_indices_k", Some(&expected.indices_k), 0);
        line(text, "topk_logits_k", Some(&expected.topk_logits_k), bits);
        line(text, "topk_topp_unnorm_probs_i32_k", Some(&expected.weights_k), 0);
    }
    text.push_str("end\n");
}

/// Writes a line of numbers; nothing for `None`.
fn line<T: Number>(text: &mut String, key: &str, numbers: Option<&Vec<T>>, digits: usize) {
    if let Some(numbers) = numbers {
        let words: Vec<String> = numbers.iter().map(|number| number.print(digits)).collect();
        writeln!(text, "{key} {}", words.join(" ")).unwrap();
    }
}

/// Reads a file.
pub fn parse(text: &str) -> Vec<Case> {
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(FIRST_LINE));
    let (mut cases, mut keys) = (Vec::new(), HashMap::new());
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (key, words) = line.split_once(' ').unwrap_or((line, ""));
        if key == "end" {
            cases.push(parse_case(&std::mem::take(&mut keys)));
        } else {
            assert!(keys.insert(key, words).is_none(), "two lines {key}");
        }
    }
    assert!(keys.is_empty(), "a case has no end");
    cases
}

fn parse_case(keys: &HashMap<&str, &str>) -> Case {
    let word = |key| *keys.get(key).unwrap_or_else(|| panic!("no line {key}"));
    let count = |key| word(key).parse::<usize>().unwrap();
    let (num_rows, vocab, max_k) = (count("num_rows"), count("vocab"), count("max_k"));
    let (wide, path) = (num_rows * vocab, named(&PATHS, word("path")));
    let slots = if path == Entry::Bounded { num_rows * max_k } else { 0 };
    Case {
        name: word("case").to_owned(),
        dtype: named(&DTYPES, word("dtype")),
        path,
        num_rows,
        vocab,
        max_k,
        keep_ties: count("keep_ties") != 0,
        replace_val: u32::parse(word("replace_val")),
        logits: numbers(keys, "logits", wide).unwrap(),
        top_k: numbers(keys, "top_k", num_rows),
        top_p: numbers(keys, "top_p", num_rows),
        min_p: numbers(keys, "min_p", num_rows),
        temperature: numbers(keys, "temperature", num_rows),
        seed: numbers(keys, "seed", num_rows),
        offset: numbers(keys, "offset", num_rows),
        random_words: numbers(keys, "random_words", 4 * num_rows),
        expected: Answers {
            tokens: numbers(keys, "tokens", num_rows).unwrap(),
            row_status: numbers(keys, "row_status", num_rows).unwrap(),
            greedy_sampled: numbers(keys, "greedy_sampled", num_rows).unwrap(),
            random_high: numbers(keys, "random_unnorm_cdf_sampled_high", num_rows).unwrap(),
            random_low: numbers(keys, "random_unnorm_cdf_sampled_low", num_rows).unwrap(),
            next_tokens: numbers(keys, "next_tokens", num_rows).unwrap(),
            topk_logits: numbers(keys, "topk_logits_unsorted", wide).unwrap(),
            weights: numbers(keys, "topk_topp_unnorm_probs_i32_unsorted", wide).unwrap(),
            indices_k: numbers(keys, "topk_indices_k", slots).unwrap_or_default(),
            topk_logits_k: numbers(keys, "topk_logits_k", slots).unwrap_or_default(),
            weights_k: numbers(keys, "topk_topp_unnorm_probs_i32_k", slots).unwrap_or_default(),
        },
    }
}

/// The numbers of a line; `None` if there is no such line.
fn numbers<T: Number>(keys: &HashMap<&str, &str>, key: &str, length: usize) -> Option<Vec<T>> {
    let numbers: Vec<T> = keys.get(key)?.split(' ').map(T::parse).collect();
    assert_eq!(numbers.len(), length, "numbers in the line {key}");
    Some(numbers)
}

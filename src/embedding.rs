//! The sampler as a function in the caller's own program: the text and the parameters of the function.

use crate::batch::{check_vocab, CallOptions, RowSettings};
use crate::error::Error;
use crate::kernels::{embed, pack_seeds, Path, Spec, Target, COLUMNS};
use crate::plan::{self, CallShape, Entry};

/// The default name of the function.
pub const DEFAULT_NAME: &str = "nucleus_sample";

/// The largest number of rows of a function.
pub const LARGEST_NUM_ROWS: usize = 1 << 16;

/// A function to embed.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// The shape of the logits, the options and the debug arrays.
    pub calls: CallShape,
    /// The number of slots of the bounded path.
    pub max_k: usize,
    /// The device that runs the function.
    pub target: Target,
    /// The symbol name.
    pub name: String,
}

impl Embedding {
    /// Returns the text of the function. See [`embed::emit`].
    pub fn emit(&self) -> Result<String, Error> {
        check_name(&self.name)?;
        Ok(embed::emit(&self.spec()?, &self.target, &self.name))
    }

    /// Returns a row of the array that the function takes as its parameters. `row` is the index of the row, for
    /// messages.
    pub fn pack(
        &self,
        row: usize,
        settings: &RowSettings,
        replace_val: f32,
    ) -> Result<[i32; COLUMNS], Error> {
        let spec = self.spec()?;
        let params = plan::params_in_program(&spec, row, &settings.params(row, [0; 4], spec.vocab)?)?;
        let options = CallOptions { stable: spec.stable, replace_val };
        Ok(pack_seeds(&params, settings.seed, settings.offset, options, spec.dtype))
    }

    /// Checks the shape and returns the program that the function contains. The program has exactly the rows of the
    /// calls, because their number is not rounded up.
    pub fn spec(&self) -> Result<Spec, Error> {
        let CallShape { entry, batch, vocab, stable, wanted, .. } = self.calls;
        plan::check_max_k(self.max_k)?;
        check_vocab(vocab)?;
        if batch == 0 || batch > LARGEST_NUM_ROWS {
            return Err(Error::named_argument(
                "num_rows",
                format!("num_rows is {batch}; it must be 1 to {LARGEST_NUM_ROWS}"),
            ));
        }
        let path = match entry {
            Entry::Bounded if !stable => return Err(Error::named_argument(
                "keep_ties",
                "keep_ties is 1 and the path is the bounded one, whose slots do not hold all ties; use the \
                     arbitrary path",
            )),
            Entry::Bounded => Path::Bounded(self.max_k),
            Entry::Automatic if stable && vocab <= self.max_k => Path::Bounded(self.max_k),
            Entry::Automatic | Entry::Arbitrary => Path::Arbitrary,
            Entry::Reference => {
                return Err(Error::named_argument("path", "the reference cannot be a function of a program"))
            }
        };
        if wanted.slices && path == Path::Arbitrary {
            return Err(plan::no_slices());
        }
        Ok(plan::program(&self.calls, path, batch))
    }
}

/// The target with this name.
pub(crate) fn target(name: &str) -> Result<Target, Error> {
    Target::named(name).ok_or_else(|| {
        let names: Vec<&str> = Target::names().collect();
        Error::named_argument("target", format!("target is {name:?}; it must be one of {}", names.join(", ")))
    })
}

/// Checks that MLIR accepts a name as a symbol without quotes.
fn check_name(name: &str) -> Result<(), Error> {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_next = |c: char| is_first(c) || c.is_ascii_digit() || c == '$' || c == '.';
    if name.starts_with(is_first) && name.chars().all(is_next) {
        return Ok(());
    }
    Err(Error::named_argument(
        "name",
        format!(
            "name is {name:?}; it must consist of letters, digits, _, $ and ., and not start with a digit"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::kernels::{Column, Wanted};
    use crate::plan::LogitsPlace;

    fn embedding(entry: Entry, vocab: usize, stable: bool) -> Embedding {
        let (dtype, wanted) = (Dtype::F32, Wanted::default());
        let calls = CallShape { entry, batch: 3, vocab, dtype, stable, wanted, logits: LogitsPlace::Host };
        Embedding { calls, max_k: 8, target: Target::Portable, name: DEFAULT_NAME.to_owned() }
    }

    fn path(entry: Entry, vocab: usize, stable: bool) -> Result<Path, &'static str> {
        match embedding(entry, vocab, stable).spec() {
            Ok(spec) => {
                assert_eq!((spec.batch, spec.vocab), (3, vocab));
                Ok(spec.path)
            }
            Err(Error::InvalidArgument(wrong)) => Err(wrong.argument.unwrap()),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn the_path_follows_from_the_entry_point() {
        assert_eq!(path(Entry::Automatic, 100, true), Ok(Path::Arbitrary));
        assert_eq!(path(Entry::Automatic, 8, true), Ok(Path::Bounded(8)));
        assert_eq!(path(Entry::Automatic, 8, false), Ok(Path::Arbitrary));
        assert_eq!(path(Entry::Arbitrary, 8, true), Ok(Path::Arbitrary));
        assert_eq!(path(Entry::Bounded, 100, true), Ok(Path::Bounded(8)));
        assert_eq!(path(Entry::Bounded, 100, false), Err("keep_ties"));
        assert_eq!(path(Entry::Reference, 100, true), Err("path"));
        assert_eq!(path(Entry::Automatic, 0, true), Err("vocab"));
    }

    #[test]
    fn names_are_symbols() {
        for name in ["nucleus_sample", "_", "a.b$c9"] {
            check_name(name).unwrap();
        }
        for name in ["", "9a", "a b", "a\"", "@a", "ä", "a\n", ".a", "$a"] {
            check_name(name).unwrap_err();
        }
    }

    /// On the bounded path a k must fit the slots, unless the row is greedy and needs only the maximum.
    #[test]
    fn the_bounded_path_checks_k() {
        let function = embedding(Entry::Bounded, 100, true);
        let values = |top_k: i32, temperature: f32| RowSettings {
            top_k,
            temperature,
            seed: 1,
            offset: 2,
            ..RowSettings::default()
        };
        let k = |top_k, temperature| {
            function.pack(7, &values(top_k, temperature), -1e12).map(|packed| packed[Column::K as usize])
        };
        assert_eq!((k(8, 1.0).unwrap(), k(0, 0.0).unwrap(), k(9, 0.0).unwrap()), (8, 1, 1));
        for (top_k, temperature, name) in [(0, 1.0, "top_k"), (9, 1.0, "top_k"), (3, f32::NAN, "temperature")]
        {
            let Err(Error::InvalidArgument(wrong)) = k(top_k, temperature) else { panic!("{top_k}") };
            assert_eq!((wrong.argument, wrong.row), (Some(name), Some(7)));
        }
    }
}

//! The command line.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use nucleus::dtype::Dtype;
use nucleus::kernels::{Target, Wanted};
use nucleus::pjrt::OptionValue;
use nucleus::plan::{CallShape, Entry, DEFAULT_MAX_K};

/// Compiles the programs of the sampling library nucleus ahead of time, shows them, and says which PJRT plugins work.
#[derive(Parser)]
#[command(name = "nucleus", version)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Say what the library does.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Compile programs into a folder, for hosts that set `program_dir` or NUCLEUS_PROGRAM_DIR to it.
    ///
    /// With --topology no such device is needed here: libtpu compiles for TPUs on any x86-64 Linux host. The variables
    /// that it needs for that (TPU_SKIP_MDS_QUERY=1 TPU_WORKER_HOSTNAMES=localhost ALLOW_MULTIPLE_LIBTPU_LOAD=1) are set
    /// where they are not. Prints a line a program: name, seconds in the compiler, bytes, file.
    Compile(Compile),
    /// Print the programs that a call runs, as text: StableHLO, and for a TPU the kernel in it.
    ///
    /// A line `// -----` stands between texts.
    Emit(Emit),
    /// Look for PJRT plugins, load each in a process of its own, and say what it is or why it does not work.
    Plugins(Plugins),
    /// Load one plugin and describe it on standard output.
    #[command(hide = true)]
    Probe {
        /// The plugin.
        plugin: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct Compile {
    /// The plugin's shared library [default: the environment variable NUCLEUS_PJRT_PLUGIN].
    #[arg(long, value_name = "FILE")]
    pub(crate) plugin: Option<PathBuf>,
    /// The plugin's name of the system to compile for, as the serving host has it, such as v5e:2x2 [default: this host's
    /// devices].
    #[arg(long, value_name = "NAME")]
    pub(crate) topology: Option<String>,
    /// An option for the topology, or for the client. true, false and numbers are passed as such, unless NAME:TYPE=VALUE
    /// says how: str, int, float, bool, or ints (1,2,3).
    #[arg(long, value_name = "NAME=VALUE", value_parser = option)]
    pub(crate) option: Vec<(String, OptionValue)>,
    /// Rows of the calls; each number leads to the power of two that such a batch is padded to.
    #[arg(long, value_name = "ROWS,...", value_delimiter = ',', required = true)]
    pub(crate) batch: Vec<usize>,
    /// Compile for every smaller number of rows too: a batch that mixes paths runs as smaller ones.
    #[arg(long)]
    pub(crate) smaller_batches: bool,
    #[command(flatten)]
    pub(crate) calls: Calls,
    /// The folder, made if it is not there.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
}

#[derive(Args)]
pub(crate) struct Emit {
    /// Rows of the call, at most 128.
    #[arg(long, value_name = "ROWS")]
    pub(crate) batch: usize,
    #[command(flatten)]
    pub(crate) calls: Calls,
    /// What to write it for: any plugin, or a TPU generation.
    #[arg(long, value_name = "TARGET", default_value = "portable", value_parser = target())]
    pub(crate) target: Target,
    /// Print the kernel alone.
    #[arg(long)]
    pub(crate) kernel: bool,
}

#[derive(Args)]
pub(crate) struct Plugins {
    /// Plugins to try besides those that are found. One without a device makes the command fail.
    pub(crate) files: Vec<PathBuf>,
    /// Try these alone: look nowhere else.
    #[arg(long, requires = "files")]
    pub(crate) only: bool,
    /// Seconds to wait for each.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
}

/// What calls have in common.
#[derive(Args)]
pub(crate) struct Calls {
    /// Elements of a row.
    #[arg(long)]
    vocab: usize,
    /// Type of the logits.
    #[arg(long, value_enum)]
    dtype: DtypeName,
    /// The path that rows take; auto is both.
    #[arg(long, value_enum, default_value = "auto")]
    path: PathName,
    /// Slots of the bounded path, as the samplers will have them.
    #[arg(long, value_name = "K", default_value_t = DEFAULT_MAX_K)]
    pub(crate) max_k: usize,
    /// For calls with stable = 0.
    #[arg(long)]
    unstable: bool,
    /// The wide arrays that calls ask for.
    #[arg(long, value_enum, value_name = "ARRAY,...", value_delimiter = ',')]
    wide: Vec<WideName>,
}

#[derive(Clone, Copy, ValueEnum)]
enum DtypeName {
    F32,
    Bf16,
    F16,
}

#[derive(Clone, Copy, ValueEnum)]
enum PathName {
    Auto,
    Arbitrary,
    Bounded,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum WideName {
    /// topk_logits_unsorted
    Logits,
    /// topk_topp_unnorm_probs_i32_unsorted
    Probs,
    /// The k-slices of the bounded path
    KSlices,
}

impl Calls {
    /// For the library, which takes the number of rows from elsewhere.
    pub(crate) fn calls(&self) -> CallShape {
        CallShape {
            entry: match self.path {
                PathName::Auto => Entry::Automatic,
                PathName::Arbitrary => Entry::Arbitrary,
                PathName::Bounded => Entry::Bounded,
            },
            batch: 1,
            vocab: self.vocab,
            dtype: match self.dtype {
                DtypeName::F32 => Dtype::F32,
                DtypeName::Bf16 => Dtype::Bf16,
                DtypeName::F16 => Dtype::F16,
            },
            stable: !self.unstable,
            wanted: Wanted {
                topk_logits: self.wide.contains(&WideName::Logits),
                weights: self.wide.contains(&WideName::Probs),
                slices: self.wide.contains(&WideName::KSlices),
            },
        }
    }
}

fn target() -> impl TypedValueParser<Value = Target> {
    PossibleValuesParser::new(Target::names())
        .try_map(|name| Target::named(&name).ok_or("no target of that name"))
}

fn option(text: &str) -> Result<(String, OptionValue), String> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE")?;
    let (name, kind) = name.split_once(':').map_or((name, None), |(name, kind)| (name, Some(kind)));
    if name.is_empty() {
        return Err("the name is empty".to_owned());
    }
    let int = |text: &str| text.parse().map_err(|_| format!("{text:?} is no integer of 64 bits"));
    let float = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
    let flag = |text: &str| text.parse().map_err(|_| format!("{text:?} is neither true nor false"));
    let value = match kind {
        Some("str") => OptionValue::Str(value.to_owned()),
        Some("int") => OptionValue::I64(int(value)?),
        Some("float") => OptionValue::F32(float(value)?),
        Some("bool") => OptionValue::Bool(flag(value)?),
        Some("ints") if value.is_empty() => OptionValue::I64List(vec![]),
        Some("ints") => OptionValue::I64List(value.split(',').map(int).collect::<Result<_, _>>()?),
        Some(other) => return Err(format!("the type is {other:?}; use one of str, int, float, bool, ints")),
        None => match (flag(value), int(value), float(value)) {
            (Ok(flag), ..) => OptionValue::Bool(flag),
            (_, Ok(number), _) => OptionValue::I64(number),
            // "inf" and "nan" are more likely to be words.
            (_, _, Ok(number)) if number.is_finite() => OptionValue::F32(number),
            _ => OptionValue::Str(value.to_owned()),
        },
    };
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn options_have_the_type_that_they_look_like() {
        let value = |text: &str| option(text).map(|(_, value)| value);
        assert_eq!(value("a=-3"), Ok(OptionValue::I64(-3)));
        assert_eq!(value("a=0.5"), Ok(OptionValue::F32(0.5)));
        assert_eq!(value("a=true"), Ok(OptionValue::Bool(true)));
        assert_eq!(value("a=b=c"), Ok(OptionValue::Str("b=c".to_owned())));
        assert_eq!(value("a=nan"), Ok(OptionValue::Str("nan".to_owned())));
        assert!(value("a").is_err() && value("=b").is_err());
    }

    #[test]
    fn options_have_the_type_that_is_named() {
        let value = |text: &str| option(text).ok();
        let named = |value| Some(("a".to_owned(), value));
        assert_eq!(value("a:str=7"), named(OptionValue::Str("7".to_owned())));
        assert_eq!(value("a:float=1"), named(OptionValue::F32(1.0)));
        assert_eq!(value("a:int=-1"), named(OptionValue::I64(-1)));
        assert_eq!(value("a:bool=true"), named(OptionValue::Bool(true)));
        assert_eq!(value("a:ints=0,3"), named(OptionValue::I64List(vec![0, 3])));
        assert_eq!(value("a:ints="), named(OptionValue::I64List(vec![])));
        for wrong in ["a:int=x", "a:bool=1", "a:ints=1,,2", "a:float=x", "a:list=1", ":int=1"] {
            assert_eq!(value(wrong), None, "{wrong}");
        }
    }
}

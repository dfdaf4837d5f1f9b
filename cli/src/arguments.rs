//! The command-line arguments.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use nucleus::batch::{CallOptions, LARGEST_VOCAB};
use nucleus::dtype::Dtype;
use nucleus::kernels::{Target, Wanted};
use nucleus::pjrt::OptionValue;
use nucleus::plan::{
    CallShape, Entry, LogitsPlace, DEFAULT_MAX_K, LARGEST_BUCKET, LARGEST_DEFAULT_BUCKET, LARGEST_MAX_K,
};

/// Samples logits with the library nucleus, measures it, checks the host, and compiles the library's programs.
#[derive(Parser)]
#[command(name = "nucleus", version)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print all messages of the library's log to standard error, including debug messages. The default is errors and
    /// warnings.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Print JSON: one object per line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Sample the rows of a file of logits, and print one token per row.
    ///
    /// The results are those of nuc_topk_topp_and_sample. Each parameter is one value for all rows, or a list with one
    /// value per row: --top-k 64 or --top-k 64,0,8.
    Sample(Sample),
    /// Measure the built-in backend, or a plugin, on this host.
    ///
    /// Compares each kind of sampling with the time of computing the maximum of each row, and draws a chart.
    Bench(Bench),
    /// Check this host: library, processor, plugins, devices, directory of programs, environment.
    ///
    /// For each problem, prints how to solve it. The exit status is 0 only if there is no problem.
    Doctor(Doctor),
    /// Compile programs into a directory. Samplers load them if `program_dir` or NUCLEUS_PROGRAM_DIR names the
    /// directory.
    ///
    /// With --topology this host does not need the device: libtpu compiles for TPUs on any x86-64 Linux host. The
    /// command sets the environment variables that libtpu needs for this (TPU_SKIP_MDS_QUERY=1
    /// TPU_WORKER_HOSTNAMES=localhost ALLOW_MULTIPLE_LIBTPU_LOAD=1) if they are not set.
    ///
    /// Prints one line per program: its name, the compile time in seconds or "up to date", its size in bytes, and its
    /// file.
    Compile(Compile),
    /// Print the programs that a call runs, as text: StableHLO, and for a TPU or a GPU also the kernel.
    ///
    /// A line `// -----` separates two programs.
    Emit(Emit),
    /// Find PJRT plugins, load each in a child process, and print its devices or its error.
    ///
    /// Searches these places: the files that the environment variables NUCLEUS_PJRT_PLUGIN, TPU_LIBRARY_PATH and
    /// PJRT_NAMES_AND_LIBRARY_PATHS name; the directory .cache/plugins in the current directory and in its parent
    /// directories (`make plugins` downloads plugins there); the packages of Python; the directories of the system's
    /// libraries.
    ///
    /// The exit status is 0 only if all plugins that FILES and NUCLEUS_PJRT_PLUGIN name work.
    Plugins(Plugins),
    /// Print a script that completes the arguments of this command in a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages of this command.
    Man {
        /// The directory for the files. It is created if it does not exist.
        directory: PathBuf,
    },
    /// Load one plugin and describe it on standard output.
    #[command(hide = true)]
    Probe {
        /// The plugin.
        plugin: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct Sample {
    /// The logits: an .npy file, or a .safetensors file. The array is [vocab] or [rows, vocab], of type float32,
    /// float16 or bfloat16. If it has more dimensions, all but the last are rows.
    pub(crate) logits: PathBuf,
    /// The array of a .safetensors file. It is needed if the file has several.
    #[arg(long, value_name = "NAME")]
    pub(crate) tensor: Option<String>,
    /// Keep the K largest logits; 0 turns top-k off.
    #[arg(
        long,
        value_name = "K,...",
        value_delimiter = ',',
        allow_negative_numbers = true,
        default_value = "0"
    )]
    pub(crate) top_k: Vec<i32>,
    /// Keep the most probable tokens until their total probability is at least P; 1 turns top-p off.
    #[arg(
        long,
        value_name = "P,...",
        value_delimiter = ',',
        allow_negative_numbers = true,
        default_value = "1"
    )]
    pub(crate) top_p: Vec<f32>,
    /// Keep tokens with at least P times the largest probability; 0 turns min-p off.
    #[arg(
        long,
        value_name = "P,...",
        value_delimiter = ',',
        allow_negative_numbers = true,
        default_value = "0"
    )]
    pub(crate) min_p: Vec<f32>,
    /// The temperature; 0 is greedy.
    #[arg(
        long,
        value_name = "T,...",
        value_delimiter = ',',
        allow_negative_numbers = true,
        default_value = "1"
    )]
    pub(crate) temperature: Vec<f32>,
    /// The seed of the random numbers. Rows with the same seed and offset draw with the same random number.
    #[arg(long, value_name = "SEED,...", value_delimiter = ',', default_value = "0")]
    pub(crate) seed: Vec<u64>,
    /// The offset in the seed's random numbers, for example the number of the step.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "0")]
    pub(crate) offset: Vec<u64>,
    /// Keep every logit that equals the K-th largest.
    #[arg(long)]
    pub(crate) keep_ties: bool,
    /// The value of removed logits in topk_logits_unsorted.
    #[arg(long, value_name = "VALUE", default_value_t = CallOptions::default().replace_val, allow_negative_numbers = true)]
    pub(crate) replace_val: f32,
    /// The entry point: auto, arbitrary, bounded, or the reference implementation.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) path: EntryName,
    /// The number of slots of the bounded path.
    #[arg(long, value_name = "K", default_value_t = DEFAULT_MAX_K, value_parser = up_to(LARGEST_MAX_K))]
    pub(crate) max_k: usize,
    /// Sample with this PJRT plugin instead of the built-in backend. The results are the same.
    #[arg(long, value_name = "FILE")]
    pub(crate) plugin: Option<PathBuf>,
    /// Write the arrays of all stages to an .npz file, which numpy.load reads. With --path bounded it also has the
    /// k-slices.
    #[arg(long, value_name = "FILE.npz")]
    pub(crate) debug: Option<PathBuf>,
}

/// An entry point of the library.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum EntryName {
    Auto,
    Arbitrary,
    Bounded,
    Reference,
}

impl EntryName {
    pub(crate) fn entry(self) -> Entry {
        match self {
            EntryName::Auto => Entry::Automatic,
            EntryName::Arbitrary => Entry::Arbitrary,
            EntryName::Bounded => Entry::Bounded,
            EntryName::Reference => Entry::Reference,
        }
    }
}

#[derive(Args)]
pub(crate) struct Bench {
    /// The numbers of logits per row.
    #[arg(
        long,
        value_name = "VOCAB,...",
        value_delimiter = ',',
        default_values_t = [32_768, 128_256, 262_144],
        value_parser = up_to(LARGEST_VOCAB)
    )]
    pub(crate) vocab: Vec<usize>,
    /// The number of rows per call.
    #[arg(long, value_name = "ROWS", default_value_t = 1, value_parser = up_to(LARGEST_DEFAULT_BUCKET))]
    pub(crate) batch: usize,
    /// The number of threads of the built-in backend; 0 means one per core.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) threads: usize,
    /// Measure this PJRT plugin instead of the built-in backend. The times include the copies of the logits to the
    /// device.
    #[arg(long, value_name = "FILE")]
    pub(crate) plugin: Option<PathBuf>,
    /// Seconds per figure.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5)]
    pub(crate) seconds: f64,
    /// Also draw the chart into an SVG file.
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Doctor {
    /// Seconds to wait for each plugin.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
}

#[derive(Args)]
pub(crate) struct Compile {
    /// The plugin's shared library [default: the environment variable NUCLEUS_PJRT_PLUGIN].
    #[arg(long, value_name = "FILE")]
    pub(crate) plugin: Option<PathBuf>,
    /// The system to compile for: the plugin's name of the serving host's topology, for example v5e:2x2 [default: the
    /// devices of this host].
    #[arg(long, value_name = "NAME")]
    pub(crate) topology: Option<String>,
    /// An option for the topology, or for the client if there is no --topology. The value is a boolean, an integer or a
    /// number if it can be parsed as one, otherwise a string. NAME:TYPE=VALUE sets the type: str, int, float, bool, or
    /// ints (1,2,3).
    #[arg(long, value_name = "NAME=VALUE", value_parser = option)]
    pub(crate) option: Vec<(String, OptionValue)>,
    /// The numbers of rows of the calls. If the logits are in host memory, each is rounded up to one of --row-buckets.
    #[arg(long, value_name = "ROWS,...", value_delimiter = ',', required = true, value_parser = at_least_1)]
    pub(crate) batch: Vec<usize>,
    /// Also compile for every smaller number of rows, because a batch whose rows take different paths runs as smaller
    /// batches. With --logits device, also compile the programs for buffers whose rows take different paths.
    #[arg(long)]
    pub(crate) smaller_batches: bool,
    /// The numbers of rows that programs are compiled for, ascending. The list must equal the row_buckets of the
    /// samplers that will load the programs [default: 1,2,4,8,16,32,64,128].
    #[arg(long, value_name = "ROWS,...", value_delimiter = ',', value_parser = up_to(LARGEST_BUCKET))]
    pub(crate) row_buckets: Vec<usize>,
    #[command(flatten)]
    pub(crate) calls: Calls,
    /// The directory for the files. It is created if it does not exist.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// The largest size of the directory in bytes. Programs that this command did not write are removed, the least
    /// recently used first, until the directory fits [default: unlimited].
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    pub(crate) capacity: u64,
    /// Compile every program, even if its file is up to date.
    #[arg(long)]
    pub(crate) force: bool,
    /// Compile in this process instead of a child process.
    #[arg(long, hide = true)]
    pub(crate) in_this_process: bool,
}

#[derive(Args)]
pub(crate) struct Emit {
    /// The number of rows of the call. It is at most 128, because larger batches run in pieces. With --embed or with
    /// logits on the device, it is at most 65536.
    #[arg(long, value_name = "ROWS", value_parser = up_to(LARGEST_BUCKET))]
    pub(crate) batch: usize,
    #[command(flatten)]
    pub(crate) calls: Calls,
    /// The target of the programs: any plugin (portable), a TPU generation, or a GPU model.
    #[arg(long, value_name = "TARGET", default_value = "portable", value_parser = target())]
    pub(crate) target: Target,
    /// Print only the kernel.
    #[arg(long)]
    pub(crate) kernel: bool,
    /// Print a function of this name for a program of your own, like nuc_emit. It samples exactly --batch rows on one
    /// path: --path auto is the arbitrary path, or the bounded path if whole rows fit its slots.
    #[arg(long, value_name = "NAME", conflicts_with = "kernel")]
    pub(crate) embed: Option<String>,
}

#[derive(Args)]
pub(crate) struct Plugins {
    /// Plugins to test in addition to those that are found.
    pub(crate) files: Vec<PathBuf>,
    /// Test only FILES, and do not search for other plugins.
    #[arg(long, requires = "files")]
    pub(crate) only: bool,
    /// Seconds to wait for each plugin.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
}

/// The properties that all calls share.
#[derive(Args)]
pub(crate) struct Calls {
    /// The number of elements per row.
    #[arg(long, value_parser = up_to(LARGEST_VOCAB))]
    vocab: usize,
    /// The type of the logits.
    #[arg(long, value_enum)]
    dtype: DtypeName,
    /// The path that the rows take; auto means both.
    #[arg(long, value_enum, default_value = "auto")]
    path: PathName,
    /// The number of slots of the bounded path. It must equal max_k of the samplers that will load the programs.
    #[arg(long, value_name = "K", default_value_t = DEFAULT_MAX_K, value_parser = up_to(LARGEST_MAX_K))]
    pub(crate) max_k: usize,
    /// For calls with keep_ties = 1.
    #[arg(long)]
    keep_ties: bool,
    /// The debug arrays that the calls will request.
    #[arg(long, value_enum, value_name = "ARRAY,...", value_delimiter = ',')]
    debug_arrays: Vec<DebugArray>,
    /// The place of the logits: host memory, a buffer [rows, vocab] on the device, or a buffer [rows, 1, vocab]. With a
    /// buffer, --batch is the exact number of rows of the buffer.
    #[arg(long, value_enum, default_value = "host")]
    logits: LogitsName,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogitsName {
    Host,
    Device,
    Device3d,
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
enum DebugArray {
    /// topk_logits_unsorted
    Logits,
    /// topk_topp_unnorm_probs_i32_unsorted
    Probs,
    /// The k-slices of the bounded path
    KSlices,
}

impl Calls {
    /// The library's description of the calls, with one row. The number of rows is passed separately.
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
            stable: !self.keep_ties,
            wanted: Wanted {
                topk_logits: self.debug_arrays.contains(&DebugArray::Logits),
                weights: self.debug_arrays.contains(&DebugArray::Probs),
                slices: self.debug_arrays.contains(&DebugArray::KSlices),
            },
            logits: match self.logits {
                LogitsName::Host => LogitsPlace::Host,
                LogitsName::Device => LogitsPlace::Device { singleton: false, bad_rows: false },
                LogitsName::Device3d => LogitsPlace::Device { singleton: true, bad_rows: false },
            },
        }
    }
}

fn at_least_1(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("it must be an integer that is at least 1".to_owned()),
        Ok(number) => Ok(number),
    }
}

fn up_to(largest: usize) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=largest as u64)
}

fn target() -> impl TypedValueParser<Value = Target> {
    PossibleValuesParser::new(Target::names())
        .try_map(|name| Target::named(&name).ok_or("there is no target of that name"))
}

fn option(text: &str) -> Result<(String, OptionValue), String> {
    let (name, value) = text.split_once('=').ok_or("an option must be NAME=VALUE")?;
    let (name, kind) = name.split_once(':').map_or((name, None), |(name, kind)| (name, Some(kind)));
    if name.is_empty() {
        return Err("the name is empty".to_owned());
    }
    let int = |text: &str| text.parse().map_err(|_| format!("{text:?} is not an integer of 64 bits"));
    let float = |text: &str| text.parse().map_err(|_| format!("{text:?} is not a number"));
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
            // "inf" and "nan" are more likely words than numbers.
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
    fn the_type_of_an_option_follows_from_its_value() {
        let value = |text: &str| option(text).map(|(_, value)| value);
        assert_eq!(value("a=-3"), Ok(OptionValue::I64(-3)));
        assert_eq!(value("a=0.5"), Ok(OptionValue::F32(0.5)));
        assert_eq!(value("a=true"), Ok(OptionValue::Bool(true)));
        assert_eq!(value("a=b=c"), Ok(OptionValue::Str("b=c".to_owned())));
        assert_eq!(value("a=nan"), Ok(OptionValue::Str("nan".to_owned())));
        assert!(value("a").is_err() && value("=b").is_err());
    }

    #[test]
    fn the_type_of_an_option_can_be_named() {
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

//! Compiling ahead of time: a build host writes compiled programs to files, and other hosts load them without
//! compiling. The build host need not have the device.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::backend::pjrt::plugin_thread;
use crate::backend::pjrt::program_dir::{self, ProgramDir, System};
use crate::batch::check_vocab;
use crate::environment::{self, PLUGIN_VARIABLE};
use crate::error::Error;
use crate::kernels::program::ProgramSpec;
use crate::kernels::{self, Target};
use crate::memory;
use crate::parallel;
use crate::pjrt::{Client, Code, CompileOptions, ErrorKind, OptionValue, Plugin, Topology};
use crate::plan::distinct::Distinct;
use crate::plan::needed::{programs_exactly, programs_up_to};
use crate::plan::{check_max_k, check_rows, check_slices, Buckets, CallShape, Entry, DEFAULT_MAX_K};

/// What to compile, for which system, and where to write it.
#[derive(Clone, Debug)]
pub struct AheadOptions {
    /// The shared library of the plugin; if `None`, the environment variable [`PLUGIN_VARIABLE`] names it.
    pub plugin: Option<PathBuf>,
    /// The plugin's name for a topology. If `None`, the programs are compiled for the devices of a client that
    /// [`compile_ahead`] creates on this host.
    pub topology: Option<String>,
    /// Options for the topology, or for the client.
    pub plugin_options: Vec<(String, OptionValue)>,
    /// The output directory, created if it does not exist. An existing file of a program is replaced. No other file is
    /// changed, unless `output_dir_capacity` is set.
    pub output_dir: PathBuf,
    /// The largest size of `output_dir` in bytes; 0 means unlimited. After the last write, the least recently used
    /// programs, of all systems and versions, are removed until the directory fits. The programs of this call stay, and
    /// also programs that any process used during the last minute.
    pub output_dir_capacity: u64,
    /// Numbers of rows to compile for.
    pub batches: Vec<usize>,
    /// Whether to compile also for every smaller number of rows. A batch whose rows take different paths needs these
    /// programs.
    pub smaller_batches: bool,
    /// [`crate::sampler::SamplerOptions::row_buckets`] of the samplers that will load the programs.
    pub row_buckets: Vec<usize>,
    /// Whether to skip a program if `output_dir` already contains an undamaged file of it for the same system.
    pub skip_up_to_date: bool,
    /// The number of slots of the bounded path, equal to that of the samplers that will load the programs.
    pub max_k: usize,
    /// The calls to compile for; their `batch` is ignored.
    pub calls: CallShape,
}

/// A program whose file exists now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// The name of the program, which logs use too.
    pub name: String,
    /// The path of the file.
    pub file: PathBuf,
    /// The size of the file.
    pub bytes: u64,
    /// The time spent in the compiler; zero if `up_to_date`.
    pub compiling: Duration,
    /// Whether the file existed and was left unchanged: see `skip_up_to_date`.
    pub up_to_date: bool,
}

impl AheadOptions {
    /// Options with the given values, and defaults for all others.
    pub fn new(output_dir: PathBuf, batches: Vec<usize>, calls: CallShape) -> AheadOptions {
        AheadOptions {
            plugin: None,
            topology: None,
            plugin_options: Vec::new(),
            output_dir,
            output_dir_capacity: 0,
            batches,
            smaller_batches: false,
            row_buckets: Vec::new(),
            skip_up_to_date: false,
            max_k: DEFAULT_MAX_K,
            calls,
        }
    }

    /// The programs, each once, in the order of the batches.
    pub fn specs(&self) -> Result<Vec<ProgramSpec>, Error> {
        check_max_k(self.max_k)?;
        check_vocab(self.calls.vocab)?;
        check_slices(&self.calls)?;
        if self.batches.is_empty() {
            return Err(Error::named_argument(
                "row_counts",
                "row_counts is empty; it must have the number of rows of each kind of call",
            ));
        }
        for (place, &rows) in self.batches.iter().enumerate() {
            check_rows("row_counts", &format!("row_counts[{place}]"), rows, self.calls.logits)?;
        }
        if self.calls.entry == Entry::Reference {
            return Err(Error::argument(
                "the entry point is the reference, which runs without compiled programs; choose another one",
            ));
        }
        let buckets = Buckets::new(&self.row_buckets)?;
        let mut specs = Distinct::new();
        for &batch in &self.batches {
            let calls = CallShape { batch, ..self.calls };
            specs.extend(match self.smaller_batches {
                true => programs_up_to(&calls, self.max_k, &buckets)?,
                false => programs_exactly(&calls, self.max_k, &buckets)?,
            })?;
        }
        Ok(specs.into_vec())
    }

    fn plugin_path(&self) -> Result<PathBuf, Error> {
        self.plugin.clone().or_else(|| environment::path(PLUGIN_VARIABLE)).ok_or_else(|| {
            Error::PluginNotFound(format!(
                "no PJRT plugin is named: name the plugin to compile with, or set the environment variable \
                 {PLUGIN_VARIABLE} to the path of its shared library"
            ))
        })
    }
}

/// Compiles and writes every program, on one thread per core, and calls `progress` after each one. If a program fails,
/// the files that are already written stay.
pub fn compile_ahead(
    options: &AheadOptions,
    progress: &(dyn Fn(&Written) + Sync),
) -> Result<Vec<Written>, Error> {
    let specs = options.specs()?;
    let path = options.plugin_path()?;
    let (compiler, directory) = plugin_thread::run(|| {
        let compiler = Compiler::new(&Plugin::load(&path)?, options)?;
        let directory = open_output(options, &compiler)?;
        Ok::<_, Error>((compiler, directory))
    })??;
    log::info!("compiling {} program(s) for {}, {:?}", specs.len(), compiler.target, compiler.system);
    for reason in compiler.portable_reasons(&specs) {
        log::warn!("{reason}");
    }

    let written = Mutex::new(memory::with_capacity(specs.len(), "the list of the written programs")?);
    parallel::for_each(&specs, |spec| {
        let program = plugin_thread::run_maker(|| compiler.provide(spec, &directory, options))??;
        progress(&program);
        written.lock().unwrap_or_else(PoisonError::into_inner).push(program);
        Ok(())
    })?;
    let written = written.into_inner().unwrap_or_else(PoisonError::into_inner);
    let files = written.iter().map(|program| Ok(program.file.clone()));
    let files = memory::collected(written.len(), "the list of the written programs", files)?;
    for (level, message) in directory.enforce_capacity(&files) {
        log::log!(level, "{message}");
    }
    Ok(written)
}

/// Creates the directory for the files. If other users can write to the directory, it is used, but a warning says that
/// samplers will not load programs from it.
fn open_output(options: &AheadOptions, compiler: &Compiler) -> Result<ProgramDir, Error> {
    let path = options.output_dir.as_path();
    let failed = |error| program_dir::directory_error("output_dir", path, true, &error);
    program_dir::create(path).map_err(failed)?;
    if let Some(reason) = program_dir::distrust(path).map_err(failed)? {
        log::warn!("output_dir is {}; samplers do not load from there: {reason}", path.display());
    }
    let directory = ProgramDir::new(path, compiler.system.clone(), compiler.target)
        .with_capacity(options.output_dir_capacity);
    directory.remove_stale_temporaries();
    Ok(directory)
}

/// The compiler of a plugin for one system.
struct Compiler {
    plugin: Arc<Plugin>,
    devices: Devices,
    options: CompileOptions,
    system: System,
    target: Target,
}

enum Devices {
    /// Devices that need not exist, described by a topology.
    Described(Topology),
    /// The devices of this host.
    Here(Arc<Client>),
}

/// Returns the description of a program whose file exists.
fn written(
    spec: &ProgramSpec,
    file: PathBuf,
    compiling: Duration,
    up_to_date: bool,
) -> Result<Written, Error> {
    let metadata = fs::metadata(&file)
        .map_err(|error| Error::Io(format!("{} was written, but cannot be read: {error}", file.display())))?;
    Ok(Written { name: spec.name(), file, bytes: metadata.len(), compiling, up_to_date })
}

impl Compiler {
    /// The reasons why portable programs are compiled although the platform can have kernels. They are logged.
    fn portable_reasons(&self, specs: &[ProgramSpec]) -> Vec<String> {
        let System { platform, device_kind, device_cores, .. } = &self.system;
        Target::portable_reason(platform, device_kind, *device_cores)
            .into_iter()
            .chain(
                specs
                    .iter()
                    .filter_map(ProgramSpec::sampling)
                    .filter_map(|spec| kernels::portable_reason(spec, &self.target)),
            )
            .collect()
    }

    fn new(plugin: &Arc<Plugin>, options: &AheadOptions) -> Result<Compiler, Error> {
        let (devices, system, device) = match &options.topology {
            Some(name) => {
                let topology = describe(plugin, name, &options.plugin_options)?;
                let system = System::of_topology(plugin, &topology)?;
                // The id of any device is correct here: a sampler loads the program for the device that it uses.
                let device = topology.devices()?.first().map_or(0, |device| device.id);
                (Devices::Described(topology), system, device)
            }
            None => {
                let client = Client::create(plugin.clone(), &options.plugin_options)?;
                let system = System::of_client(&client, 0)?;
                let device = client.devices()[0].id();
                (Devices::Here(client), system, device)
            }
        };
        let (options, target) = (CompileOptions::for_device(device), system.target());
        Ok(Compiler { plugin: plugin.clone(), devices, options, system, target })
    }

    /// Makes sure that `directory` contains the file of a program.
    fn provide(
        &self,
        spec: &ProgramSpec,
        directory: &ProgramDir,
        options: &AheadOptions,
    ) -> Result<Written, Error> {
        let text = spec.emit(&self.target);
        if options.skip_up_to_date {
            if let Ok(Some(_)) = directory.read(spec, &text) {
                return written(spec, directory.file(spec, &text), Duration::ZERO, true);
            }
        }
        let start = Instant::now();
        let executable = self.compile(&text)?;
        let compiling = start.elapsed();
        let file = directory.write(spec, &text, options.topology.as_deref(), &executable)?;
        written(spec, file, compiling, false)
    }

    fn compile(&self, text: &str) -> Result<Vec<u8>, Error> {
        Ok(match &self.devices {
            Devices::Described(topology) => self.plugin.compile_ahead(topology, text, &self.options)?,
            Devices::Here(client) => client.compile(text, &self.options)?.serialize()?,
        })
    }
}

fn describe(plugin: &Arc<Plugin>, name: &str, options: &[(String, OptionValue)]) -> Result<Topology, Error> {
    plugin.topology(name, options).map_err(|error| match error.kind() {
        _ if error.is_unimplemented() => Error::named_argument("topology", format!(
            "topology is {name:?}, but the plugin {} describes no topologies; without a topology it compiles for the \
             devices of this host ({error})",
            plugin.path().display()
        )),
        ErrorKind::Pjrt { code: Code::InvalidArgument } => {
            Error::named_argument("topology", format!("topology is {name:?}: {error}"))
        }
        _ => error.into(),
    })
}

//! Compiling ahead of time: programs into files, on a host that need not have the device, for hosts that then load them
//! without a compiler.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::backend::pjrt::program_dir::{ProgramDir, System};
use crate::batch::check_vocab;
use crate::environment::{self, PLUGIN_VARIABLE};
use crate::error::Error;
use crate::kernels::{self, Spec, Target};
use crate::parallel;
use crate::pjrt::{Client, Code, CompileOptions, ErrorKind, OptionValue, Plugin, Topology};
use crate::plan::{check_max_k, programs_exactly, programs_up_to, CallShape, Entry, DEFAULT_MAX_K};

/// What to compile, for what, and where to put it.
#[derive(Clone, Debug)]
pub struct AheadOptions {
    /// The plugin's shared library; the environment variable [`PLUGIN_VARIABLE`] where `None`.
    pub plugin: Option<PathBuf>,
    /// The plugin's name of a topology; where `None`, the devices of a client made here.
    pub topology: Option<String>,
    /// For the topology, or the client.
    pub plugin_options: Vec<(String, OptionValue)>,
    /// Made if it is not there.
    pub output_dir: PathBuf,
    /// Numbers of rows to compile for.
    pub batches: Vec<usize>,
    /// For every smaller number of rows too, as batches that mix paths need.
    pub smaller_batches: bool,
    /// Slots of the bounded path, as the samplers will have them.
    pub max_k: usize,
    /// The calls; their `batch` is not used.
    pub calls: CallShape,
}

/// A program that was compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// [`Spec::name`].
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// Of the serialized executable.
    pub bytes: usize,
    /// In the compiler.
    pub compiling: Duration,
}

impl AheadOptions {
    /// Nothing but the defaults of what can have one.
    pub fn new(output_dir: PathBuf, batches: Vec<usize>, calls: CallShape) -> AheadOptions {
        AheadOptions {
            plugin: None,
            topology: None,
            plugin_options: Vec::new(),
            output_dir,
            batches,
            smaller_batches: false,
            max_k: DEFAULT_MAX_K,
            calls,
        }
    }

    /// The programs, each once, in the order of the batches.
    pub fn specs(&self) -> Result<Vec<Spec>, Error> {
        check_max_k(self.max_k)?;
        check_vocab(self.calls.vocab)?;
        if self.batches.is_empty() {
            return Err(Error::argument(
                "no batch size is given; give the number of rows of each kind of call",
            ));
        }
        if let Some(place) = self.batches.iter().position(|&rows| rows == 0) {
            return Err(Error::argument(format!("batches[{place}] is 0; it must be at least 1")));
        }
        if self.calls.entry == Entry::Reference {
            return Err(Error::argument(
                "the reference runs on the host; there is nothing to compile for it",
            ));
        }
        let mut specs = Vec::new();
        for &batch in &self.batches {
            let calls = CallShape { batch, ..self.calls };
            let needed = match self.smaller_batches {
                true => programs_up_to(&calls, self.max_k),
                false => programs_exactly(&calls, self.max_k),
            };
            for spec in needed {
                if !specs.contains(&spec) {
                    specs.push(spec);
                }
            }
        }
        Ok(specs)
    }
}

/// Compiles and writes every program, one thread a core, and tells `progress` of each as it is done. Programs that were
/// written before an error stay.
pub fn compile_ahead(
    options: &AheadOptions,
    progress: &(dyn Fn(&Written) + Sync),
) -> Result<Vec<Written>, Error> {
    let specs = options.specs()?;
    let path = options.plugin.clone().or_else(|| environment::path(PLUGIN_VARIABLE)).ok_or_else(|| {
        Error::PluginNotFound(format!(
            "no PJRT plugin is named: name the plugin to compile with, or set the environment variable \
             {PLUGIN_VARIABLE} to the path of its shared library"
        ))
    })?;
    let plugin = Plugin::load(&path)?;
    let compiler = Compiler::new(&plugin, options)?;
    let folder = &options.output_dir;
    std::fs::create_dir_all(folder).map_err(|error| {
        Error::argument(format!("output_dir is {}: the folder cannot be made: {error}", folder.display()))
    })?;
    let target = compiler.system.target();
    log::info!("compiling {} program(s) for {target}, {:?}", specs.len(), compiler.system);
    let System { platform, device_kind, device_cores, .. } = &compiler.system;
    Target::portable_reason(platform, device_kind, *device_cores)
        .into_iter()
        .chain(specs.iter().filter_map(|spec| kernels::portable_reason(spec, &target)))
        .for_each(|reason| log::warn!("{reason}"));
    let dir = ProgramDir::new(folder, compiler.system.clone(), target);

    let written = Mutex::new(Vec::with_capacity(specs.len()));
    parallel::for_each(&specs, |spec| {
        let text = kernels::emit(spec, &target);
        let start = Instant::now();
        let executable = compiler.compile(&plugin, &text)?;
        let compiling = start.elapsed();
        let file = dir.write(spec, &text, options.topology.as_deref(), &executable).map_err(|error| {
            Error::argument(format!("output_dir is {}: cannot write there: {error}", folder.display()))
        })?;
        let program = Written { name: spec.name(), file, bytes: executable.len(), compiling };
        progress(&program);
        written.lock().unwrap_or_else(PoisonError::into_inner).push(program);
        Ok(())
    })?;
    Ok(written.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// A plugin's compiler for one system.
struct Compiler {
    devices: Devices,
    options: CompileOptions,
    system: System,
}

enum Devices {
    Described(Topology),
    Here(Arc<Client>),
}

impl Compiler {
    fn new(plugin: &Arc<Plugin>, options: &AheadOptions) -> Result<Compiler, Error> {
        match &options.topology {
            Some(name) => {
                let topology =
                    plugin.topology(name, &options.plugin_options).map_err(|error| match error.kind() {
                        _ if error.is_unimplemented() => Error::argument(format!(
                            "topology is {name:?}, and the plugin {} describes no topologies; without one it compiles \
                             for the devices of this host ({error})",
                            plugin.path().display()
                        )),
                        ErrorKind::Pjrt { code: Code::InvalidArgument } => {
                            Error::argument(format!("topology is {name:?}: {error}"))
                        }
                        _ => error.into(),
                    })?;
                let system = System::of_topology(plugin, &topology)?;
                let devices = topology.devices()?;
                // Samplers load it for whichever device they use.
                let first = devices.first().map_or(0, |device| device.id);
                let options = CompileOptions::for_device(first);
                Ok(Compiler { devices: Devices::Described(topology), options, system })
            }
            None => {
                let client = Client::create(plugin.clone(), &options.plugin_options)?;
                let system = System::of_client(&client, 0)?;
                let options = CompileOptions::for_device(client.devices()[0].id());
                Ok(Compiler { devices: Devices::Here(client), options, system })
            }
        }
    }

    fn compile(&self, plugin: &Arc<Plugin>, text: &str) -> Result<Vec<u8>, Error> {
        Ok(match &self.devices {
            Devices::Described(topology) => plugin.compile_ahead(topology, text, &self.options)?,
            Devices::Here(client) => client.compile(text, &self.options)?.serialize()?,
        })
    }
}

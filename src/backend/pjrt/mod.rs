//! Sampling through a PJRT plugin.
//!
//! A call is cut into pieces (`crate::plan`). The backend looks up the programs of all pieces, starts all pieces, and
//! then fetches and checks all answers. Only then does it write to the caller's arrays. So a call that fails leaves
//! them unchanged.

mod answer;
mod completion;
#[cfg(test)]
mod completion_tests;
mod conversion;
pub mod device_call;
pub mod device_parameters;
mod failed_calls;
mod first_run;
mod inputs;
mod logits_upload;
pub(crate) mod plugin_thread;
pub mod prewarming;
pub mod program_cache;
pub mod program_dir;
mod programs;
mod row_major;
mod step_operands;
/// The locks that `completion.rs` and `conversion.rs` use.
mod sync {
    pub(super) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
}

use std::io;
use std::num::NonZeroUsize;
use std::path::Path as FilePath;
use std::sync::Arc;

use self::answer::Answer;
use self::failed_calls::FailedCalls;
use self::first_run::FirstRuns;
use self::program_cache::CacheStats;
use self::program_dir::{PluginBuilds, ProgramDir, ProgramDirStats, System};
use self::programs::Programs;
use self::step_operands::StepOperands;
use crate::backend::DeviceInfo;
use crate::batch::Batch;
use crate::error::Error;
use crate::kernels::program::ProgramSpec;
use crate::kernels::{Target, Wanted};
use crate::latency::{CallLatencies, CallTimer};
use crate::memory;
use crate::outputs::{Outputs, RowOutcome};
use crate::pjrt::{Client, Executable, Launch, OptionValue, Plugin};
use crate::plan::{self, Buckets, Entry, Piece};

/// The purpose of allocations, for error messages.
const PIECES: &str = "the pieces of a batch";

/// A client of a plugin, one of its devices, and the programs compiled for it. Thread-safe.
///
/// The compiler runs on separate threads, because it needs a large stack. The other calls into the plugin run on the
/// caller's thread. With the CPU plugins of the tests, a sampling call fits a stack of 16 KiB, and creating the
/// client fits a stack of 32 KiB.
pub(crate) struct PjrtBackend {
    client: Arc<Client>,
    device: usize,
    target: Target,
    buckets: Buckets,
    programs: Programs,
    steps: StepOperands,
    failed_calls: Arc<FailedCalls>,
    first_runs: FirstRuns,
    latencies: Arc<CallLatencies>,
}

impl PjrtBackend {
    /// Creates a backend on a device of a client. `device` is an index into the client's addressable devices. The
    /// backend records its calls in `latencies`.
    pub(crate) fn with_client(
        client: Arc<Client>,
        device: usize,
        cache_capacity: NonZeroUsize,
        buckets: Buckets,
        latencies: Arc<CallLatencies>,
    ) -> Result<Self, Error> {
        let Some(description) = client.devices().get(device).map(|device| device.description()) else {
            return Err(Error::named_argument(
                "device_index",
                format!(
                    "device_index is {device}; the plugin has {} addressable device(s), counted from 0",
                    client.devices().len()
                ),
            ));
        };
        let (platform, kind, cores) = (client.platform_name(), &description.kind, description.num_cores());
        let target = Target::of(platform, kind, cores);
        if let Some(reason) = Target::portable_reason(platform, kind, cores) {
            log::warn!("{reason}");
        }
        let programs = Programs::new(client.clone(), device, target, cache_capacity);
        let (steps, failed_calls) = (StepOperands::new(), Arc::default());
        let first_runs = FirstRuns::of(&target);
        Ok(PjrtBackend {
            client,
            device,
            target,
            buckets,
            programs,
            steps,
            failed_calls,
            first_runs,
            latencies,
        })
    }

    /// Makes the backend look for compiled programs in a directory before it compiles. If `write` is set, it creates
    /// the directory and writes the programs that it compiles there. `capacity` is
    /// [`crate::sampler::SamplerOptions::program_dir_capacity`].
    ///
    /// The backend does not use a directory that other users can write to, unless the environment says to trust it. In
    /// that case it logs a warning and compiles the programs.
    pub(crate) fn use_programs_in(
        &mut self,
        directory: &FilePath,
        write: bool,
        capacity: u64,
    ) -> Result<(), Error> {
        let failed = |error: io::Error| program_dir::directory_error("program_dir", directory, write, &error);
        if write {
            program_dir::create(directory).map_err(failed)?;
        }
        // The process may change its working directory later.
        let path = program_dir::resolve(directory).map_err(failed)?;
        if let Some(reason) = program_dir::distrust(&path).map_err(failed)? {
            log::warn!("program_dir is {} and is not used: {reason}", path.display());
            return Ok(());
        }
        let plugin = self.client.plugin();
        plugin.identify(&|file| PluginBuilds::read(&path).find(file))?;
        if write {
            if let Some((level, text)) = PluginBuilds::add(&path, plugin.hashed_files()) {
                log::log!(level, "{text}");
            }
        }
        let system = System::of_client(&self.client, self.device)?;
        let programs = ProgramDir::new(&path, system, self.target).with_capacity(capacity);
        if write {
            programs.remove_stale_temporaries();
            programs.measure();
        }
        self.programs.use_directory(programs, write);
        Ok(())
    }

    /// See [`crate::sampler::Sampler::sample`]. `batch` has at least one row.
    pub(crate) fn sample(
        &self,
        entry: Entry,
        max_k: usize,
        batch: &Batch<'_>,
        outputs: &mut Outputs<'_>,
    ) -> Result<(), Error> {
        let mut timer = CallTimer::begin();
        let wanted = Wanted {
            topk_logits: outputs.wide.topk_logits.is_some(),
            weights: outputs.wide.weights.is_some(),
            slices: outputs.wide.wants_slices(),
        };
        let slots_wanted = if wanted.slices { max_k } else { 0 };
        let pieces = plan::pieces(entry, max_k, &self.buckets, batch, wanted)?;
        let programs = self.programs_of(&pieces)?;
        let launches =
            pieces.iter().zip(&programs).map(|(piece, program)| self.launch(piece, program, batch));
        let launches = memory::collected(pieces.len(), PIECES, launches)?;
        timer.enqueued();
        let answers = pieces
            .iter()
            .zip(launches)
            .map(|(piece, launch)| Answer::fetch(piece, &launch.wait()?, batch, slots_wanted));
        let answers = memory::collected(pieces.len(), PIECES, answers)?;
        write(&pieces, &answers, batch, outputs)?;
        timer.ended(&self.latencies);
        Ok(())
    }

    /// Returns the programs of all pieces. Equal programs are looked up once. So a program that the cache cannot keep
    /// is compiled only once.
    fn programs_of(&self, pieces: &[Piece]) -> Result<Vec<Arc<Executable>>, Error> {
        let mut programs: Vec<Arc<Executable>> = memory::with_capacity(pieces.len(), PIECES)?;
        for piece in pieces {
            let same = pieces[..programs.len()].iter().position(|other| other.spec == piece.spec);
            programs.push(match same {
                Some(same) => programs[same].clone(),
                None => self.programs.get(&piece.spec.into())?,
            });
        }
        Ok(programs)
    }

    fn launch(&self, piece: &Piece, program: &Arc<Executable>, batch: &Batch<'_>) -> Result<Launch, Error> {
        let [logits, params] = inputs::upload(&self.client, self.device, piece, batch)?;
        Ok(program.launch(&[&logits, &params], None)?)
    }

    /// The client.
    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Runs a program that was prewarmed, if it is a program for a GPU.
    fn run_first(&self, spec: &ProgramSpec, program: &Arc<Executable>) {
        self.first_runs.run(&self.client, self.device, spec, program);
    }

    /// Makes a prewarm run each program once, as on a GPU. For tests.
    pub(crate) fn enable_first_runs(&self) {
        self.first_runs.enable();
    }

    /// The number of programs that a prewarm ran.
    pub(crate) fn first_runs(&self) -> u64 {
        self.first_runs.count()
    }

    /// The numbers of rows that programs are compiled for.
    pub(crate) fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    /// Counters of the program cache.
    pub(crate) fn stats(&self) -> CacheStats {
        self.programs.stats()
    }

    /// Counters of the program directory; all 0 if there is none.
    pub(crate) fn program_dir_stats(&self) -> ProgramDirStats {
        self.programs.directory_stats()
    }

    /// The name of the platform, its version, and the API version of the plugin.
    pub(crate) fn platform(&self) -> (String, String, (i32, i32)) {
        let version = self.client.plugin().version();
        (
            self.client.platform_name().to_owned(),
            self.client.platform_version().to_owned(),
            (version.major, version.minor),
        )
    }

    /// The addressable devices of the client.
    pub(crate) fn devices(&self) -> Vec<DeviceInfo> {
        self.client
            .devices()
            .iter()
            .map(|device| DeviceInfo {
                id: device.id(),
                kind: device.kind().to_owned(),
                description: device.debug_string().to_owned(),
            })
            .collect()
    }
}

/// Loads a plugin and creates a client.
///
/// If there is a directory of programs, another thread identifies the build of the plugin at the same time. The thread
/// can read hundreds of megabytes, unless the directory already contains the build. The `Plugin` stores the result for
/// [`PjrtBackend::use_programs_in`]. If the thread cannot be started, fails or panics, `use_programs_in` tries again
/// and returns any error.
pub(crate) fn create_client(
    plugin: &FilePath,
    client_options: &[(String, OptionValue)],
    program_dir: Option<&FilePath>,
) -> Result<Arc<Client>, Error> {
    plugin_thread::run(|| {
        let plugin = Plugin::load(plugin)?;
        let Some(directory) = program_dir else { return Ok(Client::create(plugin, client_options)?) };
        let identify = || {
            let known = PluginBuilds::read(directory);
            drop(plugin.identify(&|file| known.find(file)));
        };
        let create = || Client::create(plugin.clone(), client_options);
        Ok(plugin_thread::beside("nuc-identify", identify, create)?)
    })?
}

/// Writes the answers to the caller's arrays. Any error occurs before the first write.
fn write(
    pieces: &[Piece],
    answers: &[Answer],
    batch: &Batch<'_>,
    outputs: &mut Outputs<'_>,
) -> Result<(), Error> {
    let replace = batch.logits().dtype().round(batch.options().replace_val);
    let mut outcomes = memory::filled(batch.len(), RowOutcome::default(), "the outcomes of a batch")?;
    let mut arrays = outputs.take_rows(batch.len())?;
    for (piece, answer) in pieces.iter().zip(answers) {
        for (place, &row) in piece.rows.iter().enumerate() {
            outcomes[row] = answer.outcomes()[place];
            answer.write_row(place, replace, &mut arrays[row]);
        }
    }
    outputs.set_outcomes(&outcomes);
    Ok(())
}

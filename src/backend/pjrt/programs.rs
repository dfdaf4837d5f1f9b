//! The programs of a sampler. A program comes from the cache, from a directory of compiled programs, or from the
//! compiler, in this order.
//!
//! Nothing is logged while a program is loaded or compiled, because the log callback may need the same program. The
//! events are collected and logged afterwards.

use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use log::Level;

use super::plugin_thread;
use super::program_cache::{CacheStats, Made, Pins, ProgramCache};
use super::program_dir::{Message, ProgramDir, ProgramDirStats, Unusable};
use crate::error::Error;
use crate::kernels::program::ProgramSpec;
use crate::kernels::{self, Target};
use crate::pjrt::{self, Client, Code, CompileOptions, Executable};

type Cache = ProgramCache<ProgramSpec, Arc<Executable>, Error>;

/// Keeps the programs of a prewarm pinned while they are made.
pub(super) type ProgramPins = Pins<ProgramSpec, Arc<Executable>, Error>;

/// A place for one program: see [`Programs::get_or_keep`].
#[derive(Default)]
pub(super) struct KeptProgram(OnceLock<Arc<Executable>>);

/// The programs of one device.
pub(super) struct Programs {
    client: Arc<Client>,
    device: usize,
    target: Target,
    capacity: NonZeroUsize,
    cache: Arc<Cache>,
    directory: Option<Directory>,
}

/// The directory in which the sampler looks for compiled programs.
struct Directory {
    programs: ProgramDir,
    /// Whether programs that the sampler compiles are written to the directory.
    write: bool,
}

/// Log messages and results that are collected while a program is loaded or compiled.
#[derive(Default)]
struct Events {
    log: Vec<Message>,
    /// The text of the program, if it was compiled.
    compiled: Option<String>,
}

impl Events {
    fn warn(&mut self, message: String) {
        self.log.push((Level::Warn, message));
    }

    fn debug(&mut self, message: String) {
        self.log.push((Level::Debug, message));
    }

    fn flush(&mut self) {
        for (level, message) in self.log.drain(..) {
            log::log!(level, "{message}");
        }
    }
}

impl Programs {
    pub(super) fn new(client: Arc<Client>, device: usize, target: Target, capacity: NonZeroUsize) -> Self {
        Programs {
            client,
            device,
            target,
            capacity,
            cache: Arc::new(ProgramCache::new(capacity)),
            directory: None,
        }
    }

    /// Makes the sampler look in `programs` before it compiles. If `write` is set, it also writes the programs that it
    /// compiles there.
    pub(super) fn use_directory(&mut self, programs: ProgramDir, write: bool) {
        self.directory = Some(Directory { programs, write });
    }

    /// Counters of the cache.
    pub(super) fn stats(&self) -> CacheStats {
        self.cache.stats()
    }

    /// Counters of the directory; all 0 if there is none.
    pub(super) fn directory_stats(&self) -> ProgramDirStats {
        self.directory.as_ref().map(|directory| directory.programs.stats()).unwrap_or_default()
    }

    /// Returns the program for a spec. Thread-safe. [`ProgramCache::get_or_make`] describes threads that need the same
    /// program. The program is made on a thread with a large stack.
    pub(super) fn get(&self, spec: &ProgramSpec) -> Result<Arc<Executable>, Error> {
        if let Some(program) = self.cache.get(spec) {
            return Ok(program);
        }
        let mut events = Events::default();
        let make = || self.make(spec, &mut events);
        let found = self.cache.get_or_make(spec, || plugin_thread::run_maker(make).and_then(|made| made));
        events.flush();
        let found = found?;
        if !found.kept {
            log::warn!(
                "{} was made for this call and is not kept, because prewarming pinned all of the cache: set \
                 cache_capacity above {}",
                spec.name(),
                self.capacity
            );
        }
        // The file is written after the program is in the cache, so that no other call waits for the disk.
        if let Some(text) = events.compiled.take() {
            self.write(spec, &text, &found.program);
        }
        Ok(found.program)
    }

    /// Like [`Programs::get`]. Stores the program in `kept` if it is pinned. Later calls with `kept` need no lookup.
    pub(super) fn get_or_keep(
        &self,
        spec: &ProgramSpec,
        kept: &KeptProgram,
    ) -> Result<Arc<Executable>, Error> {
        if let Some(program) = kept.0.get() {
            self.cache.count_hit();
            return Ok(program.clone());
        }
        match self.cache.get_pinned(spec) {
            Some((program, true)) => Ok(kept.0.get_or_init(|| program).clone()),
            Some((program, false)) => Ok(program),
            None => self.get(spec),
        }
    }

    /// Writes a compiled program to the directory. Does nothing if there is no directory or if programs are not written
    /// to it. If the write fails, the only effect is that other processes must compile the program.
    fn write(&self, spec: &ProgramSpec, text: &str, program: &Executable) {
        let Some(Directory { programs, write: true }) = &self.directory else { return };
        let written =
            plugin_thread::run_maker(|| write(programs, spec, text, program)).and_then(|written| written);
        let messages = written.unwrap_or_else(|error| {
            vec![(Level::Warn, format!("{} could not be written to program_dir: {error}", spec.name()))]
        });
        Events { log: messages, compiled: None }.flush();
    }

    /// Pins those of the programs that are in the cache, and those that are made while the result exists.
    pub(super) fn pin(&self, programs: &[ProgramSpec]) -> Result<ProgramPins, Error> {
        self.cache.pin(programs).map_err(|full| {
            Error::named_argument("cache_capacity", format!(
                "cache_capacity is {}; these calls need {} programs, {} of them new, and earlier prewarms pinned {}: \
                 set cache_capacity to at least {}",
                full.capacity,
                programs.len(),
                full.additional,
                full.pinned,
                full.pinned + full.additional
            ))
        })
    }

    /// Whether a thread is making the program now.
    pub(super) fn is_in_flight(&self, program: &ProgramSpec) -> bool {
        self.cache.is_in_flight(program)
    }

    fn make(&self, spec: &ProgramSpec, events: &mut Events) -> Result<Made<Arc<Executable>>, Error> {
        if let Some(reason) = spec.sampling().and_then(|spec| kernels::portable_reason(spec, &self.target)) {
            events.warn(reason);
        }
        let text = spec.emit(&self.target);
        let options = CompileOptions::for_device(self.client.devices()[self.device].id());
        if let Some(program) = self.load(spec, &text, &options, events)? {
            return Ok(Made::Loaded(program));
        }
        let start = Instant::now();
        let (program, text) = match self.client.compile(&text, &options) {
            // An older CUDA plugin may not accept kernels in PTX.
            Err(error) if matches!(self.target, Target::Gpu(_)) && !is_out_of_memory(&error) => {
                events.warn(format!(
                    "the plugin does not compile the kernels of {}: {error}; the portable program runs instead",
                    spec.name()
                ));
                let portable = spec.emit(&Target::Portable);
                (self.client.compile(&portable, &options)?, portable)
            }
            compiled => (compiled?, text),
        };
        let time = start.elapsed();
        if let Some(problem) = wrong_outputs(spec, &program) {
            return Err(Error::Internal(format!("the plugin compiled {}, but {problem}", spec.name())));
        }
        events.debug(format!("compiled {} in {time:?}", spec.name()));
        events.compiled = Some(text);
        Ok(Made::Compiled(program, time))
    }

    /// Returns the program from the directory. If a file cannot be used, the program is compiled instead, so this is
    /// only a warning. Out of memory is an error, because the compiler would need even more memory.
    fn load(
        &self,
        spec: &ProgramSpec,
        text: &str,
        options: &CompileOptions,
        events: &mut Events,
    ) -> Result<Option<Arc<Executable>>, Error> {
        let Some(Directory { programs, write }) = &self.directory else { return Ok(None) };
        let reason = match programs.read(spec, text) {
            Ok(None) => {
                match programs.near_miss(spec) {
                    Some(other) => events.warn(format!("compiling {}: {other}", spec.name())),
                    None if *write => {}
                    None => events.warn(format!("compiling {}: it is not in program_dir", spec.name())),
                }
                return Ok(None);
            }
            Err(Unusable::OutOfMemory(error)) => return Err(error),
            Err(unusable) => unusable.to_string(),
            Ok(Some(executable)) => match self.client.deserialize(&executable, options) {
                Err(error) if is_out_of_memory(&error) => return Err(error.into()),
                Err(error) => error.to_string(),
                Ok(program) => match self.misfit(spec, &program) {
                    Some(misfit) => misfit,
                    None => return Ok(Some(program)),
                },
            },
        };
        let file = programs.file(spec, text);
        events.warn(format!("compiling {}: {} cannot be used: {reason}", spec.name(), file.display()));
        Ok(None)
    }

    /// Returns the reason why a loaded program cannot be used here.
    fn misfit(&self, spec: &ProgramSpec, program: &Executable) -> Option<String> {
        if program.devices() != [self.device] {
            return Some(format!("it runs on the devices {:?}, not on {}", program.devices(), self.device));
        }
        wrong_outputs(spec, program)
    }
}

/// Writes a program to the directory and returns messages for the log.
fn write(
    programs: &ProgramDir,
    spec: &ProgramSpec,
    text: &str,
    program: &Executable,
) -> Result<Vec<Message>, Error> {
    let file = programs.write(spec, text, None, &program.serialize()?)?;
    let mut messages = vec![(Level::Debug, format!("wrote {}", file.display()))];
    messages.extend(programs.enforce_capacity(&[file]));
    Ok(messages)
}

fn wrong_outputs(spec: &ProgramSpec, program: &Executable) -> Option<String> {
    let (returned, expected) = (program.num_outputs(), spec.num_outputs());
    (returned != expected).then(|| format!("it has {returned} outputs instead of {expected}"))
}

fn is_out_of_memory(error: &pjrt::Error) -> bool {
    matches!(error, pjrt::Error::Pjrt { code: Code::ResourceExhausted, .. })
}

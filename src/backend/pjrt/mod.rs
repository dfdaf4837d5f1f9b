//! Sampling through a PJRT plugin: rows are grouped by path, padded to a bucket, run, and scattered back.

pub mod program_cache;
pub mod program_dir;

use std::num::NonZeroUsize;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Instant;

use self::program_cache::{CacheStats, Made, ProgramCache};
use self::program_dir::{ProgramDir, System};
use crate::backend::DeviceInfo;
use crate::batch::Batch;
use crate::dtype::{Dtype, Logits, LogitsMut};
use crate::error::Error;
use crate::kernels::{self, pack_params, Path, Spec, Target, Wanted, COLUMNS, RESULTS};
use crate::outputs::{Outputs, RowArrays, RowOutcome};
use crate::parallel;
use crate::pjrt::{Buffer, Client, CompileOptions, ElementType, Executable, OptionValue, Plugin};
use crate::plan::{self, CallShape, Entry, Piece};
use crate::reference;

/// A client of a plugin, one of its devices, and the programs compiled for it.
pub(crate) struct PjrtBackend {
    client: Arc<Client>,
    device: usize,
    target: Target,
    programs: ProgramCache<Spec, Arc<Executable>, Arc<Error>>,
    /// Where to look before compiling, and whether to put there what was compiled.
    kept: Option<(ProgramDir, bool)>,
}

/// What one program call gave, on the host.
struct Answer {
    outcomes: Vec<i32>,
    /// In the order of the program's outputs: bytes, `[bucket, width]`.
    wide: Vec<Vec<u8>>,
}

impl PjrtBackend {
    /// Loads the plugin and makes a client.
    pub(crate) fn new(
        plugin: &FilePath,
        client_options: &[(String, OptionValue)],
        device: usize,
        cache_capacity: NonZeroUsize,
    ) -> Result<Self, Error> {
        let client = Client::create(Plugin::load(plugin)?, client_options)?;
        let Some(description) = client.devices().get(device).map(|device| device.description()) else {
            let devices = client.devices().len();
            return Err(Error::argument(format!(
                "device_index is {device}; the plugin has {devices} addressable device(s), counted from 0"
            )));
        };
        let (platform, kind, cores) = (client.platform_name(), &description.kind, description.num_cores());
        let target = Target::of(platform, kind, cores);
        if let Some(reason) = Target::portable_reason(platform, kind, cores) {
            log::warn!("{reason}");
        }
        Ok(PjrtBackend { client, device, target, programs: ProgramCache::new(cache_capacity), kept: None })
    }

    /// Looks for compiled programs in a folder before compiling, and writes there what it compiles if asked to.
    pub(crate) fn use_programs_in(&mut self, folder: &FilePath, write: bool) -> Result<(), Error> {
        let named =
            |problem: String| Error::argument(format!("program_dir is {}: {problem}", folder.display()));
        if write {
            std::fs::create_dir_all(folder)
                .map_err(|error| named(format!("the folder cannot be made: {error}")))?;
        }
        // Whole, for a server may change its working directory after this.
        let folder = folder.canonicalize().map_err(|error| named(error.to_string()))?;
        if !folder.is_dir() {
            return Err(named("it is not a folder".to_owned()));
        }
        let system = System::of_client(&self.client, self.device)?;
        self.kept = Some((ProgramDir::new(&folder, system, self.target), write));
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
        let wanted = Wanted {
            topk_logits: outputs.wide.topk_logits.is_some(),
            weights: outputs.wide.weights.is_some(),
            slices: outputs.wide.wants_slices(),
        };
        // Every answer is fetched before the first is written: an error must leave the caller's arrays alone.
        let pieces = plan::pieces(entry, max_k, batch, wanted)?;
        let answers =
            pieces.iter().map(|piece| self.run(piece, batch)).collect::<Result<Vec<Answer>, Error>>()?;

        let replace = batch.logits().dtype().round(batch.options().replace_val);
        let mut outcomes = vec![RowOutcome::default(); batch.len()];
        let mut arrays = outputs.take_rows(batch.len());
        for (piece, answer) in pieces.iter().zip(&answers) {
            for (place, &row) in piece.rows.iter().enumerate() {
                outcomes[row] = answer.outcome(place, piece.spec.batch);
                answer.scatter(&piece.spec, place, replace, &mut arrays[row]);
                if wanted.slices && !piece.spec.wanted.slices {
                    // Ties that stay can outnumber the slots, so no kernel makes these slices: they are the
                    // reference's, from which only they are asked.
                    let only_slices = &mut arrays[row];
                    (only_slices.topk_logits, only_slices.weights) = (None, None);
                    reference::sample_row(batch.row(row), &batch.rows()[row], batch.options(), only_slices);
                }
            }
        }
        outputs.set_outcomes(&outcomes);
        Ok(())
    }

    fn program(&self, spec: &Spec) -> Result<Arc<Executable>, Error> {
        let (mut compiled_from, mut portable_reason) = (None, None);
        let program = self.programs.get_or_make(spec, || {
            portable_reason = kernels::portable_reason(spec, &self.target);
            let text = kernels::emit(spec, &self.target);
            let options = CompileOptions::for_device(self.client.devices()[self.device].id());
            if let Some(program) = self.load(spec, &text, &options) {
                return Ok(Made::Loaded(program));
            }
            log::debug!("compiling {}", spec.name());
            let start = Instant::now();
            let program = self.client.compile(&text, &options).map_err(|error| Arc::new(error.into()))?;
            let time = start.elapsed();
            compiled_from = Some(text);
            Ok(Made::Compiled(program, time))
        });
        if let Some(reason) = portable_reason {
            log::warn!("{reason}");
        }
        let program = program.map_err(Error::Shared)?;
        if let Some(text) = compiled_from {
            // Only now, so that no other call waits for the disk.
            self.keep(spec, &text, &program);
        }
        Ok(program)
    }

    /// The program from the folder of compiled programs. Whatever is wrong with it, compiling remains, so that it is only
    /// warned of.
    fn load(&self, spec: &Spec, text: &str, options: &CompileOptions) -> Option<Arc<Executable>> {
        let (dir, write) = self.kept.as_ref()?;
        let refused = |reason: String| {
            let file = dir.file(spec, text);
            log::warn!("compiling {}: {} cannot be used: {reason}", spec.name(), file.display());
            None
        };
        let executable = match dir.read(spec, text) {
            Err(reason) => return refused(reason.to_string()),
            Ok(Some(executable)) => executable,
            Ok(None) => {
                match dir.near_miss(spec) {
                    Some(other) => log::warn!("compiling {}: {other}", spec.name()),
                    None if *write => {}
                    None => log::warn!("compiling {}: it is not in program_dir", spec.name()),
                }
                return None;
            }
        };
        match self.client.deserialize(&executable, options) {
            Err(error) => refused(error.to_string()),
            Ok(program) if program.devices() != [self.device] => {
                refused(format!("it runs on device(s) {:?} and not on {}", program.devices(), self.device))
            }
            Ok(program) => Some(program),
        }
    }

    /// Puts a program into the folder, if that was asked for. A failure costs nothing but a later compile.
    fn keep(&self, spec: &Spec, text: &str, program: &Executable) {
        let Some((dir, true)) = &self.kept else { return };
        let written = program.serialize().map_err(Error::from).and_then(|executable| {
            dir.write(spec, text, None, &executable).map_err(|error| Error::Internal(error.to_string()))
        });
        match written {
            Ok(file) => log::debug!("wrote {}", file.display()),
            Err(error) => log::warn!("{} could not be kept in program_dir: {error}", spec.name()),
        }
    }

    fn run(&self, piece: &Piece, batch: &Batch<'_>) -> Result<Answer, Error> {
        let spec = &piece.spec;
        let program = self.program(spec)?;

        // Rows that fill the bucket repeat the last, logits and parameters: rows of zeros would be all ties, the slowest
        // there are, and k = 0 asks for the whole row.
        let rows = || piece.rows.iter().chain(piece.rows.last().into_iter().cycle());
        let mut params = vec![0; spec.batch * COLUMNS];
        for (slot, &row) in params.chunks_mut(COLUMNS).zip(rows()) {
            slot.copy_from_slice(&pack_params(
                &piece.params(&batch.rows()[row]),
                batch.options(),
                spec.dtype,
            ));
        }
        let params = self.upload(bytes_of_i32(&params), ElementType::S32, &[spec.batch, COLUMNS])?;
        let element = match spec.dtype {
            Dtype::F32 => ElementType::F32,
            Dtype::Bf16 => ElementType::BF16,
            Dtype::F16 => ElementType::F16,
        };
        let dims = [spec.batch, spec.vocab];
        let whole = piece.rows.len() == batch.len() && spec.batch == batch.len();
        let logits = if whole && (batch.row_stride() == batch.vocab() || batch.len() == 1) {
            self.upload(bytes_of(batch.logits()), element, &dims)?
        } else {
            let row_bytes = spec.vocab * spec.dtype.size();
            let mut staged = vec![0u8; spec.batch * row_bytes];
            for (slot, &row) in staged.chunks_mut(row_bytes).zip(rows()) {
                slot.copy_from_slice(bytes_of(batch.row(row)));
            }
            self.upload(&staged, element, &dims)?
        };

        let outputs = program.execute(&[&logits, &params])?;
        let expected = output_widths(spec);
        if outputs.len() != 1 + expected.len() {
            return Err(Error::Internal(format!(
                "{} gave {} outputs instead of {}",
                spec.name(),
                outputs.len(),
                1 + expected.len()
            )));
        }
        let mut outcomes = vec![0u8; RESULTS * spec.batch * 4];
        outputs[0].to_host(&mut outcomes)?;
        let wide = outputs[1..]
            .iter()
            .zip(&expected)
            .map(|(buffer, width)| {
                let mut bytes = vec![0u8; spec.batch * width];
                buffer.to_host(&mut bytes)?;
                Ok(bytes)
            })
            .collect::<Result<Vec<_>, Error>>()?;
        Ok(Answer { outcomes: outcomes.chunks_exact(4).map(i32_from).collect(), wide })
    }

    fn upload(&self, bytes: &[u8], element: ElementType, dims: &[usize]) -> Result<Buffer, Error> {
        let dims: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
        Ok(self.client.buffer_from_host(bytes, element, &dims, self.device)?)
    }

    /// See [`crate::sampler::Sampler::prewarm`].
    pub(crate) fn prewarm(&self, calls: &CallShape, max_k: usize) -> Result<(), Error> {
        let specs = plan::programs_up_to(calls, max_k);
        if specs.len() > self.programs.capacity() {
            return Err(Error::argument(format!(
                "cache_capacity is {}; these calls need {} programs at once",
                self.programs.capacity(),
                specs.len()
            )));
        }
        parallel::for_each(&specs, |spec| self.program(spec).map(drop))
    }

    /// Counters of the program cache.
    pub(crate) fn stats(&self) -> CacheStats {
        self.programs.stats()
    }

    /// The platform's name, its version, and the plugin's API version.
    pub(crate) fn platform(&self) -> (String, String, (i32, i32)) {
        let version = self.client.plugin().version();
        (
            self.client.platform_name().to_owned(),
            self.client.platform_version().to_owned(),
            (version.major, version.minor),
        )
    }

    /// The client's addressable devices.
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

/// Bytes a row of each wide output.
fn output_widths(spec: &Spec) -> Vec<usize> {
    let slots = match spec.path {
        Path::Bounded(max_k) => max_k.min(spec.vocab),
        Path::Arbitrary => 0,
    };
    let size = spec.dtype.size();
    let mut widths = Vec::new();
    if spec.wanted.topk_logits {
        widths.push(spec.vocab * size);
    }
    if spec.wanted.weights {
        widths.push(spec.vocab * 4);
    }
    if spec.wanted.slices {
        widths.extend([slots * 4, slots * size, slots * 4]);
    }
    widths
}

impl Answer {
    fn outcome(&self, place: usize, batch: usize) -> RowOutcome {
        let [next_token, greedy_sampled, high, low, status] =
            std::array::from_fn::<i32, RESULTS, _>(|result| self.outcomes[result * batch + place]);
        RowOutcome {
            next_token,
            greedy_sampled,
            random_unnorm_cdf_sampled: u64::from(high as u32) << 32 | u64::from(low as u32),
            status: status as u32,
        }
    }

    fn scatter(&self, spec: &Spec, place: usize, replace: u32, arrays: &mut RowArrays<'_>) {
        let mut rows = self.wide.iter().map(|bytes| {
            let width = bytes.len() / spec.batch;
            &bytes[place * width..(place + 1) * width]
        });
        let mut next = |present: bool| if present { rows.next() } else { None };
        let (topk_logits, weights) = (next(spec.wanted.topk_logits), next(spec.wanted.weights));
        let slices = [(); 3].map(|()| next(spec.wanted.slices));
        copy_logits(&mut arrays.topk_logits, topk_logits);
        copy_ints(&mut arrays.weights, weights);
        if let Path::Bounded(max_k) = spec.path {
            // A row shorter than max_k has a program with fewer slots than the caller's arrays.
            for unused in spec.vocab.min(max_k)..arrays.slots() {
                arrays.set_slot(unused, -1, replace, 0);
            }
        }
        copy_ints(&mut arrays.indices_k, slices[0]);
        copy_logits(&mut arrays.topk_logits_k, slices[1]);
        copy_ints(&mut arrays.weights_k, slices[2]);
    }
}

fn i32_from(bytes: &[u8]) -> i32 {
    i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn copy_ints(array: &mut Option<&mut [i32]>, bytes: Option<&[u8]>) {
    if let (Some(array), Some(bytes)) = (array, bytes) {
        array.iter_mut().zip(bytes.chunks_exact(4)).for_each(|(slot, value)| *slot = i32_from(value));
    }
}

fn copy_logits(array: &mut Option<LogitsMut<'_>>, bytes: Option<&[u8]>) {
    match (array, bytes) {
        (Some(LogitsMut::F32(array)), Some(bytes)) => {
            let values = bytes.chunks_exact(4).map(|value| f32::from_bits(i32_from(value) as u32));
            array.iter_mut().zip(values).for_each(|(slot, value)| *slot = value);
        }
        (Some(LogitsMut::Bf16(array) | LogitsMut::F16(array)), Some(bytes)) => {
            let values = bytes.chunks_exact(2).map(|value| u16::from_ne_bytes([value[0], value[1]]));
            array.iter_mut().zip(values).for_each(|(slot, value)| *slot = value);
        }
        _ => {}
    }
}

fn bytes_of_i32(values: &[i32]) -> &[u8] {
    bytemuck::cast_slice(values)
}

fn bytes_of(logits: Logits<'_>) -> &[u8] {
    match logits {
        Logits::F32(values) => bytemuck::cast_slice(values),
        Logits::Bf16(values) | Logits::F16(values) => bytemuck::cast_slice(values),
    }
}

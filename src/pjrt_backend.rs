//! Sampling through a PJRT plugin: rows are grouped by path, padded to a bucket, run, and scattered back.

use std::num::NonZeroUsize;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use crate::error::Error;
use crate::kernels::{self, pack_params, Path, Spec, Wanted, COLUMNS, RESULTS};
use crate::pjrt::{Buffer, Client, CompileOptions, ElementType, Executable, OptionValue, Plugin};
use crate::problem::{Batch, Dtype, Logits, LogitsMut, Outputs, RowArrays, RowOutcome};
use crate::programs::{CacheStats, ProgramCache};
use crate::reference;
use crate::sampler::{DeviceInfo, Entry, PrewarmSpec};
use crate::semantics::params::RowParams;

/// Rows of the largest program; larger batches run in pieces, so that a server compiles a handful of programs.
const LARGEST_BUCKET: usize = 128;

/// A client of a plugin, one of its devices, and the programs compiled for it.
pub(crate) struct PjrtBackend {
    client: Arc<Client>,
    device: usize,
    programs: ProgramCache<Spec, Arc<Executable>>,
}

/// Rows that run as one program call, by their place in the caller's batch.
struct Piece {
    spec: Spec,
    rows: Vec<usize>,
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
        let devices = client.devices().len();
        if device >= devices {
            return Err(Error::argument(format!(
                "device_index is {device}; the plugin has {devices} addressable device(s), counted from 0"
            )));
        }
        Ok(PjrtBackend { client, device, programs: ProgramCache::new(cache_capacity) })
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
        let pieces = plan(entry, max_k, batch, wanted);
        let answers =
            pieces.iter().map(|piece| self.run(piece, batch)).collect::<Result<Vec<Answer>, Error>>()?;

        let replace = batch.logits.dtype().round(batch.options.replace_val);
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
                    reference::sample_row(batch.row(row), &batch.rows[row], batch.options, only_slices);
                }
            }
        }
        outputs.set_outcomes(&outcomes);
        Ok(())
    }

    fn program(&self, spec: &Spec) -> Result<Arc<Executable>, Error> {
        self.programs.get_or_compile(spec, || {
            log::debug!("compiling {}", spec.name());
            let options = CompileOptions::for_device(self.client.devices()[self.device].id());
            Ok(self.client.compile(&kernels::stablehlo::emit(spec), &options)?)
        })
    }

    fn run(&self, piece: &Piece, batch: &Batch<'_>) -> Result<Answer, Error> {
        let spec = &piece.spec;
        let program = self.program(spec)?;

        let mut params = vec![0; spec.batch * COLUMNS];
        for (slot, &row) in params.chunks_mut(COLUMNS).zip(&piece.rows) {
            slot.copy_from_slice(&pack_params(
                &params_for(spec, &batch.rows[row]),
                batch.options,
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
        let logits = if whole && (batch.row_stride == batch.vocab || batch.len() == 1) {
            self.upload(bytes_of(batch.logits), element, &dims)?
        } else {
            let row_bytes = spec.vocab * spec.dtype.size();
            let mut staged = vec![0u8; spec.batch * row_bytes];
            // Rows that fill the bucket repeat the last: rows of zeros would be all ties, the slowest there are.
            let last = piece.rows.last().into_iter().cycle();
            for (slot, &row) in staged.chunks_mut(row_bytes).zip(piece.rows.iter().chain(last)) {
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
    pub(crate) fn prewarm(&self, spec: &PrewarmSpec, max_k: usize) -> Result<(), Error> {
        let paths = match spec.entry {
            Entry::Reference => vec![],
            Entry::Arbitrary => vec![Path::Arbitrary],
            _ if !spec.stable => vec![Path::Arbitrary],
            Entry::Bounded => vec![Path::Bounded(max_k)],
            // No row of such calls can be too large for the bounded path.
            Entry::Automatic if spec.vocab <= max_k || spec.wanted.slices => vec![Path::Bounded(max_k)],
            Entry::Automatic => vec![Path::Bounded(max_k), Path::Arbitrary],
        };
        let largest = bucket(spec.batch.clamp(1, LARGEST_BUCKET));
        let mut specs = Vec::new();
        for path in paths {
            let mut batch = 1;
            while batch <= largest {
                let wanted = Wanted { slices: spec.wanted.slices && path != Path::Arbitrary, ..spec.wanted };
                let (vocab, dtype, stable) = (spec.vocab, spec.dtype, spec.stable);
                specs.push(Spec { path, batch, vocab, dtype, stable, wanted });
                batch *= 2;
            }
        }
        if specs.len() > self.programs.capacity() {
            return Err(Error::argument(format!(
                "cache_capacity is {}; these calls need {} programs at once",
                self.programs.capacity(),
                specs.len()
            )));
        }
        // Threads of this call alone: a sampler leaves none behind.
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get()).min(specs.len());
        let (next, specs) = (AtomicUsize::new(0), &specs);
        let compile = || -> Result<(), Error> {
            while let Some(spec) = specs.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.program(spec)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(compile)).collect();
            workers.into_iter().try_for_each(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|_| Err(Error::Internal("a compiling thread panicked".to_owned())))
            })
        })
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

/// Assigns every row to a path and cuts the groups into buckets.
fn plan(entry: Entry, max_k: usize, batch: &Batch<'_>, wanted: Wanted) -> Vec<Piece> {
    let bounded = |row: &RowParams| {
        let k_fits = match row.k {
            0 => batch.vocab <= max_k,
            k => k as usize <= max_k,
        };
        // A greedy row's token needs no more than the maximum, unless top-k's own output is asked for.
        let only_maximum = row.greedy && !wanted.topk_logits && !wanted.slices;
        batch.options.stable && entry != Entry::Arbitrary && (k_fits || only_maximum)
    };
    let (small, large): (Vec<usize>, Vec<usize>) =
        (0..batch.len()).partition(|&row| bounded(&batch.rows[row]));
    let mut pieces = Vec::new();
    for (path, rows) in [(Path::Bounded(max_k), small), (Path::Arbitrary, large)] {
        for rows in rows.chunks(LARGEST_BUCKET) {
            let spec = Spec {
                path,
                batch: bucket(rows.len()),
                vocab: batch.vocab,
                dtype: batch.logits.dtype(),
                // Only the arbitrary kernel can keep more ties than it has slots.
                stable: batch.options.stable,
                wanted: Wanted { slices: wanted.slices && path != Path::Arbitrary, ..wanted },
            };
            pieces.push(Piece { spec, rows: rows.to_vec() });
        }
    }
    pieces
}

/// The parameters a row's program sees: a greedy row that joined the bounded path for its maximum alone asks for
/// one entry there.
fn params_for(spec: &Spec, row: &RowParams) -> RowParams {
    match spec.path {
        Path::Bounded(max_k) if row.k as usize > max_k || (row.k == 0 && spec.vocab > max_k) => {
            RowParams { k: 1, ..*row }
        }
        _ => *row,
    }
}

/// Rows of the program that `rows` rows are padded to.
fn bucket(rows: usize) -> usize {
    rows.next_power_of_two()
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

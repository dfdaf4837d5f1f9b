//! Calls of the C ABI: a sampler, a batch with every output array, and the result of a call.

use std::ffi::{c_void, CString};
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::Arc;

use nucleus::abi::*;
use nucleus::pjrt::Client;

/// The value of every entry of an output array before a call. A call that fails must not change it.
const POISON: i32 = 0x5a5a_5a5a;

/// A `nuc_error` in which every output has a value that a call must replace.
pub(crate) fn error_struct() -> nuc_error {
    // Every bit pattern of the struct is valid.
    let zeroed = unsafe { std::mem::zeroed::<nuc_error>() };
    nuc_error { struct_size: size_of::<nuc_error>(), code: -1, message: [1; 968], ..zeroed }
}

/// The status and the message of a call.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) status: nuc_status,
    pub(crate) message: String,
}

impl Outcome {
    /// Calls a function with a `nuc_error`, and checks that the status and the `nuc_error` agree.
    pub(crate) fn of(call: impl FnOnce(*mut nuc_error) -> nuc_status) -> Outcome {
        let mut error = error_struct();
        let status = call(&mut error);
        assert_eq!(error.code, status, "nuc_error.code and the status differ");
        let end = error.message.iter().position(|&byte| byte == 0).expect("the message is terminated");
        let bytes: Vec<u8> = error.message[..end].iter().map(|&byte| byte as u8).collect();
        let message = String::from_utf8(bytes).expect("the message is UTF-8");
        assert_eq!(message.is_empty(), status == NUC_OK, "{status:?}: {message:?}");
        Outcome { status, message }
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.status == NUC_OK
    }
}

/// The options of a sampler.
#[derive(Clone, Copy)]
pub(crate) struct Setup<'a> {
    /// The plugin, or `None` for the built-in backend.
    pub(crate) plugin: Option<&'a Path>,
    /// A client of the caller. The sampler uses the client and the table of its plugin. Then `plugin` must be `None`.
    pub(crate) client: Option<&'a Arc<Client>>,
    pub(crate) program_dir: Option<&'a Path>,
    pub(crate) write_programs: bool,
    pub(crate) max_k: usize,
    pub(crate) num_threads: usize,
    /// Empty for the default.
    pub(crate) row_buckets: &'a [usize],
}

/// A sampler. The test destroys it explicitly.
pub(crate) struct Handle(pub(crate) *mut nuc_sampler);

impl Setup<'_> {
    pub(crate) fn create(&self) -> (Outcome, Option<Handle>) {
        let string = |path: Option<&Path>| path.map(|path| CString::new(path.to_str().unwrap()).unwrap());
        let (plugin, program_dir) = (string(self.plugin), string(self.program_dir));
        let pointer = |string: &Option<CString>| string.as_ref().map_or(null(), |string| string.as_ptr());
        // One device is enough: more devices take more time and repeat the same calls.
        let one_device = nuc_client_option {
            name: c"cpu_device_count".as_ptr(),
            r#type: NUC_OPTION_INT64,
            float_value: 0.0,
            int64_value: 1,
            string_value: null(),
            reserved: [0; 2],
        };
        let mut sampler = null_mut();
        let outcome = unsafe {
            let mut options = std::mem::zeroed::<nuc_sampler_options>();
            options.struct_size = size_of::<nuc_sampler_options>();
            options.backend = match (self.plugin, self.client) {
                (None, None) => NUC_BACKEND_BUILTIN,
                _ => NUC_BACKEND_PJRT,
            };
            options.plugin_path = pointer(&plugin);
            match self.client {
                Some(client) => {
                    options.pjrt_api = client.plugin().as_raw().cast();
                    options.pjrt_client = client.as_raw().cast();
                }
                None => {
                    options.client_options = &one_device;
                    options.num_client_options = 1;
                }
            }
            options.max_k = self.max_k;
            options.num_threads = self.num_threads;
            options.row_buckets = self.row_buckets.as_ptr();
            options.num_row_buckets = self.row_buckets.len();
            options.program_dir = pointer(&program_dir);
            options.write_programs = i32::from(self.write_programs);
            Outcome::of(|error| nuc_sampler_create(&options, &mut sampler, error))
        };
        assert_eq!(outcome.is_ok(), !sampler.is_null(), "a handle exactly on success: {outcome:?}");
        (outcome, (!sampler.is_null()).then_some(Handle(sampler)))
    }
}

impl Handle {
    pub(crate) fn destroy(self) -> Outcome {
        Outcome::of(|error| unsafe { nuc_sampler_destroy(self.0, error) })
    }

    pub(crate) fn prewarm(&self, problem: &Problem, logits: nuc_logits_place) -> Outcome {
        let spec = nuc_prewarm_spec {
            struct_size: size_of::<nuc_prewarm_spec>(),
            path: problem.entry as i32,
            dtype: NUC_DTYPE_F32,
            num_rows: problem.k.len(),
            vocab: problem.vocab,
            keep_ties: 0,
            debug_arrays: match problem.wide {
                Wide::Full => NUC_DEBUG_TOPK_LOGITS | NUC_DEBUG_TOPK_TOPP_PROBS,
                Wide::Slices => NUC_DEBUG_TOPK_LOGITS | NUC_DEBUG_TOPK_TOPP_PROBS | NUC_DEBUG_K_SLICES,
            },
            logits,
            ..unsafe { std::mem::zeroed() }
        };
        Outcome::of(|error| unsafe { nuc_prewarm(self.0, &spec, error) })
    }

    /// Calls all functions that describe a sampler. Returns the first failure, if there is one.
    pub(crate) fn describe(&self) -> Outcome {
        let mut outcomes = Vec::new();
        unsafe {
            let mut info = std::mem::zeroed::<nuc_sampler_info>();
            info.struct_size = size_of::<nuc_sampler_info>();
            outcomes.push(Outcome::of(|error| nuc_sampler_get_info(self.0, &mut info, error)));
            let mut device = std::mem::zeroed::<nuc_device_info>();
            device.struct_size = size_of::<nuc_device_info>();
            outcomes.push(Outcome::of(|error| nuc_sampler_get_device(self.0, 0, &mut device, error)));
            let mut stats = nuc_sampler_stats {
                struct_size: size_of::<nuc_sampler_stats>(),
                ..nuc_sampler_stats::default()
            };
            outcomes.push(Outcome::of(|error| nuc_sampler_get_stats(self.0, &mut stats, error)));
        }
        let failed = outcomes.iter().position(|outcome| !outcome.is_ok());
        outcomes.swap_remove(failed.unwrap_or(0))
    }
}

/// The function to call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub(crate) enum Entry {
    Automatic = NUC_PATH_AUTO,
    Arbitrary = NUC_PATH_ARBITRARY,
    Bounded = NUC_PATH_BOUNDED,
    Reference,
}

/// The requested wide arrays. The narrow arrays are always requested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wide {
    /// `[batch, vocab]`.
    Full,
    /// `[batch, vocab]` and `[batch, max_k]`.
    Slices,
}

/// A batch of f32 logits and its parameters.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) entry: Entry,
    pub(crate) vocab: usize,
    pub(crate) k: Vec<i32>,
    pub(crate) wide: Wide,
    /// The offset of every row.
    pub(crate) offset: u64,
}

/// The settings of every row, in addition to k and the seed.
pub(crate) const TOP_P: f32 = 0.9;
pub(crate) const TEMPERATURE: f32 = 0.8;

/// All output arrays, as integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrays {
    /// Tokens, row status, greedy tokens, both halves of the random numbers, and next tokens.
    pub(crate) narrow: [Vec<i32>; 6],
    pub(crate) full: [Vec<i32>; 2],
    slices: [Vec<i32>; 3],
}

impl Arrays {
    pub(crate) fn poisoned(problem: &Problem, max_k: usize) -> Arrays {
        let rows = problem.k.len();
        let (narrow, full) = (vec![POISON; rows], vec![POISON; rows * problem.vocab]);
        let slices = match problem.wide {
            Wide::Slices => vec![POISON; rows * max_k],
            Wide::Full => vec![],
        };
        Arrays {
            narrow: std::array::from_fn(|_| narrow.clone()),
            full: [full.clone(), full],
            slices: std::array::from_fn(|_| slices.clone()),
        }
    }

    pub(crate) fn is_untouched(&self) -> bool {
        let mut all = self.narrow.iter().chain(&self.full).chain(&self.slices).flatten();
        all.all(|&value| value == POISON)
    }
}

impl Problem {
    /// Unordered logits with ties.
    pub(crate) fn logits(&self) -> Vec<f32> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 20) as f32 - 2048.0) / 256.0
        };
        (0..self.k.len() * self.vocab).map(|_| next()).collect()
    }

    pub(crate) fn seed(row: usize) -> u64 {
        1000 + row as u64
    }

    /// Allocates poisoned arrays, and then passes the call to `around`, which runs it.
    pub(crate) fn sample_within<R>(
        &self,
        sampler: &Handle,
        max_k: usize,
        around: impl FnOnce(&dyn Fn(*mut nuc_error) -> nuc_status) -> R,
    ) -> (R, Arrays) {
        let rows = self.k.len();
        let logits = self.logits();
        let (p, temperature) = (vec![TOP_P; rows], vec![TEMPERATURE; rows]);
        let seed: Vec<u64> = (0..rows).map(Problem::seed).collect();
        let offset = vec![self.offset; rows];
        let mut arrays = Arrays::poisoned(self, max_k);
        let call = unsafe {
            let mut batch = std::mem::zeroed::<nuc_batch>();
            batch.struct_size = size_of::<nuc_batch>();
            batch.logits = logits.as_ptr().cast();
            (batch.num_rows, batch.vocab) = (rows, self.vocab);
            (batch.top_k, batch.top_p, batch.temperature) =
                (self.k.as_ptr(), p.as_ptr(), temperature.as_ptr());
            (batch.seed, batch.offset) = (seed.as_ptr(), offset.as_ptr());
            let [tokens, status, greedy, high, low, next] =
                arrays.narrow.each_mut().map(|array| array.as_mut_ptr());
            let mut debug = std::mem::zeroed::<nuc_debug_arrays>();
            debug.struct_size = size_of::<nuc_debug_arrays>();
            debug.greedy_sampled = greedy;
            debug.random_unnorm_cdf_sampled_high = high.cast();
            debug.random_unnorm_cdf_sampled_low = low.cast();
            debug.next_tokens = next;
            debug.topk_logits_unsorted = arrays.full[0].as_mut_ptr().cast::<c_void>();
            debug.topk_topp_unnorm_probs_i32_unsorted = arrays.full[1].as_mut_ptr();
            if self.wide == Wide::Slices {
                debug.topk_indices_k = arrays.slices[0].as_mut_ptr();
                debug.topk_logits_k = arrays.slices[1].as_mut_ptr().cast::<c_void>();
                debug.topk_topp_unnorm_probs_i32_k = arrays.slices[2].as_mut_ptr();
            }
            let function = match self.entry {
                Entry::Automatic => nuc_topk_topp_and_sample,
                Entry::Arbitrary => nuc_arbitrary_topk_topp_and_sample,
                Entry::Bounded => nuc_bounded_topk_topp_and_sample,
                Entry::Reference => nuc_reference_topk_topp_and_sample,
            };
            let handle = sampler.0;
            move |error: *mut nuc_error| {
                function(handle, &batch, null(), tokens, status.cast(), &debug, error)
            }
        };
        (around(&call), arrays)
    }

    pub(crate) fn sample(&self, sampler: &Handle, max_k: usize) -> (Outcome, Arrays) {
        self.sample_within(sampler, max_k, |call| Outcome::of(call))
    }

    /// The correct contents of the arrays, from the built-in backend.
    pub(crate) fn expected(&self, max_k: usize) -> Arrays {
        let setup = Setup {
            plugin: None,
            client: None,
            program_dir: None,
            write_programs: false,
            max_k,
            num_threads: 1,
            row_buckets: &[],
        };
        let sampler = setup.create().1.expect("a built-in sampler");
        let (outcome, arrays) = self.sample(&sampler, max_k);
        assert!(outcome.is_ok() && !arrays.is_untouched(), "{outcome:?}");
        assert!(sampler.destroy().is_ok());
        arrays
    }
}

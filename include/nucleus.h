/*
 * nucleus: chooses the next token of a language model.
 *
 * Greedy, top-k, top-p, min-p and sampling over a [batch, vocab] array of logits, on the host or on any device with a
 * PJRT plugin. Three promises:
 *
 *   exact      exactly k tokens survive top-k, nothing outside the kept set is drawn, the draw is unbiased;
 *   the same   given the same row, parameters and random words, the token and every intermediate array are
 *              bit-identical on every backend, in any batch, at any position in it;
 *   fast       the built-in backend reads the logits once or twice, and never sorts.
 *
 * EXAMPLE
 *
 *     #include <nucleus.h>
 *     #include <stdio.h>
 *
 *     int main(void) {
 *         nuc_error error;
 *         nuc_sampler *sampler;
 *         if (nuc_sampler_create(NULL, &sampler, &error) != NUC_OK) {
 *             fprintf(stderr, "%s\n", error.message);
 *             return 1;
 *         }
 *         const float logits[2][5] = {{0.1f, 2.0f, -1.0f, 1.9f, 0.0f}, {5.0f, 0.0f, 0.0f, 0.0f, 4.0f}};
 *         const int32_t k[2] = {3, 2};
 *         const float p[2] = {0.95f, 1.0f}, temperature[2] = {0.7f, 0.0f};
 *         const uint64_t seed[2] = {1, 2}, step[2] = {0, 0};
 *         int32_t tokens[2];
 *         nuc_batch batch = {0};
 *         batch.struct_size = sizeof batch;
 *         batch.logits = logits;
 *         batch.dtype = NUC_DTYPE_F32;
 *         batch.batch = 2;
 *         batch.vocab = 5;
 *         batch.k = k;
 *         batch.p = p;
 *         batch.temperature = temperature;
 *         batch.seed = seed;
 *         batch.offset = step;
 *         if (nuc_topk_topp_and_sample(sampler, &batch, NULL, tokens, NULL, NULL, &error) != NUC_OK) {
 *             fprintf(stderr, "%s\n", error.message);
 *             return 1;
 *         }
 *         printf("%d %d\n", (int)tokens[0], (int)tokens[1]);
 *         nuc_sampler_destroy(sampler, NULL);
 *         return 0;
 *     }
 *
 * CONVENTIONS
 *
 *   Every function that can fail returns a nuc_status and takes an optional nuc_error, last. Outputs are written on
 *   success only. All arrays are the caller's: read or written during the call, never kept. What is written may not
 *   overlap anything else that a call is given.
 *
 *   Structs start with struct_size, so that a newer library serves callers compiled against an older header: set it
 *   to sizeof the struct. Option structs have an _init function, which must be used: their defaults are not all zero.
 *   Other structs are zeroed by the caller.
 *
 *   A handle may be used by any number of threads at once; only nuc_sampler_destroy must be alone.
 *
 *   Nothing unwinds into the caller, and the library installs no signal handlers. It prints nothing unless
 *   NUCLEUS_LOG in the environment or nuc_set_log asks for it; plugins do. The caller's floating-point environment
 *   (rounding, flushing) is put aside during a call and restored.
 *
 *   A sampler does not survive fork(): its threads, and a plugin's, exist in the parent only. Make samplers in the
 *   process that uses them.
 *
 *   The sampling rules, step by step and to the bit, are in docs/semantics.md.
 */

#ifndef NUCLEUS_H
#define NUCLEUS_H

/* Generated from the Rust sources by `make header`. Do not edit. */

#include <stddef.h>
#include <stdint.h>

// Bit of `row_status`: the row has no finite candidate (all −inf or NaN); its token is −1.
#define NUC_ROW_NO_CANDIDATE 1

// Bit of `row_status`: the row held a NaN, which counted as −inf; its token is valid unless the other bit is set.
#define NUC_ROW_HAD_NAN 2

// Bit of `nuc_prewarm_spec.wide_arrays`: calls will ask for `topk_logits_unsorted`.
#define NUC_WIDE_TOPK_LOGITS 1

// Bit of `nuc_prewarm_spec.wide_arrays`: calls will ask for `topk_topp_unnorm_probs_i32_unsorted`.
#define NUC_WIDE_PROBS 2

// Bit of `nuc_prewarm_spec.wide_arrays`: calls will ask for a k-slice.
#define NUC_WIDE_K_SLICES 4

// Version of the ABI that this header describes. A library with a larger one still serves callers of this one.
#define NUC_ABI_VERSION 1

// What every function returns: `NUC_OK` or the reason nothing was done. `nuc_status_string` names it.
typedef enum nuc_status {
    // The call did what was asked; its outputs are written.
    NUC_OK = 0,
    // An argument is wrong. The message names it, its value, and what would be right. Calling again with the same
    // arguments fails again.
    NUC_INVALID_ARGUMENT = 1,
    // The plugin's file does not exist, or no plugin is named where one is needed.
    NUC_PLUGIN_NOT_FOUND = 2,
    // The file exists but is no PJRT plugin, or the system cannot load it (the message has the loader's words).
    NUC_PLUGIN_INVALID = 3,
    // The plugin speaks a version of the PJRT C API that this library does not.
    NUC_PLUGIN_VERSION = 4,
    // The plugin or its device failed: no device, out of device memory, a compile or an execution that failed. The
    // message has the plugin's own words.
    NUC_DEVICE_ERROR = 5,
    // A defect of this library or an impossible answer of a plugin. The handle stays usable.
    NUC_INTERNAL = 6,
    // Memory, threads or another resource of the host or the device ran out. No output was written; the same call may
    // succeed when the load is lower.
    NUC_OUT_OF_MEMORY = 7,
    // A file or directory could not be read or written: a full disk, a missing permission. The message names it.
    NUC_IO_ERROR = 8,
} nuc_status;

// Which backend a sampler uses.
typedef enum nuc_backend {
    // A PJRT plugin if one is named by `plugin_path` or the environment variable `NUCLEUS_PJRT_PLUGIN`, else the
    // built-in backend.
    NUC_BACKEND_AUTO = 0,
    // The multi-threaded SIMD code of this library, on the host.
    NUC_BACKEND_BUILTIN = 1,
    // A PJRT plugin; it is an error if none is named.
    NUC_BACKEND_PJRT = 2,
} nuc_backend;

// The type of a logits array.
typedef enum nuc_dtype {
    // IEEE binary32, 4 bytes an element.
    NUC_DTYPE_F32 = 0,
    // bfloat16, 2 bytes an element.
    NUC_DTYPE_BF16 = 1,
    // IEEE binary16, 2 bytes an element.
    NUC_DTYPE_F16 = 2,
} nuc_dtype;

// How much is logged; each level includes those before it.
typedef enum nuc_log_level {
    // Nothing, which is where every process starts.
    NUC_LOG_OFF = 0,
    // What failed although nobody can be told.
    NUC_LOG_ERROR = 1,
    // What works, but not as it was meant to: a compiled program that does not fit and is compiled anew.
    NUC_LOG_WARNING = 2,
    // What is compiled ahead of time.
    NUC_LOG_INFO = 3,
    // What is loaded, compiled and written, and every call that fails.
    NUC_LOG_DEBUG = 4,
} nuc_log_level;

// The type of a client option's value.
typedef enum nuc_option_type {
    // `string_value` is used.
    NUC_OPTION_STRING = 0,
    // `int64_value` is used.
    NUC_OPTION_INT64 = 1,
    // `float_value` is used.
    NUC_OPTION_FLOAT = 2,
    // `int64_value` is used, 0 or 1.
    NUC_OPTION_BOOL = 3,
} nuc_option_type;

// An entry point, for `nuc_prewarm`.
typedef enum nuc_path {
    // `nuc_topk_topp_and_sample`.
    NUC_PATH_AUTO = 0,
    // `nuc_arbitrary_topk_topp_and_sample`.
    NUC_PATH_ARBITRARY = 1,
    // `nuc_bounded_topk_topp_and_sample`.
    NUC_PATH_BOUNDED = 2,
} nuc_path;

// A sampler: a backend with its threads or its device, and the programs compiled for it. Opaque. Made by
// `nuc_sampler_create`, owned by the caller, ended by `nuc_sampler_destroy`. Any number of threads may use one
// handle at once in any function but `nuc_sampler_destroy`.
typedef struct nuc_sampler nuc_sampler;

// Receives a message of the log: `user` as it was given to `nuc_set_log`, a `nuc_log_level`, and terminated UTF-8 that is
// gone when the function returns, one line but for what a plugin says in more. It is called by whichever thread has
// something to say, by several at once. It must return (no exception, no longjmp), and must not call
// `nuc_sampler_destroy`.
typedef void (*nuc_log_function)(void *user,
                                 int32_t level,
                                 const char *message);

// Details of a failure, in memory of the caller. Every function takes a pointer to one as its last argument, or
// null. It is written by every call that gets it (unless it is not aligned): on success `code` is `NUC_OK` and the
// message empty. There is no thread-local error state, so any thread, goroutine or task may make any call.
typedef struct nuc_error {
    // The status that the function returned.
    int32_t code;
    // UTF-8, always terminated, cut short where it does not fit.
    char message[508];
} nuc_error;

// One option for the plugin's client, as the plugin's documentation names it; for instance `preallocate`, a
// `NUC_OPTION_BOOL`, for the CUDA plugin's allocator. Zero it, then set the fields. The caller owns it and may free
// it after `nuc_sampler_create`. Names and types must be the plugin's own: some plugins end the process on an option
// of the wrong type, which no caller can prevent.
typedef struct nuc_client_option {
    // Terminated UTF-8.
    const char *name;
    // A `nuc_option_type`: which of the fields below holds the value.
    int32_t type;
    // Single precision, as PJRT has it.
    float float_value;
    // Also holds a bool, 0 or 1.
    int64_t int64_value;
    // Terminated UTF-8.
    const char *string_value;
    // Zero; for values of other types.
    uint64_t reserved[2];
} nuc_client_option;

// How to make a sampler. Fill it with `nuc_sampler_options_init`, change what should differ, pass it to
// `nuc_sampler_create`; it may be freed after that.
typedef struct nuc_sampler_options {
    // `sizeof(nuc_sampler_options)` as the caller's header has it.
    size_t struct_size;
    // A `nuc_backend`. Default: `NUC_BACKEND_AUTO`.
    int32_t backend;
    // Index of the device among the client's addressable devices. Default: 0.
    int32_t device_index;
    // Path of a PJRT plugin's shared library, terminated UTF-8. Null (default): the environment variable
    // `NUCLEUS_PJRT_PLUGIN`. Not looked at with `NUC_BACKEND_BUILTIN`.
    const char *plugin_path;
    // Options for the plugin's client, `num_client_options` of them. Default: null.
    const struct nuc_client_option *client_options;
    // Length of `client_options`. Default: 0.
    size_t num_client_options;
    // Slots of the bounded path: the largest k it takes, and the width of the k-slices. 1 to 1024; default 128.
    size_t max_k;
    // Compiled programs kept before the least recently used is dropped. At least 1; default 64. A batch that mixes
    // paths needs two at once.
    size_t cache_capacity;
    // Threads of the built-in backend. 1: none but the caller's. More: a pool of so many, which the caller waits for
    // where a call is large enough to share. 0 (default): one a core.
    size_t num_threads;
    // Folder of compiled programs, terminated UTF-8: what `nuc_compile_ahead` and `nucleus compile` wrote, or what
    // `write_programs` keeps. Before a program is compiled, its file is looked for there; a file that is damaged, or
    // that was made for another plugin or device, is logged (`nuc_set_log`) and left alone, and the program is
    // compiled. A relative path counts from where the process is as the sampler is made. Null (default): the
    // environment variable `NUCLEUS_PROGRAM_DIR`; where that is not set, none. Not looked at by the built-in backend.
    // The device runs what lies there: nobody should write to the folder who may not run code in the process.
    const char *program_dir;
    // 1: programs that had to be compiled are written to `program_dir`, which is made if it is not there, so that the
    // next process loads them. Nothing is ever deleted there. A file that cannot be written is logged and costs a later
    // compile. 0 (default): the folder, which must be there, is only read.
    int32_t write_programs;
    // Zero; keeps the layout free of padding.
    int32_t reserved;
} nuc_sampler_options;

// Options that hold for a whole call. Fill with `nuc_call_options_init`, change what should differ.
typedef struct nuc_call_options {
    // `sizeof(nuc_call_options)` as the caller's header has it.
    size_t struct_size;
    // 1 (default): top-k keeps exactly k, ties at its threshold by lowest index. 0: every tie at the threshold
    // stays, so more than k can.
    int32_t stable;
    // What `topk_logits_unsorted` holds where top-k masked an entry, rounded to the logits' type. Default: -1e12.
    // Not NaN.
    float replace_val;
} nuc_call_options;

// A batch of logits and the parameters of its rows, all in memory of the caller, read during the call only.
// Zero the struct, set `struct_size`, then set what is used. A null parameter array means its default in every
// row; otherwise it has `batch` elements.
typedef struct nuc_batch {
    // `sizeof(nuc_batch)` as the caller's header has it.
    size_t struct_size;
    // Logits, `[batch, vocab]`, row after row, aligned to their element. Any value is legal: NaN counts as −inf
    // and is reported in `row_status`, +inf as the largest finite f32, −0 and subnormals (as f32) as +0.
    const void *logits;
    // A `nuc_dtype`.
    int32_t dtype;
    // Zero; keeps the layout free of padding.
    int32_t reserved;
    // Rows. With 0 rows a call succeeds and writes nothing.
    size_t batch;
    // Elements of a row, 1 to 16777216.
    size_t vocab;
    // Elements from the start of one row to the start of the next, at least `vocab`; 0 means `vocab`. What lies between
    // rows is not looked at, but all of `(batch - 1) * row_stride + vocab` elements must be readable, and written by no
    // one during the call.
    size_t row_stride;
    // Top-k: exactly this many survive, ties by lowest index. k <= 0 or k >= vocab: off. Default: off.
    const int32_t *k;
    // Top-p: the smallest set of largest weights that sums to at least p of the total survives, ties at its
    // border too. p >= 1: off; p <= 0: only the maximum's ties. NaN is an error. Default: off.
    const float *p;
    // Min-p: weights of at least min_p times the maximum's survive. min_p <= 0: off; above 1 counts as 1. NaN is
    // an error. Default: off.
    const float *min_p;
    // Temperature, finite and at least 0. Below 1e-5 the row takes the maximum. Default: 1.
    const float *temperature;
    // Random words, `[batch][4]`, the most significant first: the 128-bit number that decides the draw. Null:
    // made from `seed` and `offset`.
    const uint32_t *random_words;
    // Seed of each row's random words: Philox4x32-10 with key = seed, counter = (offset, 0). Default: 0. Must be
    // null where `random_words` is not.
    const uint64_t *seed;
    // Offset of each row's random words. The same seed and offset draw the same again: pass the step's number
    // here, or any other value that changes from step to step. Default: 0. Must be null where `random_words` is
    // not.
    const uint64_t *offset;
} nuc_batch;

// Intermediate arrays, each stage of the algorithm whole, for validation. Zero the struct, set `struct_size`, then
// point what is wanted at arrays of the caller; a null pointer means not wanted, and costs nothing. They are
// written on success only, may not overlap anything else, and are bit-identical on every backend.
//
// The k-slices belong to the bounded path: with them every row needs 1 <= k <= max_k (or a vocab of at most
// max_k), in `nuc_arbitrary_topk_topp_and_sample` they are an error. Their width is the sampler's max_k. A row's
// slots hold what top-k kept in ascending index order; with `stable` = 0 ties can outnumber the slots, and then
// the first max_k kept entries are there.
typedef struct nuc_debug_arrays {
    // `sizeof(nuc_debug_arrays)` as the caller's header has it.
    size_t struct_size;
    // `[batch]`: lowest index of the row's maximum; −1 where there is no candidate.
    int32_t *greedy_sampled;
    // `[batch, vocab]` of the logits' type, dense: the cleaned logit where top-k kept it, else `replace_val`. (In
    // bf16 and f16 a +inf stays +inf: the largest finite f32 rounds to it.)
    void *topk_logits_unsorted;
    // `[batch, vocab]`, dense: the integer weight, 0 to 2^24 - 1, where top-k, top-p and min-p kept the entry,
    // else 0.
    int32_t *topk_topp_unnorm_probs_i32_unsorted;
    // `[batch]`: bits 32 to 63 of r, the random number modulo the total of the kept weights.
    uint32_t *random_unnorm_cdf_sampled_high;
    // `[batch]`: bits 0 to 31 of r.
    uint32_t *random_unnorm_cdf_sampled_low;
    // `[batch]`: lowest index whose inclusive prefix sum of kept weights exceeds r; −1 where there is no
    // candidate.
    int32_t *next_tokens;
    // `[batch, max_k]`: indices that top-k kept, ascending; −1 in unused slots.
    int32_t *topk_indices_k;
    // `[batch, max_k]` of the logits' type: `topk_logits_unsorted` at those indices; `replace_val` in unused slots.
    void *topk_logits_k;
    // `[batch, max_k]`: `topk_topp_unnorm_probs_i32_unsorted` at those indices; 0 in unused slots.
    int32_t *topk_topp_unnorm_probs_i32_k;
} nuc_debug_arrays;

// Calls to compile for ahead of the first. Zero it, set `struct_size`, then the rest.
typedef struct nuc_prewarm_spec {
    // `sizeof(nuc_prewarm_spec)` as the caller's header has it.
    size_t struct_size;
    // A `nuc_path`.
    int32_t path;
    // A `nuc_dtype`.
    int32_t dtype;
    // Largest number of rows of a call, at least 1. Programs are compiled for every smaller number too: a batch
    // that mixes paths runs as smaller ones.
    size_t batch;
    // Elements of a row.
    size_t vocab;
    // 1 if calls will pass `stable` = 0, else 0.
    int32_t unstable;
    // `NUC_WIDE_*` bits of the wide arrays that calls will ask for; 0 for none.
    uint32_t wide_arrays;
} nuc_prewarm_spec;

// What to compile ahead of time, for what device, and where to put it. Fill it with `nuc_compile_ahead_options_init`,
// then set at least `output_dir`, `batches`, `num_batches`, `vocab` and `dtype`. All of it is the caller's, read during
// the call only.
typedef struct nuc_compile_ahead_options {
    // `sizeof(nuc_compile_ahead_options)` as the caller's header has it.
    size_t struct_size;
    // Path of the PJRT plugin's shared library, terminated UTF-8. Null (default): the environment variable
    // `NUCLEUS_PJRT_PLUGIN`.
    const char *plugin_path;
    // The plugin's name of a topology that this host need not have, terminated UTF-8: for libtpu a generation and its
    // chips, such as `v5e:2x2`. It must be the topology that the serving host's client sees. Null (default): the
    // devices of this host, on which the plugin makes a client; all that plugins for CPUs and GPUs offer.
    const char *topology;
    // Options for the topology, or for the client, `num_plugin_options` of them. Default: null.
    const struct nuc_client_option *plugin_options;
    // Length of `plugin_options`. Default: 0.
    size_t num_plugin_options;
    // Folder for the files, terminated UTF-8; made if it is not there. One folder can hold the programs of several
    // plugins and topologies. Its place does not matter: it may be copied to the serving hosts.
    const char *output_dir;
    // Numbers of rows of the calls to compile for, `num_batches` of them, each at least 1. A call's rows are padded to a
    // power of two and run in pieces of at most 128.
    const size_t *batches;
    // Length of `batches`.
    size_t num_batches;
    // Elements of a row.
    size_t vocab;
    // As the serving samplers will have it. Default: 128.
    size_t max_k;
    // A `nuc_dtype`. Default: `NUC_DTYPE_F32`.
    int32_t dtype;
    // A `nuc_path`: the function that will be called. Default: `NUC_PATH_AUTO`, the programs of both paths.
    int32_t path;
    // As the calls will pass it, 1 or 0. Default: 1.
    int32_t stable;
    // `NUC_WIDE_*` bits of the wide arrays that calls will ask for. Default: 0, none.
    uint32_t wide_arrays;
    // 1: compile for every smaller number of rows too, as `nuc_prewarm` does: a batch that mixes paths runs as smaller
    // ones. Default: 0.
    int32_t smaller_batches;
    // Zero; keeps the layout free of padding.
    int32_t reserved;
    // Receives the number of files written; null (default) if not wanted.
    size_t *programs_written;
} nuc_compile_ahead_options;

// Counters of a sampler since it was made. All of them stay 0 on the built-in backend, which compiles nothing.
typedef struct nuc_sampler_stats {
    // `sizeof(nuc_sampler_stats)` as the caller's header has it; set before the call.
    size_t struct_size;
    // Programs compiled.
    uint64_t compiles;
    // Look-ups that found a program, or waited for another thread's compile of it.
    uint64_t hits;
    // Programs dropped because the cache was full.
    uint64_t evictions;
    // Compiles that failed.
    uint64_t failures;
    // Nanoseconds spent compiling, summed over threads.
    uint64_t compile_ns;
    // Programs held now.
    uint64_t programs;
    // Programs loaded from `program_dir` instead of compiled.
    uint64_t loaded;
} nuc_sampler_stats;

// What a sampler runs on. Strings are terminated UTF-8, belong to the sampler and live as long as it does.
typedef struct nuc_sampler_info {
    // `sizeof(nuc_sampler_info)` as the caller's header has it; set before the call.
    size_t struct_size;
    // `builtin`, or the plugin's name of its platform (`cpu`, `cuda`, `tpu`).
    const char *platform_name;
    // The plugin's version string, or the instruction set of the built-in backend.
    const char *platform_version;
    // Version of the plugin's PJRT C API; 0 and 0 on the built-in backend.
    int32_t pjrt_api_major;
    // See `pjrt_api_major`.
    int32_t pjrt_api_minor;
    // Devices that `device_index` can choose from.
    size_t num_devices;
    // Slots of the bounded path.
    size_t max_k;
} nuc_sampler_info;

// One device. Strings as in `nuc_sampler_info`.
typedef struct nuc_device_info {
    // `sizeof(nuc_device_info)` as the caller's header has it; set before the call.
    size_t struct_size;
    // The plugin's description, in one line.
    const char *description;
    // The plugin's name of the kind of device.
    const char *kind;
    // The plugin's global id of the device.
    int32_t id;
    // Zero; keeps the layout free of padding.
    int32_t reserved;
} nuc_device_info;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Version of this library, `major.minor.patch`, terminated; valid for the life of the process.
const char *nuc_version(void);

// `NUC_ABI_VERSION` of the library that is loaded.
uint32_t nuc_abi_version(void);

// The name of a status, for instance "NUC_INVALID_ARGUMENT"; "unknown status" for a number that is none.
// Terminated; valid for the life of the process. For what went wrong in a call, read its `nuc_error`.
const char *nuc_status_string(int32_t status);

// Sends the library's log to `log`, or to standard error where `log` is null, from `level` (a `nuc_log_level`) on. A later
// call replaces an earlier one, of which a message may still be under way in another thread. Where it was never called,
// the environment variable `NUCLEUS_LOG` (off, error, warning, info, debug) decides what goes to standard error, as the
// first sampler is made or the first program compiled ahead; where that is not set either, nothing is logged.
// `NUC_INVALID_ARGUMENT` for a level that is none, or in a Rust process that has a logger already.
//
// The caller promises:
// `log` may be called with `user` from any thread for the rest of the process's life, or until no call is running
// after another `nuc_set_log`.
enum nuc_status nuc_set_log(nuc_log_function log,
                            void *user,
                            int32_t level,
                            struct nuc_error *error);

// Fills `options` with the defaults that its fields document. Pass `sizeof(nuc_sampler_options)`.
//
// The caller promises:
// `options` points to `struct_size` writable bytes.
enum nuc_status nuc_sampler_options_init(struct nuc_sampler_options *options,
                                         size_t struct_size,
                                         struct nuc_error *error);

// Makes a sampler and writes its handle to `*sampler`, to be ended by `nuc_sampler_destroy`. `options` may be
// null: all defaults. With a plugin this loads the library (once a process; it is never unloaded) and makes a
// client, which can take seconds. Errors: `NUC_INVALID_ARGUMENT`, the `NUC_PLUGIN_*` statuses, and
// `NUC_DEVICE_ERROR` where the plugin finds no device.
//
// The caller promises:
// `options` is null or as documented, with terminated strings; `sampler` is writable.
enum nuc_status nuc_sampler_create(const struct nuc_sampler_options *options,
                                   struct nuc_sampler **sampler,
                                   struct nuc_error *error);

// Ends a sampler and everything it owns. Null is allowed. No other call may be using the handle, and none may
// after.
//
// The caller promises:
// `sampler` is null or came from `nuc_sampler_create` and was not destroyed.
enum nuc_status nuc_sampler_destroy(struct nuc_sampler *sampler,
                                    struct nuc_error *error);

// Fills `options` with the defaults that its fields document. Pass `sizeof(nuc_call_options)`.
//
// The caller promises:
// `options` points to `struct_size` writable bytes.
enum nuc_status nuc_call_options_init(struct nuc_call_options *options,
                                      size_t struct_size,
                                      struct nuc_error *error);

// Chooses the next token of every row: cleans the logits, applies top-k, temperature, top-p and min-p, and draws.
//
// `tokens` `[batch]`, not null unless batch is 0, receives each row's token, or −1 where the row has no finite
// candidate. `row_status` `[batch]` receives `NUC_ROW_*` bits; null if not wanted. `options` may be null (defaults), and `debug` too.
// Picks the path row by row: rows with 1 <= k <= max_k run in the bounded kernel, others in the arbitrary one, so
// a row does not pay for its batch mates (with `stable` = 0 on a plugin all run in the arbitrary one); the token of a
// row depends on nothing but its own logits, parameters and random words. On an error no output is written.
//
// The caller promises:
// Every pointer is null or points to as much memory as its shape says, written by no one else during the call.
enum nuc_status nuc_topk_topp_and_sample(const struct nuc_sampler *sampler,
                                         const struct nuc_batch *batch,
                                         const struct nuc_call_options *options,
                                         int32_t *tokens,
                                         uint32_t *row_status,
                                         const struct nuc_debug_arrays *debug,
                                         struct nuc_error *error);

// As `nuc_topk_topp_and_sample`, with every row in the arbitrary-k kernel, which searches thresholds over the
// whole row for any k up to the vocabulary.
//
// The caller promises:
// As `nuc_topk_topp_and_sample`.
enum nuc_status nuc_arbitrary_topk_topp_and_sample(const struct nuc_sampler *sampler,
                                                   const struct nuc_batch *batch,
                                                   const struct nuc_call_options *options,
                                                   int32_t *tokens,
                                                   uint32_t *row_status,
                                                   const struct nuc_debug_arrays *debug,
                                                   struct nuc_error *error);

// As `nuc_topk_topp_and_sample`, with every row in the bounded-k kernel, which filters the row down to max_k
// candidates. Every row must have 1 <= k <= max_k (or a vocab of at most max_k), else `NUC_INVALID_ARGUMENT`. With
// `stable` = 0 ties can outnumber max_k, and the rows run in the arbitrary kernel.
//
// The caller promises:
// As `nuc_topk_topp_and_sample`.
enum nuc_status nuc_bounded_topk_topp_and_sample(const struct nuc_sampler *sampler,
                                                 const struct nuc_batch *batch,
                                                 const struct nuc_call_options *options,
                                                 int32_t *tokens,
                                                 uint32_t *row_status,
                                                 const struct nuc_debug_arrays *debug,
                                                 struct nuc_error *error);

// As `nuc_topk_topp_and_sample`, by sorting on the host in wide integers: slow and plain, the ground truth that the
// others are compared with. Any backend's sampler will do; its device is not used.
//
// The caller promises:
// As `nuc_topk_topp_and_sample`.
enum nuc_status nuc_reference_topk_topp_and_sample(const struct nuc_sampler *sampler,
                                                   const struct nuc_batch *batch,
                                                   const struct nuc_call_options *options,
                                                   int32_t *tokens,
                                                   uint32_t *row_status,
                                                   const struct nuc_debug_arrays *debug,
                                                   struct nuc_error *error);

// Compiles every program that calls described by `spec` can need, so that no request waits for a compiler. Changing
// k, p, temperature, seeds or replace_val never compiles; a new vocab, dtype, path, `stable`, set of wide arrays, or
// number of rows past the next power of two does. `NUC_INVALID_ARGUMENT` if the programs do not fit `cache_capacity`;
// the message says how many there are. Succeeds at once on the built-in backend.
//
// The caller promises:
// `spec` points to a `nuc_prewarm_spec`.
enum nuc_status nuc_prewarm(const struct nuc_sampler *sampler,
                            const struct nuc_prewarm_spec *spec,
                            struct nuc_error *error);

// Fills `options` with the defaults that its fields document. Pass `sizeof(nuc_compile_ahead_options)`.
//
// The caller promises:
// `options` points to `struct_size` writable bytes.
enum nuc_status nuc_compile_ahead_options_init(struct nuc_compile_ahead_options *options,
                                               size_t struct_size,
                                               struct nuc_error *error);

// Compiles the programs that calls will need and writes each to a file, for samplers whose `program_dir` is the folder
// of the files: they load instead of compiling. The files fit the plugin's build, the kind, number and arrangement of
// devices and the compiler flags in the environment (`XLA_FLAGS`, `LIBTPU_INIT_ARGS`) that they were made with; samplers
// on anything else compile as if there were none.
//
// With a topology's name the host needs no such device: libtpu compiles for TPUs on any x86-64 Linux host. For that it
// wants `TPU_SKIP_MDS_QUERY=1` and `TPU_WORKER_HOSTNAMES=localhost` in the environment, or it would ask a metadata
// server for minutes, and `ALLOW_MULTIPLE_LIBTPU_LOAD=1` where several processes compile at once, or beside one that uses
// the TPU. Set them before the plugin is first loaded in the process; best before it starts, since changing the
// environment beside other threads is not safe, which is why this library does not. (The command `nucleus compile`
// does.) On a host that shows no TPU this function checks that the first one is set, and says so with
// `NUC_DEVICE_ERROR` before the plugin is started. A sampler with libtpu does the same.
//
// On an error, files of programs that were done before it stay, and `programs_written` is not written.
//
// The caller promises:
// `options` is as documented, with terminated strings; `programs_written` in it is null or writable.
enum nuc_status nuc_compile_ahead(const struct nuc_compile_ahead_options *options,
                                  struct nuc_error *error);

// Writes a snapshot of the sampler's counters to `stats`, whose `struct_size` is set.
//
// The caller promises:
// `stats` points to a writable `nuc_sampler_stats`.
enum nuc_status nuc_sampler_get_stats(const struct nuc_sampler *sampler,
                                      struct nuc_sampler_stats *stats,
                                      struct nuc_error *error);

// Writes what the sampler runs on to `info`, whose `struct_size` is set.
//
// The caller promises:
// `info` points to a writable `nuc_sampler_info`.
enum nuc_status nuc_sampler_get_info(const struct nuc_sampler *sampler,
                                     struct nuc_sampler_info *info,
                                     struct nuc_error *error);

// Writes a description of device `index`, counted from 0, to `device`, whose `struct_size` is set.
//
// The caller promises:
// `device` points to a writable `nuc_device_info`.
enum nuc_status nuc_sampler_get_device(const struct nuc_sampler *sampler,
                                       size_t index,
                                       struct nuc_device_info *device,
                                       struct nuc_error *error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* NUCLEUS_H */

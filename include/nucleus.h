/**
 * @file nucleus.h
 * @brief nucleus: chooses the next token of a language model.
 *
 * The library applies top-k, top-p, min-p and temperature to a [num_rows, vocab] array of logits and draws one token
 * per row. It runs on the CPU, or on any device that has a PJRT plugin.
 *
 *   Exact          Exactly k tokens survive top-k, and no token outside the kept set is drawn. For 128,256 tokens, the
 *                  total variation distance between the draw and the softmax is at most 2.5e-4; docs/semantics.md has
 *                  the proof.
 *   Reproducible   The same row, parameters and random words give the same token and the same intermediate arrays, bit
 *                  for bit: on every backend, in every batch, at every position in the batch.
 *   Fast           The built-in backend usually reads the logits once or twice, and never sorts them.
 *
 * EXAMPLE
 *
 *     #include <nucleus.h>
 *     #include <stdio.h>
 *
 *     int main(void) {
 *         const float logits[2][5] = {{0.1f, 2.0f, -1.0f, 1.9f, 0.0f}, {5.0f, 0.0f, 0.0f, 0.0f, 4.0f}};
 *         const int32_t top_k[2] = {3, 2};
 *         const float top_p[2] = {0.95f, 1.0f}, temperature[2] = {0.7f, 0.0f};
 *         const uint64_t seed[2] = {1, 2}, step[2] = {0, 0};
 *         int32_t tokens[2];
 *         nuc_error error = NUC_ERROR_INIT;
 *         nuc_batch batch = NUC_BATCH_INIT;
 *         nuc_sampler *sampler;
 *         nuc_status status;
 *
 *         batch.logits = logits;
 *         batch.num_rows = 2;
 *         batch.vocab = 5;
 *         batch.top_k = top_k;
 *         batch.top_p = top_p;
 *         batch.temperature = temperature;
 *         batch.seed = seed;
 *         batch.offset = step;
 *         status = nuc_sampler_create(NULL, &sampler, &error);
 *         if (status == NUC_OK) {
 *             status = nuc_topk_topp_and_sample(sampler, &batch, NULL, tokens, NULL, NULL, &error);
 *         }
 *         if (status == NUC_OK) {
 *             printf("%d %d\n", (int)tokens[0], (int)tokens[1]);
 *         } else {
 *             fprintf(stderr, "%s: %s\n", nuc_status_string(status), error.message);
 *         }
 *         nuc_sampler_destroy(sampler, NULL);
 *         return status == NUC_OK ? 0 : 1;
 *     }
 *
 * CONVENTIONS
 *
 *   Errors. Every function that can fail returns a nuc_status and takes a pointer to a nuc_error as its last
 *   argument. The pointer may be null. After an error no output was written.
 *
 *   Memory. The caller owns all arrays, structs and strings. The library reads or writes them during the call and
 *   keeps no pointer to them, except to callbacks and to a PJRT client of the caller. Memory that a call writes
 *   must not overlap any other memory that the call receives.
 *
 *   Structs. Every struct has a macro that initializes it: `nuc_batch batch = NUC_BATCH_INIT;`. A field that is zero
 *   has its default. In a language without these macros, set the struct to zero, then set struct_size to its size.
 *   A newer library supports callers that were compiled with an older header, because struct_size states which fields
 *   the caller has. The size must be that of a version of the struct. If it is larger than the struct of this library
 *   (at most 4096), the header is newer: all bytes after the fields that this library knows must be zero. Any other
 *   size is an error.
 *
 *   Threads. Any number of threads may use the same object at the same time. No other call may use an object while a
 *   function destroys it, or afterwards. A callback of nuc_call_on_done must not destroy objects or wait. Apart from
 *   this rule, the library has no thread-local state that a caller can observe.
 *
 *   Processes. A sampler does not survive fork(), because its threads and the plugin's threads exist only in the
 *   parent. In the child every call with it returns NUC_INVALID_ARGUMENT, and nuc_sampler_destroy returns NUC_OK
 *   and frees nothing. The same holds for its nuc_parameters and nuc_call objects. Create samplers in the process
 *   that uses them. If the parent has loaded a plugin, start the child with exec, because plugins do not survive
 *   fork() either.
 *
 *   Side effects. No exception or panic reaches the caller. The library installs no signal handler and raises no
 *   SIGPIPE. It prints nothing unless NUCLEUS_LOG or nuc_set_log enables the log, except one warning if NUCLEUS_LOG has
 *   a wrong value. Plugins can print. A call computes with the default floating-point environment and restores the
 *   caller's environment; log callbacks run with the default environment.
 *
 *   Signals. The threads of the library block all signals except SIGPROF, SIGABRT and those that report an error of
 *   the thread, such as SIGSEGV. The threads that a plugin starts while the library creates a client or compiles block
 *   the same signals. So other signals for the process reach a thread of the caller. Callbacks can run on these
 *   threads. Threads and processes that a callback or a plugin starts there inherit the blocked signals.
 *
 *   Cancellation. A call, including its callbacks, is not a cancellation point. If another thread cancels the thread
 *   with pthread_cancel, the request takes effect after the call. The cancellation type must be
 *   PTHREAD_CANCEL_DEFERRED, the default.
 *
 *   Unloading. A program may unload the library with dlclose if it has loaded no plugin, has destroyed all objects, and
 *   no call is running. The system can keep the library in memory until the threads that called it have ended.
 *
 *   Stack. A call on the built-in backend or of the reference needs at most 64 KiB of stack. A call on a plugin needs
 *   what the plugin needs; 256 KiB is enough for the CPU plugins that were tested.
 *
 *   Environment. The library reads NUCLEUS_PJRT_PLUGIN, NUCLEUS_PROGRAM_DIR, NUCLEUS_TRUST_PROGRAM_DIR and
 *   NUCLEUS_LOG. A process that has more rights than its user (setuid, setgid, file capabilities) ignores them.
 *   Plugins read variables of their own. Some of them end the process: an unknown flag in XLA_FLAGS makes XLA-based
 *   plugins abort while they load, and no library can prevent it.
 *
 *   Compatibility. docs/abi-policy.md states what later versions can change. nucleus.layout.json has the layout of
 *   every struct and the value of every constant, for bindings that mirror the structs.
 *
 *   The sampling rules, step by step and bit for bit, are in docs/semantics.md.
 */

#ifndef NUCLEUS_H
#define NUCLEUS_H

/* Generated from the Rust sources by `make header`. Do not edit. */

#include <stddef.h>
#include <stdint.h>
/** The attribute of every function of the library. To replace it, define NUC_API before you include this header. */
#ifndef NUC_API
#if defined(_WIN32)
#define NUC_API __declspec(dllimport)
#elif defined(__GNUC__)
#define NUC_API __attribute__((visibility("default")))
#else
#define NUC_API
#endif
#endif

/**
 * Makes the compiler warn if a program ignores the result of a function. To turn the warning off, define NUC_NODISCARD
 * as empty before you include this header.
 */
#ifndef NUC_NODISCARD
#if (defined(__cplusplus) && __cplusplus >= 201703L) || (defined(__STDC_VERSION__) && __STDC_VERSION__ >= 202311L)
#define NUC_NODISCARD [[nodiscard]]
#elif defined(__GNUC__)
#define NUC_NODISCARD __attribute__((warn_unused_result))
#else
#define NUC_NODISCARD
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/**
 * @defgroup nuc_versions Versions
 *
 * Versions of the library and of its binary interface.
 *
 * NUC_ABI_VERSION is the number of the binary interface. A program needs a library with the same number. The name of
 * the shared library contains it (libnucleus.so.1), so the dynamic loader never uses a library with another number. A
 * program that loads the library itself, for example with dlopen, must check the number once, before any other call:
 *
 *     if (nuc_abi_version() != NUC_ABI_VERSION) { ... this is not the right library ... }
 *
 * Later versions of the library can add functions and fields without a new number. NUC_VERSION is the version of the
 * header at compile time. nuc_version_number() returns the version of the loaded library at run time. A library that
 * is not older than the header has every function and field of the header:
 *
 *     if (nuc_version_number() < NUC_VERSION) { ... the loaded library may lack something ... }
 *
 * docs/abi-policy.md states what can change from version to version.
 * @{
 */

/** The version of the library that this header belongs to. */
#define NUC_VERSION_MAJOR 0
#define NUC_VERSION_MINOR 1
#define NUC_VERSION_PATCH 0

/** A version as a number that can be compared. Minor and patch are below 1000. */
#define NUC_MAKE_VERSION(major, minor, patch) ((major) * 1000000u + (minor) * 1000u + (patch))

/** The version of this header as a number. */
#define NUC_VERSION NUC_MAKE_VERSION(NUC_VERSION_MAJOR, NUC_VERSION_MINOR, NUC_VERSION_PATCH)

/**
 * The number of the binary interface that this header describes. It changes only if programs that were compiled with
 * an older header can no longer run.
 */
#define NUC_ABI_VERSION 1u

/**
 * Returns the version of the loaded library, "major.minor.patch". The string is NUL-terminated and valid until the
 * process ends. Any thread may call this function.
 */
NUC_API const char *nuc_version(void);

/**
 * Returns the version of the loaded library as a number: major * 1000000 + minor * 1000 + patch. It equals the
 * NUC_VERSION of the library's own header. Any thread may call this function.
 */
NUC_API uint32_t nuc_version_number(void);

/**
 * Returns the NUC_ABI_VERSION of the loaded library. It must equal the NUC_ABI_VERSION of the header. Any thread may
 * call this function.
 */
NUC_API uint32_t nuc_abi_version(void);

/** @} */

/**
 * @defgroup nuc_errors Errors
 *
 * Statuses and error messages.
 * @{
 */

/**
 * The result of a call: NUC_OK or the kind of the failure. The nuc_error of the call describes the failure. A call
 * that fails writes no output except its nuc_error. If a function that creates an object fails, it sets the caller's
 * pointer to the object to null.
 */
typedef int32_t nuc_status;

/** The values of nuc_status. */
enum {
    /** The call succeeded and wrote its outputs. */
    NUC_OK = 0,
    /**
     * An argument is wrong. The message states the argument, its value, and a correct value. The same call would fail
     * again.
     */
    NUC_INVALID_ARGUMENT = 1,
    /** The plugin's file does not exist, or no plugin is named although the call needs one. */
    NUC_PLUGIN_NOT_FOUND = 2,
    /**
     * The file is not a PJRT plugin, or this process cannot load it. If the dynamic loader reports an error, the
     * message quotes it. A program that was linked with `-static` cannot load plugins.
     */
    NUC_PLUGIN_INVALID = 3,
    /** The plugin implements a version of the PJRT C API that this library does not support. */
    NUC_PLUGIN_VERSION = 4,
    /**
     * The plugin or its device failed: there is no device, or a compilation or an execution failed. The message quotes
     * the plugin.
     */
    NUC_DEVICE_ERROR = 5,
    /**
     * This library has a defect, or the plugin returned a result that no correct plugin returns. Please report it. The
     * sampler stays usable.
     */
    NUC_INTERNAL = 6,
    /**
     * The host or the device ran out of memory, threads or another resource. The same call can succeed later, so a
     * server can reduce its load and try again. Every function can return it. The process ends if an
     * allocation of a few bytes fails, for example that of a message.
     */
    NUC_OUT_OF_MEMORY = 7,
    /**
     * A file or directory could not be created, read or written, for example because the disk is full or a permission
     * is missing. The message names it. nuc_sampler_create returns it for `program_dir`, and nuc_compile_ahead for
     * `output_dir`.
     */
    NUC_IO_ERROR = 8,
    /** nuc_call_wait or nuc_prewarming_wait returned because the timeout expired. The call or the prewarm continues. */
    NUC_TIMEOUT = 9,
    /** nuc_prewarming_cancel ended the prewarm before all its programs were compiled. */
    NUC_CANCELLED = 10
};

/**
 * The reason why a call failed. The last argument of every function that can fail points to a nuc_error, or is null.
 *
 * Initialize the struct once with NUC_ERROR_INIT. It can then be used for any number of calls, one at a time. The
 * caller owns the memory. The library keeps no error state, so any thread, goroutine or task can make any call.
 *
 * Every call writes `code`, `row`, `argument`, `message_length` and `message`. After a success `code` is NUC_OK, `row`
 * is -1, `argument` is null and both messages are empty.
 *
 * A nuc_error with a wrong `struct_size` or a nonzero `reserved`, or a pointer that is not aligned to 8 bytes, was
 * probably not initialized. The call then does nothing except return NUC_INVALID_ARGUMENT, and does not write the
 * nuc_error. A function that creates an object also sets its pointer to the object to null.
 */
typedef struct nuc_error {
    /** `sizeof(nuc_error)`, in the caller's version of this header. */
    size_t struct_size;
    /** Output: the status that the function returned. */
    nuc_status code;
    /** Must be zero. */
    int32_t reserved;
    /** Output: the index of the row at fault, counted from 0; -1 if no single row is at fault. */
    int64_t row;
    /**
     * Output: the name of the argument or struct at fault, for example "temperature"; null if no single argument is at
     * fault. The string is NUL-terminated and valid until the process ends.
     */
    const char *argument;
    /**
     * An optional buffer for the whole message, or null. It receives NUL-terminated UTF-8, cut at its end if the
     * buffer is too small. It can have several lines, for example if it quotes a compiler. The caller owns the buffer,
     * which must not overlap any other memory of the call, including this struct.
     */
    char *full_message;
    /** The size of `full_message` in bytes, including the terminator. 0: there is no buffer. */
    size_t full_message_size;
    /**
     * Output: the length of the whole message in bytes, without the terminator. The buffer `full_message` contains
     * all of it if `full_message_size` is larger than this number.
     */
    size_t message_length;
    /**
     * Output: the message as one line of NUL-terminated UTF-8, without control characters. If it is too long, the
     * library cuts the middle of long words, for example of paths, and then the middle of the message.
     */
    char message[968];
} nuc_error;

/** Initializes a nuc_error. */
#define NUC_ERROR_INIT \
    {sizeof(nuc_error), 0, 0, 0, NULL, NULL, 0, 0, {0}}

/**
 * Returns the name of a status, for example "NUC_INVALID_ARGUMENT", or "unknown status" if `status` is not a
 * nuc_status. The string is NUL-terminated and valid until the process ends. Any thread may call this function.
 */
NUC_API const char *nuc_status_string(nuc_status status);

/** @} */

/**
 * @defgroup nuc_lifecycle Lifecycle
 *
 * Creating and destroying samplers.
 * @{
 */

/** The backend of a sampler. */
typedef int32_t nuc_backend;

/** The values of nuc_backend. */
enum {
    /**
     * The default: a PJRT plugin if `plugin_path` or the environment variable NUCLEUS_PJRT_PLUGIN names one; otherwise
     * the built-in backend.
     */
    NUC_BACKEND_AUTO = 0,
    /** The multi-threaded SIMD code of this library. It runs on the CPU and needs no plugin. */
    NUC_BACKEND_BUILTIN = 1,
    /** A PJRT plugin. Creating the sampler fails if no plugin is named. */
    NUC_BACKEND_PJRT = 2
};

/** The type of the value of a nuc_client_option. */
typedef int32_t nuc_option_type;

/** The values of nuc_option_type. */
enum {
    /** The value is `string_value`. */
    NUC_OPTION_STRING = 0,
    /** The value is `int64_value`. */
    NUC_OPTION_INT64 = 1,
    /** The value is `float_value`. */
    NUC_OPTION_FLOAT = 2,
    /** The value is `int64_value`: 0 is false, anything else is true. */
    NUC_OPTION_BOOL = 3
};

/**
 * One option for a plugin. The plugin's documentation lists its options; an example is `preallocate`, a
 * NUC_OPTION_BOOL of the CUDA plugin.
 *
 * The caller owns the struct and its strings, and may free them when the call returns. Use the names and types that
 * the plugin documents: some plugins end the process if an option has the wrong type, and this library cannot prevent
 * that. This struct is an element of arrays, so it has no struct_size and its size never changes.
 */
typedef struct nuc_client_option {
    /** The name, NUL-terminated UTF-8. */
    const char *name;
    /** Selects the field that contains the value. */
    nuc_option_type type;
    /** A single-precision value. PJRT has no double-precision options. */
    float float_value;
    /** An integer, or a bool (0 or 1). */
    int64_t int64_value;
    /** NUL-terminated UTF-8. */
    const char *string_value;
    /** Must be zero. */
    uint64_t reserved[2];
} nuc_client_option;

/** Initializes a nuc_client_option. */
#define NUC_CLIENT_OPTION_INIT \
    {NULL, 0, 0.0f, 0, NULL, {0}}

/**
 * A sampler: a backend, its threads or its device, and the programs compiled for it. The type is opaque.
 *
 * nuc_sampler_create creates a sampler, the caller owns it, and nuc_sampler_destroy frees it. Any number of
 * threads may use the same sampler at the same time. Only nuc_sampler_destroy must run alone.
 *
 * A sampler belongs to the process that created it. In a child process after fork, every call with it returns
 * NUC_INVALID_ARGUMENT, and nuc_sampler_destroy returns NUC_OK without freeing anything.
 */
typedef struct nuc_sampler nuc_sampler;

/**
 * Options for nuc_sampler_create. A field that is zero has its default.
 *
 * The caller owns the struct and everything that it points to, and may free all of it when nuc_sampler_create returns.
 */
typedef struct nuc_sampler_options {
    /** `sizeof(nuc_sampler_options)`, in the caller's version of this header. */
    size_t struct_size;
    /** The backend. 0: NUC_BACKEND_AUTO. */
    nuc_backend backend;
    /** The index of the device among the client's addressable devices, counted from 0. */
    int32_t device_index;
    /**
     * The path of a PJRT plugin's shared library, NUL-terminated UTF-8. Null or empty: the environment variable
     * NUCLEUS_PJRT_PLUGIN. Ignored with NUC_BACKEND_BUILTIN.
     */
    const char *plugin_path;
    /** An array of `num_client_options` options for the plugin's client. */
    const nuc_client_option *client_options;
    /** The length of `client_options`, at most 1024. */
    size_t num_client_options;
    /**
     * The number of slots of the bounded path: the largest k that the path accepts, and the width of the k-slices.
     * 1 to 1024. 0: 128.
     */
    size_t max_k;
    /**
     * The largest number of compiled programs in memory. If it is exceeded, the least recently used program is
     * evicted. Programs that nuc_prewarm compiled are never evicted. A batch that uses both paths needs two programs
     * at the same time, or three programs if the logits are on a device. 0: 64.
     */
    size_t cache_capacity;
    /**
     * The number of threads of the built-in backend, at most 1024. 1: only the calling thread. More: the sampler
     * starts this number of threads. At most this number of threads, including the calling thread, work on a large
     * call. If the system cannot start all threads, the sampler logs a warning and uses the threads that started. A
     * new sampler measures its first calls. During the first tens of calls, it can use fewer threads.
     * `platform_version` of nuc_sampler_info contains the number of threads that work on calls. 0: one thread per
     * core, at most 1024.
     */
    size_t num_threads;
    /**
     * A directory of compiled programs, NUL-terminated UTF-8: the output of nuc_compile_ahead or of the command
     * `nucleus compile`, or programs that `write_programs` saved. Null or empty: the environment variable
     * NUCLEUS_PROGRAM_DIR; if it is not set, no directory is used. The built-in backend ignores the directory.
     *
     * Before a sampler compiles a program, it looks for the program's file in this directory. If the file is damaged,
     * or was compiled for another plugin or device, the sampler compiles the program and logs the reason. A relative
     * path is resolved when the sampler is created.
     *
     * Write access to this directory is equivalent to code execution in this process. So the library does not use a
     * directory or file that belongs to another user (except root), or that other users can write to, unless the
     * environment variable NUCLEUS_TRUST_PROGRAM_DIR is 1. A directory with the sticky bit may be writable by other
     * users.
     */
    const char *program_dir;
    /**
     * 1: the sampler writes each program that it compiles to `program_dir`, and creates the directory if it does not
     * exist. The next process then loads the programs. A failed write is logged and has no other effect. 0: the
     * directory must exist and is only read.
     */
    int32_t write_programs;
    /** Must be zero. */
    int32_t reserved;
    /**
     * The table of a PJRT plugin that the caller has loaded and initialized, `const PJRT_Api *`. It must stay valid
     * until the process ends. Null: the sampler loads a plugin, or uses the built-in backend.
     */
    const void *pjrt_api;
    /**
     * A client of the caller, `PJRT_Client *`, created with the plugin of `pjrt_api`. The sampler uses the client and
     * does not destroy it. The client must outlive the sampler and its nuc_parameters, nuc_call and nuc_prewarming
     * objects. Null if and only if `pjrt_api` is null.
     *
     * With a client, `backend` must not be NUC_BACKEND_BUILTIN, `plugin_path` must be null, and `num_client_options`
     * must be 0. The environment variable NUCLEUS_PJRT_PLUGIN is then ignored.
     *
     * With a client and a `program_dir`, the library reads the file that contains the plugin's functions. It finds the
     * file's path in /proc/self/maps (Linux). If the file was replaced or removed after the caller loaded it,
     * nuc_sampler_create returns NUC_PLUGIN_NOT_FOUND. But if this library itself loaded the plugin earlier, the
     * library still has the file open, and nuc_sampler_create succeeds.
     */
    void *pjrt_client;
    /**
     * The largest size of `program_dir` in bytes. After each write, the sampler removes the least recently used
     * programs until the directory fits. It does not remove the program that it has just written, and it does not
     * remove programs that any process has used during the last minute. 0: unlimited. Ignored if `write_programs` is
     * 0.
     */
    uint64_t program_dir_capacity;
    /**
     * An array of `num_row_buckets` numbers of rows, ascending, each from 1 to 65536. The sampler compiles programs
     * for these numbers of rows, and pads each batch to the next of them. More numbers mean less padding, but more
     * programs. A batch in host memory that has more rows than the last number runs in pieces. Null if
     * `num_row_buckets` is 0. The built-in backend ignores the list.
     *
     * With logits on a device, a program samples the buffer without padding if all rows take the same path. If the
     * rows take both paths, each path has its own program, and the list applies to the rows of each path.
     */
    const size_t *row_buckets;
    /** The length of `row_buckets`, at most 64. 0: the powers of two from 1 to 128. */
    size_t num_row_buckets;
} nuc_sampler_options;

/** Initializes a nuc_sampler_options. */
#define NUC_SAMPLER_OPTIONS_INIT \
    {sizeof(nuc_sampler_options), 0, 0, NULL, NULL, 0, 0, 0, 0, NULL, 0, 0, NULL, NULL, 0, NULL, 0}

/**
 * Creates a sampler and writes its handle to `*sampler`. The caller owns the handle and frees it with
 * nuc_sampler_destroy. `options` may be null, which means all defaults. Any thread may call this function.
 *
 * With a plugin, this function loads the plugin's library, which stays loaded until the process ends, and creates a
 * client. That can take seconds. With `pjrt_client` it uses the client of the caller.
 *
 * Errors: NUC_INVALID_ARGUMENT; NUC_PLUGIN_NOT_FOUND, NUC_PLUGIN_INVALID and NUC_PLUGIN_VERSION; NUC_DEVICE_ERROR if
 * the plugin finds no device or cannot create a client; NUC_IO_ERROR for `program_dir`; NUC_OUT_OF_MEMORY if memory
 * runs out, or if no thread for the plugin can be started. After an error `*sampler` is null.
 *
 * The caller promises:
 * `options` is null or points to a nuc_sampler_options whose strings are NUL-terminated, and whose `pjrt_api` and
 * `pjrt_client` are what their comments say. `sampler` points to a writable pointer. `error` is null or points to a
 * nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_sampler_create(const nuc_sampler_options *options,
                              nuc_sampler **sampler,
                              nuc_error *error);

/**
 * Frees a sampler and everything that it owns: its threads, its compiled programs, its client, and the strings of its
 * getters. Null is allowed. The nuc_parameters, nuc_call and nuc_prewarming objects of the sampler keep its programs
 * and its client until the last of these objects is destroyed. A prewarm that is running continues. After this
 * function returns, the handle and all its copies in other threads are invalid. This function must not be called in a
 * callback of nuc_call_on_done.
 *
 * No other call may use the handle at the same time or later. As long as the handle's memory is not reused, the
 * library detects that the handle was destroyed and returns NUC_INVALID_ARGUMENT.
 *
 * In a child process after fork, this function does nothing and returns NUC_OK. The sampler's memory in the child is
 * not freed.
 *
 * Errors: NUC_INVALID_ARGUMENT if `sampler` is not a sampler.
 *
 * The caller promises:
 * `sampler` is null or a handle from nuc_sampler_create that was not destroyed. `error` is null or points to a
 * nuc_error.
 */
NUC_API nuc_status nuc_sampler_destroy(nuc_sampler *sampler,
                                       nuc_error *error);

/** @} */

/**
 * @defgroup nuc_sampling Sampling
 *
 * Sampling: batches of logits, their parameters, and the functions that choose tokens.
 * @{
 */

typedef struct nuc_debug_arrays nuc_debug_arrays;

/** The element type of a logits array. */
typedef int32_t nuc_dtype;

/** The values of nuc_dtype. */
enum {
    /** IEEE 754 binary32, 4 bytes per element. */
    NUC_DTYPE_F32 = 0,
    /** bfloat16, 2 bytes per element. */
    NUC_DTYPE_BF16 = 1,
    /** IEEE 754 binary16, 2 bytes per element. */
    NUC_DTYPE_F16 = 2
};

/** A sampling function, for nuc_sample_flat, nuc_prewarm and nuc_compile_ahead. */
typedef int32_t nuc_path;

/** The values of nuc_path. */
enum {
    /** nuc_topk_topp_and_sample. */
    NUC_PATH_AUTO = 0,
    /** nuc_arbitrary_topk_topp_and_sample. */
    NUC_PATH_ARBITRARY = 1,
    /** nuc_bounded_topk_topp_and_sample. */
    NUC_PATH_BOUNDED = 2
};

/**
 * A bit of `row_status`: the row has no finite candidate, because every logit is -inf or NaN. The row's token is -1.
 */
#define NUC_ROW_NO_CANDIDATE 1u

/**
 * A bit of `row_status`: the row contains a NaN, which counted as -inf. The token is valid unless
 * NUC_ROW_NO_CANDIDATE is also set.
 */
#define NUC_ROW_HAD_NAN 2u

/**
 * A bit of `row_status`: the row contains a +inf, which counted as the largest finite f32. The token is valid, but a
 * +inf usually means that the program that computed the logits has a defect.
 */
#define NUC_ROW_HAD_INF 4u

/**
 * A bit of `row_status`: a parameter of the row is impossible, so the row was not sampled. No other bit is set.
 *
 * The impossible parameters are a NaN in `top_p` or `min_p`, a `temperature` that is negative, infinite or NaN, and,
 * on the bounded path or with k-slices, a `top_k` that does not fit max_k. The row's token, `greedy_sampled` and
 * `next_tokens` are -1, its weights and its r are 0, its logits are `replace_val`, and its slots are unused. The other
 * rows are sampled. Without `row_status`, the whole call fails with NUC_INVALID_ARGUMENT.
 */
#define NUC_ROW_BAD_PARAMETER 8u

/**
 * A batch of logits, and the sampling parameters of its rows.
 *
 * Initialize the struct with NUC_BATCH_INIT, then set at least `logits`, `num_rows` and `vocab`. The caller owns the
 * struct and all of its arrays. A call reads them and keeps no pointer to them. No thread may write them during the
 * call.
 *
 * Every parameter array has `num_rows` elements unless its comment says otherwise. If an array is null, every row has
 * the default.
 */
typedef struct nuc_batch {
    /** `sizeof(nuc_batch)`, in the caller's version of this header. */
    size_t struct_size;
    /**
     * The logits, `[num_rows, vocab]`, row-major, aligned to their element type. Every value is allowed: a NaN counts
     * as -inf and sets NUC_ROW_HAD_NAN, +inf counts as the largest finite f32 and sets NUC_ROW_HAD_INF, and -0 and f32
     * subnormals count as +0. The built-in backend is up to 5% faster if each row starts at a multiple of 64 bytes.
     */
    const void *logits;
    /** The element type of `logits`. 0: NUC_DTYPE_F32. */
    nuc_dtype dtype;
    /** Must be zero. */
    int32_t reserved;
    /** The number of rows. With 0 rows, the call writes no output. The library still checks the other arguments. */
    size_t num_rows;
    /** The number of elements per row, 1 to 16777216. */
    size_t vocab;
    /**
     * The distance between the starts of two rows, in elements: at least `vocab`. 0: `vocab`. Elements between two
     * rows are ignored, but all `(num_rows - 1) * row_stride + vocab` elements must be readable memory.
     */
    size_t row_stride;
    /** Top-k: exactly k entries survive; the lower index wins a tie. k <= 0 or k >= vocab: off. Default: off. */
    const int32_t *top_k;
    /**
     * Top-p: entries survive in descending order of weight until the sum of their weights is at least p times the
     * total weight. Entries whose weight equals that of the last of these entries also survive. The total weight is
     * the sum over the entries that top-k kept. p >= 1: off. p <= 0: only the maximum and its ties survive. A NaN is
     * impossible: see NUC_ROW_BAD_PARAMETER. Default: off.
     */
    const float *top_p;
    /**
     * Min-p: entries whose weight is at least min_p times the largest weight survive. min_p <= 0: off. A value above 1
     * counts as 1. A NaN is impossible: see NUC_ROW_BAD_PARAMETER. Default: off.
     */
    const float *min_p;
    /**
     * The temperature T, finite and at least 0; other values are impossible: see NUC_ROW_BAD_PARAMETER. If T is below
     * 1e-5 (rounded to f32), the row is greedy: its token is the maximum. Otherwise, a token whose logit is more than
     * 20.102 * T below the maximum has the weight 0 and is never drawn. Default: 1.
     */
    const float *temperature;
    /**
     * The random words, `[num_rows][4]`: one 128-bit number per row, the most significant word first. The draw uses
     * this number. Null: the words are computed from `seed` and `offset`.
     */
    const uint32_t *random_words;
    /**
     * The seed of the row's random words, which are Philox4x32-10 with key = seed and counter = (offset, 0). Give each
     * request its own seed: rows with equal seed and offset use the same random number. Default: 0. Must be null if
     * `random_words` is not.
     */
    const uint64_t *seed;
    /**
     * The offset of the row's random words. The same seed and offset produce the same random words, so change the
     * offset at every step, for example to the number of the step. Default: 0. Must be null if `random_words` is not.
     */
    const uint64_t *offset;
} nuc_batch;

/** Initializes a nuc_batch. */
#define NUC_BATCH_INIT \
    {sizeof(nuc_batch), NULL, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL}

/**
 * Options of one sampling call, for all of its rows. A field that is zero has its default. A null pointer to this
 * struct means all defaults. The caller owns the struct.
 */
typedef struct nuc_call_options {
    /** `sizeof(nuc_call_options)`, in the caller's version of this header. */
    size_t struct_size;
    /**
     * 0: top-k keeps exactly k entries; the lower index wins a tie at the threshold. 1: top-k keeps every entry that
     * ties with the threshold, which can be more than k.
     */
    int32_t keep_ties;
    /** 1: use `replace_val`. 0: use -1e12; `replace_val` must then be 0. */
    int32_t use_replace_val;
    /**
     * The value of `topk_logits_unsorted` where top-k removed the entry, rounded to the type of the logits. Must not
     * be NaN.
     */
    float replace_val;
    /** Must be zero. */
    int32_t reserved;
} nuc_call_options;

/** Initializes a nuc_call_options. */
#define NUC_CALL_OPTIONS_INIT \
    {sizeof(nuc_call_options), 0, 0, 0.0f, 0}

/**
 * Chooses the next token of every row: cleans the logits, applies top-k, temperature, top-p and min-p, and draws.
 *
 * `tokens` `[num_rows]` receives the token of each row, or -1 if the row has none (see `row_status`). It must not be
 * null unless `num_rows` is 0. `row_status` `[num_rows]` receives the NUC_ROW_* bits of each row; it may be null.
 * `options` may be null, which means all defaults. `debug` may be null, which means no intermediate arrays.
 *
 * With `row_status`, an impossible parameter affects only its own row: see NUC_ROW_BAD_PARAMETER. Without it, the call
 * returns NUC_INVALID_ARGUMENT, and `error` names the argument and the row. A row in which all logits are NaN or -inf
 * does not fail the call: its token is -1.
 *
 * The function selects a path for each row. Rows with 1 <= k <= max_k use the bounded path. Greedy rows also use it,
 * unless a debug array shows what top-k keeps. Other rows use the arbitrary path, so one row with a large k does not
 * slow down the others. With `keep_ties` on a plugin, every row uses the arbitrary path. A row's token depends only on
 * its own logits, parameters and random words. It does not depend on the path, the other rows of the batch, or the
 * backend. If the call requests k-slices, a row is sampled only if 1 <= top_k <= max_k or vocab <= max_k. Other rows
 * get NUC_ROW_BAD_PARAMETER.
 *
 * The caller owns all memory; the library keeps no pointer to it. Memory that the call writes must not overlap any
 * other memory that the call receives, including the structs and `error`. Any number of threads may call this function
 * with the same sampler.
 *
 * Errors: NUC_INVALID_ARGUMENT; NUC_OUT_OF_MEMORY; and on a plugin NUC_DEVICE_ERROR and NUC_INTERNAL. A call that
 * fails writes no output.
 *
 * The caller promises:
 * `sampler` is a live handle. Every other pointer is null or points to as much memory as its shape requires, and no
 * other thread writes that memory during the call.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_topk_topp_and_sample(const nuc_sampler *sampler,
                                    const nuc_batch *batch,
                                    const nuc_call_options *options,
                                    int32_t *tokens,
                                    uint32_t *row_status,
                                    const nuc_debug_arrays *debug,
                                    nuc_error *error);

/**
 * Like nuc_topk_topp_and_sample, but every row uses the arbitrary path. It searches thresholds over the whole row and
 * accepts every k. It does not accept k-slices. Ownership, thread-safety and errors are the same.
 *
 * The caller promises:
 * As for nuc_topk_topp_and_sample.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_arbitrary_topk_topp_and_sample(const nuc_sampler *sampler,
                                              const nuc_batch *batch,
                                              const nuc_call_options *options,
                                              int32_t *tokens,
                                              uint32_t *row_status,
                                              const nuc_debug_arrays *debug,
                                              nuc_error *error);

/**
 * Like nuc_topk_topp_and_sample, but every row uses the bounded path, which first reduces the row to max_k candidates.
 * Every row, also a greedy one, needs 1 <= k <= max_k, or vocab <= max_k; another k is impossible: see
 * NUC_ROW_BAD_PARAMETER. With `keep_ties` the kept entries can outnumber max_k, so the rows of a sampler with a plugin
 * then use the arbitrary path. Ownership, thread-safety and errors are the same.
 *
 * The caller promises:
 * As for nuc_topk_topp_and_sample.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_bounded_topk_topp_and_sample(const nuc_sampler *sampler,
                                            const nuc_batch *batch,
                                            const nuc_call_options *options,
                                            int32_t *tokens,
                                            uint32_t *row_status,
                                            const nuc_debug_arrays *debug,
                                            nuc_error *error);

/**
 * Like nuc_topk_topp_and_sample, but sorts each row on the CPU and sums in 128-bit integers. It is slow, but simple
 * enough to serve as the reference for the other functions. It works with a sampler of any backend and does not use
 * the sampler's device. Ownership, thread-safety and errors are the same. Each working thread needs 17 bytes of memory
 * per element of a row.
 *
 * The caller promises:
 * As for nuc_topk_topp_and_sample.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_reference_topk_topp_and_sample(const nuc_sampler *sampler,
                                              const nuc_batch *batch,
                                              const nuc_call_options *options,
                                              int32_t *tokens,
                                              uint32_t *row_status,
                                              const nuc_debug_arrays *debug,
                                              nuc_error *error);

/**
 * Runs the sampling function that `path` selects. This function takes plain arguments instead of structs. It is for
 * languages that cannot pass a struct with pointers, for example Go with cgo. Each argument has the meaning of the
 * field of the same name in nuc_batch or nuc_call_options. `replace_val` and the debug arrays are not available.
 * `error` need not contain a pointer, because its `full_message` may be null. Ownership, thread-safety and errors are
 * those of the other sampling functions.
 *
 * The caller promises:
 * As for nuc_topk_topp_and_sample.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_sample_flat(const nuc_sampler *sampler,
                           nuc_path path,
                           const void *logits,
                           nuc_dtype dtype,
                           size_t num_rows,
                           size_t vocab,
                           size_t row_stride,
                           const int32_t *top_k,
                           const float *top_p,
                           const float *min_p,
                           const float *temperature,
                           const uint32_t *random_words,
                           const uint64_t *seed,
                           const uint64_t *offset,
                           int32_t keep_ties,
                           int32_t *tokens,
                           uint32_t *row_status,
                           nuc_error *error);

/** @} */

/**
 * @defgroup nuc_debug Debug arrays
 *
 * Debug arrays: the intermediate results of a call, for validation. They are bit-identical on every backend.
 * @{
 */

/**
 * The intermediate arrays of a sampling call.
 *
 * Initialize the struct with NUC_DEBUG_ARRAYS_INIT, then point the fields that you want to your own arrays. The
 * library does not compute an array whose field is null. It writes the arrays only if the call succeeds. The arrays
 * must not overlap any other memory that the call receives.
 *
 * The k-slices (`topk_indices_k`, `topk_logits_k`, `topk_topp_unnorm_probs_i32_k`) belong to the bounded path. If you
 * request one, every row needs 1 <= k <= max_k, or vocab <= max_k. nuc_arbitrary_topk_topp_and_sample does not accept
 * them. A row's slots contain the entries that top-k kept, in ascending order of index. With `keep_ties` the kept
 * entries can outnumber the slots; the slots then contain the first max_k of them.
 */
struct nuc_debug_arrays {
    /** `sizeof(nuc_debug_arrays)`, in the caller's version of this header. */
    size_t struct_size;
    /** `[num_rows]`: the lowest index of the row's maximum; -1 if there is no candidate. */
    int32_t *greedy_sampled;
    /**
     * `[num_rows, vocab]`, dense, of the type of the logits: the cleaned logit if top-k kept the entry, else
     * `replace_val`. In bf16 and f16 a +inf stays +inf, because the largest finite f32 rounds to it.
     */
    void *topk_logits_unsorted;
    /**
     * `[num_rows, vocab]`, dense: the integer weight, 0 to 2^28, if top-k, top-p and min-p kept the entry, else 0. The
     * total of a row is at most 2^52, so it is exact in a double.
     */
    int32_t *topk_topp_unnorm_probs_i32_unsorted;
    /** `[num_rows]`: bits 32 to 63 of r, the random number modulo the total of the kept weights. */
    uint32_t *random_unnorm_cdf_sampled_high;
    /** `[num_rows]`: bits 0 to 31 of r. */
    uint32_t *random_unnorm_cdf_sampled_low;
    /**
     * `[num_rows]`: the lowest index whose inclusive prefix sum of kept weights exceeds r; -1 if there is no
     * candidate.
     */
    int32_t *next_tokens;
    /**
     * `[num_rows, max_k]`, also if `vocab` is less than `max_k`: the indices that top-k kept, ascending; -1 in unused
     * slots. The results of a call on the device are `[num_rows, min(max_k, vocab)]`.
     */
    int32_t *topk_indices_k;
    /**
     * `[num_rows, max_k]`, of the type of the logits: `topk_logits_unsorted` at those indices; `replace_val` in unused
     * slots.
     */
    void *topk_logits_k;
    /** `[num_rows, max_k]`: `topk_topp_unnorm_probs_i32_unsorted` at those indices; 0 in unused slots. */
    int32_t *topk_topp_unnorm_probs_i32_k;
};

/** Initializes a nuc_debug_arrays. */
#define NUC_DEBUG_ARRAYS_INIT \
    {sizeof(nuc_debug_arrays), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL}

/**
 * A bit of the field `debug_arrays` of nuc_prewarm_spec and nuc_compile_ahead_options: calls will request
 * `topk_logits_unsorted`.
 */
#define NUC_DEBUG_TOPK_LOGITS 1u

/** A bit of the field `debug_arrays`: calls will request `topk_topp_unnorm_probs_i32_unsorted`. */
#define NUC_DEBUG_TOPK_TOPP_PROBS 2u

/** A bit of the field `debug_arrays`: calls will request one or more k-slices. */
#define NUC_DEBUG_K_SLICES 4u

/** @} */

/**
 * @defgroup nuc_device Logits on a device
 *
 * Logits on a device: calls on buffers of a PJRT client, without a copy of the logits to the host.
 *
 * A sampler with a plugin can sample a PJRT_Buffer. The buffer belongs to the sampler's client: the client that was
 * passed to nuc_sampler_create, or the client that the sampler created. nuc_sampler_get_info returns this client.
 * The tokens and the debug arrays stay on the device as buffers. Only the numbers that the caller wants are copied
 * to the host.
 *
 * A nuc_parameters contains the sampling parameters of the rows. The parameters stay on the device between calls. A
 * call uploads them only after a change. Each call takes the number of the step as an argument, and adds it to the
 * offset of every row. So a decode loop does not have to change the parameters.
 *
 *     nuc_parameters_create(sampler, &options, &parameters, &error);
 *     nuc_parameters_set(parameters, row, &row_parameters, &error);   for each row whose parameters change
 *     nuc_sample_start(sampler, NUC_PATH_AUTO, logits, parameters, step, NULL, &call, &error);
 *     ...                                                             work of the host while the device runs
 *     nuc_call_get_tokens(call, tokens, NULL, &error);                waits
 *     nuc_call_destroy(call, &error);
 *
 * The tokens are those of nuc_topk_topp_and_sample with the same logits, parameters and seeds, bit for bit. A device
 * can run several calls at the same time. Each call uses the parameters that were set before the call was started. The
 * first call with a new shape compiles its programs, unless nuc_prewarm has compiled them.
 *
 * Parameters and calls keep the sampler's backend alive. So the sampler, its parameters and its calls can be destroyed
 * in any order. Buffers do not keep the backend alive. If the sampler created the client, first destroy every buffer
 * of the client, including the buffers from nuc_call_take_buffer. Then destroy the last of these objects.
 *
 * This header does not need the header of PJRT, so pointers to PJRT types are `void *`. The library cannot check
 * that such a pointer is what its comment says.
 * @{
 */

/**
 * The parameters of the rows of a batch on the device. The type is opaque.
 *
 * nuc_parameters_create creates the object, the caller owns it, and nuc_parameters_destroy frees it. Any number of
 * threads may use it at the same time. Only nuc_parameters_destroy must run alone. The object belongs to the sampler
 * that was passed to nuc_parameters_create, and calls with another sampler fail. The rules for fork are those of
 * nuc_sampler.
 */
typedef struct nuc_parameters nuc_parameters;

/**
 * A call that was started on the device. The type is opaque.
 *
 * nuc_sample_start creates the object, the caller owns it, and nuc_call_destroy frees it. Any number of threads may
 * use it at the same time. Only nuc_call_destroy must run alone. The rules for fork are those of nuc_sampler.
 */
typedef struct nuc_call nuc_call;

/**
 * The shape of a batch on the device, and its options. A field that is zero has its default.
 *
 * Initialize the struct with NUC_PARAMETERS_OPTIONS_INIT, then set at least `num_rows` and `vocab`. The caller owns
 * the struct.
 */
typedef struct nuc_parameters_options {
    /** `sizeof(nuc_parameters_options)`, in the caller's version of this header. */
    size_t struct_size;
    /**
     * The number of rows of the logits, at least 1. With logits on a device, nuc_prewarm and nuc_compile_ahead accept
     * at most 65536 rows.
     */
    size_t num_rows;
    /** The number of elements per row, 1 to 16777216. */
    size_t vocab;
    /** The element type of the logits. 0: NUC_DTYPE_F32. */
    nuc_dtype dtype;
    /** As in nuc_call_options. */
    int32_t keep_ties;
    /** As in nuc_call_options. */
    int32_t use_replace_val;
    /** As in nuc_call_options. */
    float replace_val;
} nuc_parameters_options;

/** Initializes a nuc_parameters_options. */
#define NUC_PARAMETERS_OPTIONS_INIT \
    {sizeof(nuc_parameters_options), 0, 0, 0, 0, 0, 0.0f}

/**
 * The sampling parameters of one row. The meaning of each value is that of the array of the same name in nuc_batch.
 *
 * A struct of zeros means the defaults: every filter is off, the temperature is 1, and the seed is 0. For `top_p` and
 * `temperature`, zero is a valid value and not the default. So these two fields are used only if their flag is 1.
 * Initialize the struct with NUC_ROW_PARAMETERS_INIT. The caller owns it.
 */
typedef struct nuc_row_parameters {
    /** `sizeof(nuc_row_parameters)`, in the caller's version of this header. */
    size_t struct_size;
    /** The seed of the row's random words. */
    uint64_t seed;
    /** The offset of the row's random words at step 0. The step of a call is added to it, modulo 2^64. */
    uint64_t offset;
    /** Top-k. 0: off. */
    int32_t top_k;
    /** Min-p. 0: off. */
    float min_p;
    /** 1: use `top_p`. 0: top-p is off; `top_p` must then be 0. */
    int32_t use_top_p;
    /** Top-p. */
    float top_p;
    /** 1: use `temperature`. 0: the temperature is 1; `temperature` must then be 0. */
    int32_t use_temperature;
    /** The temperature. Below 1e-5 the row is greedy. */
    float temperature;
} nuc_row_parameters;

/** Initializes a nuc_row_parameters. */
#define NUC_ROW_PARAMETERS_INIT \
    {sizeof(nuc_row_parameters), 0, 0, 0, 0.0f, 0, 0.0f, 0, 0.0f}

/** The numbers that a call on the device copies to the host. */
typedef int32_t nuc_host_numbers;

/** The values of nuc_host_numbers. */
enum {
    /** The tokens, 4 bytes per row. If a row has impossible parameters, nuc_sample_start fails. */
    NUC_HOST_TOKENS = 0,
    /**
     * Every number of a row, 20 bytes per row: the token, the row status, and the debug arrays with one number per row.
     * An impossible parameter affects only its own row: see NUC_ROW_BAD_PARAMETER.
     */
    NUC_HOST_ALL = 1,
    /** No numbers. The tokens stay on the device. If a row has impossible parameters, nuc_sample_start fails. */
    NUC_HOST_NONE = 2
};

/**
 * Options of nuc_sample_start. A field that is zero has its default. Initialize the struct with
 * NUC_START_OPTIONS_INIT. The caller owns it.
 */
typedef struct nuc_start_options {
    /** `sizeof(nuc_start_options)`, in the caller's version of this header. */
    size_t struct_size;
    /** The numbers that are copied to the host. 0: NUC_HOST_TOKENS. */
    nuc_host_numbers host_numbers;
    /** The NUC_DEBUG_* bits of the debug arrays that stay on the device as buffers. */
    uint32_t debug_arrays;
    /**
     * 1: nuc_sample_start deletes the contents of the buffer of logits. A debug array of the same size can then use
     * the memory of the logits. 0: the buffer keeps its contents.
     */
    int32_t donate_logits;
    /** Must be zero. */
    int32_t reserved;
} nuc_start_options;

/** Initializes a nuc_start_options. */
#define NUC_START_OPTIONS_INIT \
    {sizeof(nuc_start_options), 0, 0, 0, 0}

/** A result of a call on the device, as a PJRT_Buffer. The arrays are dense and row-major. */
typedef int32_t nuc_buffer;

/** The values of nuc_buffer. */
enum {
    /** The tokens, S32 `[num_rows]`. */
    NUC_BUFFER_TOKENS = 0,
    /**
     * `topk_logits_unsorted`, `[num_rows, vocab]`, as bits of the type of the logits: S32 for f32, U16 for bf16 and
     * f16.
     * Needs NUC_DEBUG_TOPK_LOGITS.
     */
    NUC_BUFFER_TOPK_LOGITS = 1,
    /** `topk_topp_unnorm_probs_i32_unsorted`, S32 `[num_rows, vocab]`. Needs NUC_DEBUG_TOPK_TOPP_PROBS. */
    NUC_BUFFER_TOPK_TOPP_PROBS = 2,
    /** `topk_indices_k`, S32 `[num_rows, min(max_k, vocab)]`. This buffer and the next two need NUC_DEBUG_K_SLICES. */
    NUC_BUFFER_TOPK_INDICES_K = 3,
    /** `topk_logits_k`, `[num_rows, min(max_k, vocab)]`, as bits of the type of the logits. */
    NUC_BUFFER_TOPK_LOGITS_K = 4,
    /** `topk_topp_unnorm_probs_i32_k`, S32 `[num_rows, min(max_k, vocab)]`. */
    NUC_BUFFER_TOPK_TOPP_PROBS_K = 5
};

/**
 * A callback that runs once, when a call on the device has ended; see nuc_call_on_done.
 *
 * The callback runs on a thread of the plugin. If the call has already ended, the callback runs on the thread that
 * calls nuc_call_on_done. It must return normally: no exception, no longjmp. The plugin's thread cannot do other work
 * before the callback returns, so the callback should be short.
 *
 * The callback may call the functions of this library that do not wait for the device. It may read the results of its
 * own call and of other calls that have ended, and it may start calls whose programs are compiled. Inside a callback,
 * two kinds of functions return NUC_INVALID_ARGUMENT: functions that destroy an object, and functions that would wait
 * for a call or a prewarm that has not ended. These functions could wait for the thread that runs the callback.
 */
typedef void (*nuc_done_function)(void *user);

/**
 * Creates the parameters of a batch on the sampler's device, and writes their handle to `*parameters`. Every row has
 * the defaults: plain sampling at temperature 1 with seed 0. The caller owns the handle and frees it with
 * nuc_parameters_destroy. Any number of threads may call this function with the same sampler.
 *
 * Errors: NUC_INVALID_ARGUMENT, also if the sampler uses the built-in backend; NUC_OUT_OF_MEMORY. After an error
 * `*parameters` is null.
 *
 * The caller promises:
 * `sampler` is a live handle. `options` points to a nuc_parameters_options, and `parameters` to a writable pointer.
 * `error` is null or points to a nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_parameters_create(const nuc_sampler *sampler,
                                 const nuc_parameters_options *options,
                                 nuc_parameters **parameters,
                                 nuc_error *error);

/**
 * Sets the parameters of the row `row`, counted from 0, for calls that start later. Calls that have started are not
 * affected. The next call uploads the parameters once. Any number of threads may call this function.
 *
 * This function accepts an impossible value, for example a NaN temperature. Calls with this value fail, or report the
 * row as NUC_ROW_BAD_PARAMETER: see nuc_host_numbers.
 *
 * Errors: NUC_INVALID_ARGUMENT, also if the parameters have no such row, or if a value is set without its flag.
 *
 * The caller promises:
 * `parameters` is a live handle. `row_parameters` points to a nuc_row_parameters. `error` is null or points to a
 * nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_parameters_set(nuc_parameters *parameters,
                              size_t row,
                              const nuc_row_parameters *row_parameters,
                              nuc_error *error);

/**
 * Frees a nuc_parameters. Null is allowed. Calls that were started with it continue. No other call may use the handle
 * at the same time or later. In a child process after fork, this function does nothing, like nuc_sampler_destroy. It
 * must not be called in a callback of nuc_call_on_done.
 *
 * Errors: NUC_INVALID_ARGUMENT if `parameters` is not a nuc_parameters, or in a callback.
 *
 * The caller promises:
 * `parameters` is null or a handle from nuc_parameters_create that was not destroyed. `error` is null or points to a
 * nuc_error.
 */
NUC_API nuc_status nuc_parameters_destroy(nuc_parameters *parameters,
                                          nuc_error *error);

/**
 * Starts to sample logits on the device, and writes the handle of the call to `*call`. The caller owns the handle and
 * frees it with nuc_call_destroy. The function compiles missing programs. It does not wait for other calls. It can
 * wait for a free slot in the plugin's queue, and until the plugin has read changed parameters from host memory. It
 * does not wait until they are on the device. If such an upload fails later, this call fails. Calls of the sampler
 * that use the same upload and were started before this call has ended fail too.
 *
 * `logits` is a `PJRT_Buffer *` of the sampler's client in the default memory of the sampler's device. Its dimensions
 * are `[num_rows, vocab]` or `[num_rows, 1, vocab]`, and its element type is that of the parameters. If the layout is
 * not row-major, the device first copies the logits; the first call with this layout compiles a small program. The
 * device may still be computing the contents of the buffer. The programs of the call then wait on the device.
 *
 * After this function has returned, the caller may destroy the buffer or donate it to another program. The library
 * does not change the buffer unless `donate_logits` is set in the options. With `donate_logits`, the contents are
 * deleted when this function returns successfully. After an error, the contents may or may not be deleted:
 * PJRT_Buffer_IsDeleted returns the state. The caller must destroy the buffer in every case.
 *
 * A PJRT_Buffer is always on one device. If an array is replicated over several devices, pass the buffer on the
 * sampler's device. If an array is sharded by rows, create one sampler per device, and start one call per device with
 * the rows of its shard. If an array is sharded along the vocabulary, gather it first, for example in the program that
 * computes it. If a buffer has only some of the rows or logits, its dimensions do not match, and the call fails.
 *
 * `step` is added to the offset of every row, modulo 2^64. `path` selects a path as in nuc_sample_flat. `options`
 * may be null, which means all defaults. Several calls can be in flight, also with the same parameters. Any number
 * of threads may call this function with the same sampler and the same parameters.
 *
 * Errors: NUC_INVALID_ARGUMENT, also if the buffer does not match the parameters or the device (the message states the
 * difference), and if a row has impossible parameters (see nuc_host_numbers); NUC_OUT_OF_MEMORY, NUC_DEVICE_ERROR and
 * NUC_INTERNAL. After an error `*call` is null.
 *
 * The caller promises:
 * `sampler` and `parameters` are live handles. `logits` is a live PJRT_Buffer of the sampler's client. `options` is
 * null or points to a nuc_start_options. `call` points to a writable pointer. `error` is null or points to a
 * nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_sample_start(const nuc_sampler *sampler,
                            nuc_path path,
                            void *logits,
                            const nuc_parameters *parameters,
                            uint64_t step,
                            const nuc_start_options *options,
                            nuc_call **call,
                            nuc_error *error);

/**
 * Samples logits on the device and waits for the tokens: nuc_sample_start, nuc_call_get_tokens and nuc_call_destroy in
 * one function. If a row has an impossible parameter and `row_status` is null, the call fails. If `row_status` is not
 * null, the parameter affects only its own row.
 *
 * Errors: those of nuc_sample_start and nuc_call_get_tokens. A call that fails writes no output.
 *
 * The caller promises:
 * As for nuc_sample_start and nuc_call_get_tokens.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_sample_on_device(const nuc_sampler *sampler,
                                nuc_path path,
                                void *logits,
                                const nuc_parameters *parameters,
                                uint64_t step,
                                int32_t *tokens,
                                uint32_t *row_status,
                                nuc_error *error);

/**
 * Writes 1 to `*done` if a call has ended, else 0. A call ends when its numbers are on the host. With NUC_HOST_NONE,
 * it ends when the device has computed its results. A call that failed has also ended. This function does not wait.
 * Any thread may call this function.
 *
 * Errors: NUC_INVALID_ARGUMENT.
 *
 * The caller promises:
 * `call` is a live handle. `done` points to a writable int32_t. `error` is null or points to a nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_call_is_done(const nuc_call *call,
                            int32_t *done,
                            nuc_error *error);

/**
 * Waits until a call has ended, for at most `timeout_ns` nanoseconds. UINT64_MAX: no limit. 0: does not wait. Any
 * number of threads may wait for the same call.
 *
 * Errors: NUC_TIMEOUT if the call has not ended; the call continues, and this function can be called again.
 * NUC_DEVICE_ERROR, NUC_OUT_OF_MEMORY or NUC_INTERNAL if the call has failed. NUC_INVALID_ARGUMENT, also if the
 * function would have to wait in a callback of nuc_call_on_done.
 *
 * The caller promises:
 * `call` is a live handle. `error` is null or points to a nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_call_wait(const nuc_call *call,
                         uint64_t timeout_ns,
                         nuc_error *error);

/**
 * Calls `function` with `user` once, when a call has ended. The callback runs on a thread of the plugin. If the call
 * has already ended, the callback runs on this thread before this function returns. The description of
 * nuc_done_function lists what a callback may do. A call can have several callbacks, which run in any order. Any
 * thread may call this function.
 *
 * Errors: NUC_INVALID_ARGUMENT. After an error, the callback does not run.
 *
 * The caller promises:
 * `call` is a live handle. `function` and `user` are valid on every thread until the callback has returned.
 * nuc_call_destroy waits for this. `error` is null or points to a nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_call_on_done(const nuc_call *call,
                            nuc_done_function function,
                            void *user,
                            nuc_error *error);

/**
 * Waits until a call has ended, and writes the tokens of its rows to `tokens` `[num_rows]`: -1 if a row has none.
 * `row_status` `[num_rows]` receives the NUC_ROW_* bits of each row; null if not wanted. It needs NUC_HOST_ALL. The
 * tokens can be read any number of times, from any thread.
 *
 * Errors: NUC_INVALID_ARGUMENT, also if the call was started with NUC_HOST_NONE, and in a callback for a call that
 * has not ended; the error of the call if it has failed. A call that fails writes no output.
 *
 * The caller promises:
 * `call` is a live handle. The arrays have `num_rows` writable elements. `error` is null or points to a nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_call_get_tokens(const nuc_call *call,
                               int32_t *tokens,
                               uint32_t *row_status,
                               nuc_error *error);

/**
 * Waits until a call has ended, and writes the debug arrays with one number per row: `greedy_sampled`,
 * `random_unnorm_cdf_sampled_high`, `random_unnorm_cdf_sampled_low` and `next_tokens`. Null arrays are skipped. The
 * other fields must be null, because those arrays are on the device. The call needs NUC_HOST_ALL. The numbers can be
 * read any number of times, from any thread.
 *
 * Errors: those of nuc_call_get_tokens.
 *
 * The caller promises:
 * `call` is a live handle. `debug` points to a nuc_debug_arrays whose arrays have `num_rows` writable elements.
 * `error` is null or points to a nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_call_get_numbers(const nuc_call *call,
                                const nuc_debug_arrays *debug,
                                nuc_error *error);

/**
 * Gives a result of a call to the caller, as a `PJRT_Buffer *` in `*buffer`. The caller destroys it with
 * PJRT_Buffer_Destroy before the client is destroyed. Each buffer can be taken once. This function does not wait for
 * the device. On a CPU, it can wait for the copy of at most 32 KiB. The device may still be computing the contents;
 * every use of the buffer in PJRT waits for them. The buffer stays valid after nuc_call_destroy. Any thread may call
 * this function.
 *
 * Errors: NUC_INVALID_ARGUMENT if `which` is not a nuc_buffer, was not requested, or was already taken. After an
 * error `*buffer` is null.
 *
 * The caller promises:
 * `call` is a live handle. `buffer` points to a writable pointer. `error` is null or points to a nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_call_take_buffer(nuc_call *call,
                                nuc_buffer which,
                                void **buffer,
                                nuc_error *error);

/**
 * Frees a call and its buffers that were not taken. Null is allowed. A call can be destroyed at any time: the
 * function waits until the device has finished the call, and until the callbacks of the call have returned. No other
 * call may use the handle at the same time or later. In a child process after fork, this function does nothing, like
 * nuc_sampler_destroy. It must not be called in a callback of nuc_call_on_done.
 *
 * Errors: NUC_INVALID_ARGUMENT if `call` is not a call, or in a callback. The failure of a call is not an error of
 * this function.
 *
 * The caller promises:
 * `call` is null or a handle from nuc_sample_start that was not destroyed. `error` is null or points to a nuc_error.
 */
NUC_API nuc_status nuc_call_destroy(nuc_call *call,
                                    nuc_error *error);

/** @} */

/**
 * @defgroup nuc_embedding Programs to embed
 *
 * Programs to embed: the sampler as a function of the caller's own program.
 *
 * A framework that builds its decode step as a StableHLO module can call the sampler inside it. nuc_emit returns the
 * text of one private function. nuc_pack_parameters fills the array of parameters that the function takes. Both work
 * without a sampler and without a plugin.
 *
 *     func.func private @nucleus_sample(
 *         %logits:     tensor<num_rows x vocab x f32>,      or bf16 or f16
 *         %parameters: tensor<num_rows x 13 x i32>,         NUC_PARAMETER_COLUMNS columns
 *         %step:       tensor<ui64>)
 *       -> (tensor<num_rows x i32>,                         the tokens; -1 if a row has no candidate
 *           tensor<5 x num_rows x i32>,                     next_tokens, greedy_sampled, the bits 32 to 63 and 0 to 31
 *                                                           of r, and the row status
 *           ...)                                            the debug arrays, in the order of their NUC_DEBUG_* bits
 *
 * The function adds the step to the offset of every row, modulo 2^64. So a loop of many steps can run on the device
 * with one array of parameters. Its results are those of separate calls, bit for bit.
 *
 * The function calls no other function and uses no global symbol. Its name is the only name that it adds to the
 * module. The text refers to no data on the host. On a device with layouts the logits must be row-major. Debug arrays
 * of logits contain the bits of the logits: i32 for f32, ui16 for bf16 and f16. NUC_DEBUG_K_SLICES adds three
 * arrays, `[num_rows, min(max_k, vocab)]`: indices, logits and weights.
 * @{
 */

/** The number of columns of the array of nuc_pack_parameters. */
#define NUC_PARAMETER_COLUMNS 13u

/**
 * A function to embed. A field that is zero has its default.
 *
 * Initialize the struct with NUC_EMIT_OPTIONS_INIT, then set at least `num_rows` and `vocab`. The caller owns the
 * struct and its strings, and may free them when the call returns.
 */
typedef struct nuc_emit_options {
    /** `sizeof(nuc_emit_options)`, in the caller's version of this header. */
    size_t struct_size;
    /** The number of rows, 1 to 65536. */
    size_t num_rows;
    /** The number of elements per row, 1 to 16777216. */
    size_t vocab;
    /** The number of slots of the bounded path, 1 to 1024. 0: 128. */
    size_t max_k;
    /**
     * The target, NUL-terminated: `portable`, a TPU generation (`v4`, `v5e`, `v5p`, `v6e`, `tpu7x`), or a GPU model
     * (`gh200`, `h100`, `h200`, `a100`, `gb200`, `b200`, `l40`, `l4`, `a10`). For a TPU or a GPU, the function
     * contains a kernel if there is one for its shape. Null or empty: `portable`, which runs on every plugin.
     */
    const char *target;
    /**
     * The name of the function, NUL-terminated: letters, digits, `_`, `$` and `.`, not starting with a digit. Null
     * or empty: `nucleus_sample`.
     */
    const char *name;
    /** The element type of the logits. 0: NUC_DTYPE_F32. */
    nuc_dtype dtype;
    /**
     * The path of all rows. NUC_PATH_ARBITRARY accepts every k. NUC_PATH_BOUNDED needs 1 <= k <= max_k in every row
     * that is not greedy, and no `keep_ties`. 0, NUC_PATH_AUTO: the bounded path if vocab <= max_k and `keep_ties`
     * is 0, otherwise the arbitrary path.
     */
    nuc_path path;
    /** As in nuc_call_options. */
    int32_t keep_ties;
    /**
     * The NUC_DEBUG_* bits of the debug arrays that the function returns. NUC_DEBUG_K_SLICES needs the bounded path.
     */
    uint32_t debug_arrays;
} nuc_emit_options;

/** Initializes a nuc_emit_options. */
#define NUC_EMIT_OPTIONS_INIT \
    {sizeof(nuc_emit_options), 0, 0, 0, NULL, NULL, 0, 0, 0, 0}

/**
 * Writes the text of a function to embed: StableHLO in MLIR's text form, NUL-terminated.
 *
 * `*text_length` receives the length of the text without the terminator. `text` has space for `text_size` bytes. To
 * learn the length, pass null for `text` and 0 for `text_size`; the call then writes only `*text_length`. Equal
 * options give an equal text. The caller owns all memory. Any thread may call this function.
 *
 * Errors: NUC_INVALID_ARGUMENT, also if `text` is not null and `text_size` is not larger than the length of the
 * text; NUC_OUT_OF_MEMORY.
 *
 * The caller promises:
 * `options` points to a nuc_emit_options whose strings are NUL-terminated. `text` is null or points to `text_size`
 * writable bytes, and `text_length` to a writable size_t. `error` is null or points to a nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_emit(const nuc_emit_options *options,
                    char *text,
                    size_t text_size,
                    size_t *text_length,
                    nuc_error *error);

/**
 * Fills the array of parameters that an embedded function takes, `[num_rows][NUC_PARAMETER_COLUMNS]`.
 *
 * `function` has the options that were passed to nuc_emit. `batch` has the parameters of the rows. Its `num_rows`,
 * `vocab` and `dtype` must be those of the function, and its `logits` and `random_words` must be null. `options` may
 * be null; otherwise its `keep_ties` must be that of the function. The caller owns all memory. Any thread may call
 * this function.
 *
 * Errors: NUC_INVALID_ARGUMENT, also if a row has an impossible parameter, or a `top_k` that the path of the
 * function does not accept. `error` then names the argument and the row. A call that fails writes nothing.
 *
 * The caller promises:
 * `function` points to a nuc_emit_options, `batch` to a nuc_batch with arrays of the documented sizes, and
 * `parameters` to `num_rows * NUC_PARAMETER_COLUMNS` writable elements. `options` is null or points to a
 * nuc_call_options. `error` is null or points to a nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_pack_parameters(const nuc_emit_options *function,
                               const nuc_batch *batch,
                               const nuc_call_options *options,
                               int32_t *parameters,
                               nuc_error *error);

/** @} */

/**
 * @defgroup nuc_compiling Compiling
 *
 * Compiling the programs of a plugin before the first call needs them. The built-in backend compiles nothing.
 * @{
 */

/** Where the logits of calls are. */
typedef int32_t nuc_logits_place;

/** The values of nuc_logits_place. */
enum {
    /** In host memory, for nuc_topk_topp_and_sample and the other functions that take a nuc_batch. */
    NUC_LOGITS_ON_HOST = 0,
    /** In a PJRT_Buffer, for nuc_sample_start and nuc_sample_on_device. */
    NUC_LOGITS_ON_DEVICE = 1
};

/**
 * The calls that nuc_prewarm and nuc_prewarm_start compile programs for. Initialize the struct with
 * NUC_PREWARM_SPEC_INIT, then set at least `num_rows` and `vocab`. The caller owns the struct.
 */
typedef struct nuc_prewarm_spec {
    /** `sizeof(nuc_prewarm_spec)`, in the caller's version of this header. */
    size_t struct_size;
    /** The function that will be called. 0: NUC_PATH_AUTO. */
    nuc_path path;
    /** The element type of the logits. 0: NUC_DTYPE_F32. */
    nuc_dtype dtype;
    /**
     * With logits in host memory: the largest number of rows of a call, at least 1. Programs for fewer rows are
     * compiled too.
     *
     * With logits on a device: the number of rows of the buffer, 1 to 65536. The programs depend on this number. If
     * calls use buffers with different numbers of rows, prewarm once for each number.
     */
    size_t num_rows;
    /** The number of elements per row, 1 to 16777216. */
    size_t vocab;
    /** The value of `keep_ties` that calls will pass. */
    int32_t keep_ties;
    /**
     * The NUC_DEBUG_* bits of the debug arrays that calls will request. Debug arrays without a bit need no other
     * program.
     */
    uint32_t debug_arrays;
    /** Where the logits are. 0: NUC_LOGITS_ON_HOST. */
    nuc_logits_place logits;
    /**
     * 1: the buffer of the logits has the dimensions `[num_rows, 1, vocab]`. 0: `[num_rows, vocab]`. Must be 0 if the
     * logits are in host memory.
     */
    int32_t has_middle_dimension;
    /**
     * The `host_numbers` of the calls. NUC_HOST_ALL needs two more programs, for rows with impossible parameters. Use
     * NUC_HOST_ALL also for calls of nuc_sample_on_device with `row_status`. Must be 0 if the logits are in host
     * memory.
     */
    nuc_host_numbers host_numbers;
    /** Must be zero. */
    int32_t reserved;
    /**
     * The largest number of programs that are compiled at the same time. 0: one per core. The compiler itself can use
     * several threads per program.
     */
    size_t num_threads;
} nuc_prewarm_spec;

/** Initializes a nuc_prewarm_spec. */
#define NUC_PREWARM_SPEC_INIT \
    {sizeof(nuc_prewarm_spec), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

/**
 * A prewarm that runs in the background. The type is opaque.
 *
 * nuc_prewarm_start creates the object, the caller owns it, and nuc_prewarming_destroy frees it. Any number of threads
 * may use it at the same time. Only nuc_prewarming_destroy must run alone. The rules for fork are those of
 * nuc_sampler.
 *
 * The object keeps the sampler's backend alive, so the sampler can be destroyed first. The prewarm then continues
 * until all its programs are compiled, a compilation fails, or the caller cancels the prewarm.
 */
typedef struct nuc_prewarming nuc_prewarming;

/** The progress of a prewarm. Initialize the struct with NUC_PREWARM_PROGRESS_INIT. The caller owns it. */
typedef struct nuc_prewarm_progress {
    /** `sizeof(nuc_prewarm_progress)`, in the caller's version of this header. Set it before the call. */
    size_t struct_size;
    /** The number of programs that are ready. */
    size_t done;
    /** The number of programs of the prewarm. 0 on the built-in backend. */
    size_t total;
    /** 1: the prewarm has ended, and nuc_prewarming_wait returns its result without waiting. 0: it is running. */
    int32_t has_ended;
    /** Always zero. */
    int32_t reserved;
} nuc_prewarm_progress;

/** Initializes a nuc_prewarm_progress. */
#define NUC_PREWARM_PROGRESS_INIT \
    {sizeof(nuc_prewarm_progress), 0, 0, 0, 0}

/**
 * Options for nuc_compile_ahead: what to compile, for which device, and where to write it. A field that is zero has
 * its default.
 *
 * Initialize the struct with NUC_COMPILE_AHEAD_OPTIONS_INIT, then set at least `output_dir`, `row_counts`,
 * `num_row_counts` and `vocab`. The caller owns the struct and everything that it points to, and may free all of it
 * when the call returns.
 */
typedef struct nuc_compile_ahead_options {
    /** `sizeof(nuc_compile_ahead_options)`, in the caller's version of this header. */
    size_t struct_size;
    /**
     * The path of the PJRT plugin's shared library, NUL-terminated UTF-8. Null or empty: the environment variable
     * NUCLEUS_PJRT_PLUGIN.
     */
    const char *plugin_path;
    /**
     * The plugin's name for a topology, NUL-terminated UTF-8. A topology describes the devices to compile for. This
     * host need not have these devices. With libtpu the name consists of a TPU generation and the arrangement of its
     * chips, for example `v5e:2x2`. The topology must equal that of the host that will load the programs. Null or
     * empty: the devices of this host. Plugins for CPUs and GPUs support only this default.
     */
    const char *topology;
    /** An array of `num_plugin_options` options for the topology, or for the client if `topology` is null. */
    const nuc_client_option *plugin_options;
    /** The length of `plugin_options`, at most 1024. */
    size_t num_plugin_options;
    /**
     * The output directory, NUL-terminated UTF-8. It is created if it does not exist. One directory can contain the
     * programs of several plugins and topologies, and can be copied to other hosts.
     */
    const char *output_dir;
    /**
     * An array of length `num_row_counts`: the numbers of rows of the calls to compile for, each at least 1. With
     * logits in host memory, each number is rounded up to a number in `row_buckets`. Calls with more rows than the
     * largest number in `row_buckets` run in pieces.
     */
    const size_t *row_counts;
    /** The length of `row_counts`, 1 to 4096. */
    size_t num_row_counts;
    /** The number of elements per row, 1 to 16777216. */
    size_t vocab;
    /** The `max_k` of the samplers that will load the programs, 1 to 1024. 0: 128. */
    size_t max_k;
    /** The element type of the logits. 0: NUC_DTYPE_F32. */
    nuc_dtype dtype;
    /** The function that will be called. 0: NUC_PATH_AUTO, which compiles the programs of both paths. */
    nuc_path path;
    /** The value of `keep_ties` that calls will pass. */
    int32_t keep_ties;
    /**
     * The NUC_DEBUG_* bits of the debug arrays that calls will request. Debug arrays without a bit need no other
     * program.
     */
    uint32_t debug_arrays;
    /**
     * 1: also compile for smaller numbers of rows, like nuc_prewarm, because a batch that uses both paths runs as
     * several smaller ones. 0: compile only for `row_counts`.
     */
    int32_t smaller_row_counts;
    /** Must be zero. */
    int32_t reserved;
    /**
     * The largest size of `output_dir` in bytes. After the last write, the least recently used programs are removed
     * until the directory fits. Programs that this call wrote, and programs that any process has used during the last
     * minute, are not removed. 0: unlimited.
     */
    uint64_t output_dir_capacity;
    /** The `row_buckets` of the samplers that will load the programs. */
    const size_t *row_buckets;
    /** The length of `row_buckets`, at most 64. 0: the powers of two from 1 to 128. */
    size_t num_row_buckets;
    /**
     * Where the logits of the calls are. 0: NUC_LOGITS_ON_HOST.
     *
     * With NUC_LOGITS_ON_DEVICE, each element of `row_counts` is the number of rows of a buffer, 1 to 65536. If
     * `smaller_row_counts` is 1, this function also writes the programs of buffers whose rows take both paths. Two
     * kinds of small programs are never written: the programs for rows with impossible parameters, and the programs
     * that copy logits whose layout is not row-major. A sampler compiles these programs when it needs them.
     */
    nuc_logits_place logits;
    /** As in nuc_prewarm_spec. */
    int32_t has_middle_dimension;
} nuc_compile_ahead_options;

/** Initializes a nuc_compile_ahead_options. */
#define NUC_COMPILE_AHEAD_OPTIONS_INIT \
    {sizeof(nuc_compile_ahead_options), NULL, NULL, NULL, 0, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0, 0, 0}

/**
 * Compiles every program that the calls described by `spec` can need, so that no later call waits for the compiler.
 * The built-in backend compiles nothing; the function then returns immediately. Any number of threads may call it with
 * the same sampler, and other threads may sample at the same time.
 *
 * For one sampler, the programs depend only on the properties of the calls in `spec`. They do not depend on top_k,
 * top_p, min_p, temperature, seeds, random words or replace_val. They also do not depend on the paths that the rows of
 * a batch take. So a server that prewarms for every shape of its calls compiles nothing later.
 *
 * With logits in host memory, the number of rows is rounded up to one of the sampler's `row_buckets`. With logits on a
 * device, the programs depend on the exact number of rows of the buffer. If the rows of a call can take both paths, a
 * buffer of n <= 128 rows needs up to 4 log2(n) + 5 programs with the default `row_buckets`. The logarithm is rounded
 * up. NUC_HOST_ALL needs two more programs.
 *
 * One kind of program is not prewarmed. If the layout of logits on a device is not row-major, a small program copies
 * the logits; see nuc_sample_start. The first call with this layout compiles the program. Choose `cache_capacity` so
 * that this program fits too.
 *
 * On a GPU, the function also runs each program once, with logits of zeros, because the driver translates the kernels
 * of a program in its first run. Each thread of the prewarm needs device memory for the logits of one call. Programs
 * with more than 256 MiB of logits do not run. If a run fails, the function still succeeds.
 *
 * The programs stay in memory until the sampler is destroyed; they are never evicted.
 *
 * Errors: NUC_INVALID_ARGUMENT, also if the programs of all calls of this function together exceed `cache_capacity`
 * (the message states their number), or if the logits are on a device and the sampler uses the built-in backend;
 * NUC_DEVICE_ERROR if the plugin cannot compile; NUC_OUT_OF_MEMORY.
 *
 * The caller promises:
 * `sampler` is a live handle. `spec` points to a nuc_prewarm_spec. `error` is null or points to a nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_prewarm(const nuc_sampler *sampler,
                       const nuc_prewarm_spec *spec,
                       nuc_error *error);

/**
 * Starts nuc_prewarm in the background, and writes the handle of the prewarm to `*prewarming`. The caller owns the
 * handle and frees it with nuc_prewarming_destroy. Sampling calls can run at the same time. If a call needs a program
 * that the prewarm is compiling, the call waits for this program. Several prewarms can run at the same time. Any
 * number of threads may call this function with the same sampler.
 *
 * Errors: NUC_INVALID_ARGUMENT, also if the programs exceed `cache_capacity`, or if the logits are on a device and the
 * sampler uses the built-in backend; NUC_OUT_OF_MEMORY. After an error `*prewarming` is null. nuc_prewarming_wait
 * returns the errors of the compilations.
 *
 * The caller promises:
 * `sampler` is a live handle. `spec` points to a nuc_prewarm_spec, and `prewarming` to a writable pointer. `error` is
 * null or points to a nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_prewarm_start(const nuc_sampler *sampler,
                             const nuc_prewarm_spec *spec,
                             nuc_prewarming **prewarming,
                             nuc_error *error);

/**
 * Writes the progress of a prewarm to `progress`. The caller owns the struct and sets its `struct_size` before the
 * call. The function does not wait. Any thread may call this function, also in a callback.
 *
 * Errors: NUC_INVALID_ARGUMENT. If the prewarm failed, this function still succeeds.
 *
 * The caller promises:
 * `prewarming` is a live handle. `progress` points to a writable nuc_prewarm_progress. `error` is null or points to a
 * nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_prewarming_get_progress(const nuc_prewarming *prewarming,
                                       nuc_prewarm_progress *progress,
                                       nuc_error *error);

/**
 * Waits until a prewarm has ended, for at most `timeout_ns` nanoseconds. UINT64_MAX: no limit. 0: does not wait. Any
 * number of threads may wait for the same prewarm.
 *
 * Errors: NUC_TIMEOUT if the prewarm has not ended; the prewarm continues, and this function can be called again.
 * NUC_DEVICE_ERROR, NUC_OUT_OF_MEMORY or NUC_INTERNAL if a program could not be compiled; the programs that were
 * compiled stay in memory. NUC_CANCELLED if the prewarm was cancelled before all programs were compiled.
 * NUC_INVALID_ARGUMENT, also if the function would have to wait in a callback of nuc_call_on_done, or in a callback of
 * nuc_set_log for which the prewarm may wait.
 *
 * The caller promises:
 * `prewarming` is a live handle. `error` is null or points to a nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_prewarming_wait(const nuc_prewarming *prewarming,
                               uint64_t timeout_ns,
                               nuc_error *error);

/**
 * Cancels a prewarm. The prewarm finishes the compilations that are running, and starts no further ones. Programs that
 * were compiled stay in memory. The function does not wait. It has no effect on a prewarm that has ended. Any thread
 * may call this function, also in a callback.
 *
 * Errors: NUC_INVALID_ARGUMENT.
 *
 * The caller promises:
 * `prewarming` is a live handle. `error` is null or points to a nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_prewarming_cancel(const nuc_prewarming *prewarming,
                                 nuc_error *error);

/**
 * Frees a prewarm. Null is allowed. If the prewarm has not ended, the function cancels it and waits for the
 * compilations that are running. Programs that were compiled stay in memory. No other call may use the handle at the
 * same time or later. In a child process after fork, this function does nothing, like nuc_sampler_destroy. It must not
 * be called in a callback of nuc_call_on_done or nuc_set_log.
 *
 * Destroy every prewarm before the process ends. Many plugins crash if the process ends during a compilation.
 *
 * Errors: NUC_INVALID_ARGUMENT if `prewarming` is not a nuc_prewarming, or in a callback. If the prewarm failed, this
 * function still succeeds.
 *
 * The caller promises:
 * `prewarming` is null or a handle from nuc_prewarm_start that was not destroyed. `error` is null or points to a
 * nuc_error.
 */
NUC_API nuc_status nuc_prewarming_destroy(nuc_prewarming *prewarming,
                                          nuc_error *error);

/**
 * Compiles the programs that calls will need and writes each one to a file in `output_dir`. A sampler whose
 * `program_dir` is that directory loads the programs instead of compiling them, so a server starts faster. Any thread
 * may call this function.
 *
 * `*programs_written` receives the number of files written. The pointer may be null.
 *
 * A sampler loads a file only if the plugin build, the kind, number and arrangement of devices, and the compiler flags
 * (environment variables XLA_FLAGS and LIBTPU_INIT_ARGS) are those for which the file was compiled. For a CPU, the
 * model and the features of the processor must also be the same. If one of these differs, the sampler ignores the file
 * and compiles the program.
 *
 * If `topology` is set, this host needs no device. For example, libtpu compiles for TPUs on any x86-64 Linux host. Set
 * these environment variables for libtpu:
 *
 * - TPU_SKIP_MDS_QUERY=1 and TPU_WORKER_HOSTNAMES=localhost: without them libtpu queries a metadata server, which can
 *   take minutes;
 * - ALLOW_MULTIPLE_LIBTPU_LOAD=1: if several processes compile at the same time, or another process uses the TPU.
 *
 * Set them before the process starts, or at least before the plugin is first loaded. This library does not set them,
 * because a library cannot safely change the environment of a process that has several threads. The command `nucleus
 * compile` sets them itself. On a host without a TPU, this function and nuc_sampler_create check for
 * TPU_SKIP_MDS_QUERY before they start libtpu, and return NUC_DEVICE_ERROR if it is missing.
 *
 * Errors: NUC_INVALID_ARGUMENT; NUC_PLUGIN_NOT_FOUND, NUC_PLUGIN_INVALID and NUC_PLUGIN_VERSION; NUC_DEVICE_ERROR if
 * the plugin cannot compile or, without a topology, finds no device; NUC_IO_ERROR if a file cannot be written;
 * NUC_OUT_OF_MEMORY. After an error, files that were already written stay, and `*programs_written` is unchanged.
 *
 * The caller promises:
 * `options` points to a nuc_compile_ahead_options whose strings are NUL-terminated and whose arrays have the lengths
 * that its fields state. `programs_written` is null or points to a writable size_t. `error` is null or points to a
 * nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_compile_ahead(const nuc_compile_ahead_options *options,
                             size_t *programs_written,
                             nuc_error *error);

/** @} */

/**
 * @defgroup nuc_information Information
 *
 * Information about a sampler: its platform, its devices and its counters.
 * @{
 */

/**
 * Counters of a sampler since it was created. The built-in backend compiles nothing, so its counters of programs stay
 * 0.
 *
 * The last fields describe latencies: the number of calls, the median, and the 99th percentile in nanoseconds. A call
 * is counted when it ends, and only if it succeeds. Percentiles are within 1.6% of the exact value. They are 0 if no
 * call was counted. There are three latencies:
 *
 * - enqueue: from the start of a call until its programs are in the queue of the device. This includes uploading the
 *   inputs and compiling missing programs. With logits on a device, it is the duration of nuc_sample_start.
 * - execute: from the end of enqueue until the results are on the host. With NUC_HOST_NONE, until the device has
 *   finished.
 * - total: the whole call.
 *
 * Calls of the built-in backend and of nuc_reference_topk_topp_and_sample have no queue. They count only in total.
 *
 * Initialize the struct with NUC_SAMPLER_STATS_INIT. The caller owns it.
 */
typedef struct nuc_sampler_stats {
    /** `sizeof(nuc_sampler_stats)`, in the caller's version of this header. Set it before the call. */
    size_t struct_size;
    /** The number of programs compiled. */
    uint64_t compiles;
    /** The number of lookups that found a program, or waited while another thread compiled it. */
    uint64_t hits;
    /** The number of programs evicted because the cache was full. */
    uint64_t evictions;
    /** The number of compilations that failed. */
    uint64_t failures;
    /** The time spent compiling, in nanoseconds, summed over threads. */
    uint64_t compile_ns;
    /** The number of programs in memory now. */
    uint64_t programs;
    /** The number of programs loaded from `program_dir` instead of compiled. */
    uint64_t loaded;
    /**
     * The number of programs in memory that nuc_prewarm compiled or loaded. They are never evicted, and count toward
     * `cache_capacity`.
     */
    uint64_t pinned;
    /**
     * The number of programs that were compiled for one call and not kept, because the programs of nuc_prewarm filled
     * the cache.
     */
    uint64_t not_kept;
    /** The number of files that the sampler removed from `program_dir` because of `program_dir_capacity`. */
    uint64_t program_files_evicted;
    /**
     * The size of all programs in `program_dir`, in bytes. The sampler measures it when it is created and after it
     * writes a program. 0 if `write_programs` is 0.
     */
    uint64_t program_dir_bytes;
    /** The number of calls that were counted in enqueue. */
    uint64_t enqueue_count;
    /** The median of enqueue, in nanoseconds. */
    uint64_t enqueue_p50_ns;
    /** The 99th percentile of enqueue, in nanoseconds. */
    uint64_t enqueue_p99_ns;
    /** The number of calls that were counted in execute. */
    uint64_t execute_count;
    /** The median of execute, in nanoseconds. */
    uint64_t execute_p50_ns;
    /** The 99th percentile of execute, in nanoseconds. */
    uint64_t execute_p99_ns;
    /** The number of calls that were counted in total. */
    uint64_t total_count;
    /** The median of total, in nanoseconds. */
    uint64_t total_p50_ns;
    /** The 99th percentile of total, in nanoseconds. */
    uint64_t total_p99_ns;
} nuc_sampler_stats;

/** Initializes a nuc_sampler_stats. */
#define NUC_SAMPLER_STATS_INIT \
    {sizeof(nuc_sampler_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

/**
 * A description of a sampler's platform. The strings are NUL-terminated UTF-8. They belong to the sampler and are
 * valid until it is destroyed. A plugin's strings can contain line breaks.
 *
 * Initialize the struct with NUC_SAMPLER_INFO_INIT. The caller owns it.
 */
typedef struct nuc_sampler_info {
    /** `sizeof(nuc_sampler_info)`, in the caller's version of this header. Set it before the call. */
    size_t struct_size;
    /** `builtin`, or the plugin's name for its platform, for example `cpu`, `cuda` or `tpu`. */
    const char *platform_name;
    /** The plugin's version string. For the built-in backend: its instruction set and number of threads. */
    const char *platform_version;
    /** The major version of the plugin's PJRT C API; 0 on the built-in backend. */
    int32_t pjrt_api_major;
    /** The minor version of the plugin's PJRT C API; 0 on the built-in backend. */
    int32_t pjrt_api_minor;
    /** The number of devices that `device_index` can select. */
    size_t num_devices;
    /** The number of slots of the bounded path. */
    size_t max_k;
    /**
     * The table of the plugin, `const PJRT_Api *`; null on the built-in backend. It is valid until the process ends.
     */
    const void *pjrt_api;
    /**
     * The client, `PJRT_Client *`, for making buffers; null on the built-in backend. It belongs to the sampler, or to
     * the caller who passed it to nuc_sampler_create. Do not destroy the sampler's client.
     */
    void *pjrt_client;
} nuc_sampler_info;

/** Initializes a nuc_sampler_info. */
#define NUC_SAMPLER_INFO_INIT \
    {sizeof(nuc_sampler_info), NULL, NULL, 0, 0, 0, 0, NULL, NULL}

/**
 * One device of a sampler's client. The strings are NUL-terminated UTF-8. They belong to the sampler and are valid
 * until it is destroyed.
 *
 * Initialize the struct with NUC_DEVICE_INFO_INIT. The caller owns it.
 */
typedef struct nuc_device_info {
    /** `sizeof(nuc_device_info)`, in the caller's version of this header. Set it before the call. */
    size_t struct_size;
    /** The plugin's description of the device, in human-readable form. */
    const char *description;
    /** The plugin's name for the kind of device. */
    const char *kind;
    /** The plugin's global id of the device. */
    int32_t id;
    /** Always zero. */
    int32_t reserved;
} nuc_device_info;

/** Initializes a nuc_device_info. */
#define NUC_DEVICE_INFO_INIT \
    {sizeof(nuc_device_info), NULL, NULL, 0, 0}

/**
 * Writes the current counters of a sampler to `stats`. The caller owns the struct and sets its `struct_size` before
 * the call. Any number of threads may call this function with the same sampler.
 *
 * Errors: NUC_INVALID_ARGUMENT.
 *
 * The caller promises:
 * `sampler` is a live handle. `stats` points to a writable nuc_sampler_stats. `error` is null or points to a
 * nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_sampler_get_stats(const nuc_sampler *sampler,
                                 nuc_sampler_stats *stats,
                                 nuc_error *error);

/**
 * Writes a description of a sampler to `info`. The caller owns the struct and sets its `struct_size` before the
 * call. The strings belong to the sampler and are valid until it is destroyed. Any number of threads may call this
 * function with the same sampler.
 *
 * Errors: NUC_INVALID_ARGUMENT.
 *
 * The caller promises:
 * `sampler` is a live handle. `info` points to a writable nuc_sampler_info. `error` is null or points to a
 * nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_sampler_get_info(const nuc_sampler *sampler,
                                nuc_sampler_info *info,
                                nuc_error *error);

/**
 * Writes a description of the device `index`, counted from 0, to `device`. The number of devices is in
 * nuc_sampler_info. The caller owns the struct and sets its `struct_size` before the call. The strings belong to
 * the sampler and are valid until it is destroyed. Any number of threads may call this function with the same
 * sampler.
 *
 * Errors: NUC_INVALID_ARGUMENT, also if there is no such device.
 *
 * The caller promises:
 * `sampler` is a live handle. `device` points to a writable nuc_device_info. `error` is null or points to a
 * nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_sampler_get_device(const nuc_sampler *sampler,
                                  size_t index,
                                  nuc_device_info *device,
                                  nuc_error *error);

/** @} */

/**
 * @defgroup nuc_log Log
 *
 * The library's log.
 * @{
 */

/** How much the library logs. Each level includes the levels before it. */
typedef int32_t nuc_log_level;

/** The values of nuc_log_level. */
enum {
    /** Nothing. This is the default. */
    NUC_LOG_OFF = 0,
    /** Failures that no return value can report. */
    NUC_LOG_ERROR = 1,
    /**
     * The library continued after a problem. For example, a compiled program could not be loaded and is compiled
     * again.
     */
    NUC_LOG_WARNING = 2,
    /** The programs that nuc_compile_ahead compiles. */
    NUC_LOG_INFO = 3,
    /** Every program that is loaded, compiled or written, and every call that fails. */
    NUC_LOG_DEBUG = 4
};

/**
 * A callback that receives log messages; see nuc_set_log.
 *
 * `user` is the pointer that was passed to nuc_set_log. `message` is one line of NUL-terminated UTF-8, without control
 * characters, valid only during the callback.
 *
 * Any thread can call the callback, and several threads can call it at the same time. It must return normally: no
 * exception, no longjmp. It may call other functions of this library, but not nuc_sampler_destroy. It must not wait
 * for a prewarm or destroy a nuc_prewarming, because the prewarm may wait for the callback. On a thread for which a
 * prewarm may wait, these calls return NUC_INVALID_ARGUMENT.
 */
typedef void (*nuc_log_function)(void *user,
                                 nuc_log_level level,
                                 const char *message);

/**
 * Sets the destination of the library's log for the whole process. Messages up to `level` go to the callback `log`, or
 * to standard error if `log` is null.
 *
 * A later call replaces an earlier one. The earlier callback can still be running in another thread when the later
 * call returns. Any thread may call this function. The library does not access the memory behind `user`.
 *
 * If this function was not called before the first nuc_sampler_create or nuc_compile_ahead, the environment variable
 * NUCLEUS_LOG (off, error, warning, info or debug) sets the level for standard error. The variable is read once. A
 * value that is not a level is reported once on standard error and ignored. Without the variable, nothing is logged.
 * If standard error is closed, messages are lost; they do not raise SIGPIPE.
 *
 * Errors: NUC_INVALID_ARGUMENT if `level` is not a nuc_log_level, or if the process is a Rust program that already has
 * a logger.
 *
 * The caller promises:
 * Any thread may call `log` with `user` until the process ends, or until another nuc_set_log has replaced the callback
 * and every call that began before has returned. `error` is null or points to a nuc_error.
 */
NUC_NODISCARD NUC_API
nuc_status nuc_set_log(nuc_log_function log,
                       void *user,
                       nuc_log_level level,
                       nuc_error *error);

/** @} */

#ifdef __cplusplus
}
#endif

#endif /* NUCLEUS_H */

/* Shared by the C test programs: counted checks, a sampler, a random number generator. */
#ifndef CHECK_H
#define CHECK_H

#include <nucleus.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long checks, failures;

/* Counts a check, prints it if it fails, and returns whether it passes. */
static inline int check_that(int holds, const char *file, int line, const char *what) {
    checks++;
    if (!holds) {
        failures++;
        fprintf(stderr, "%s:%d: failed: %s\n", file, line, what);
    }
    return holds;
}
#define CHECK(condition) check_that((condition) != 0, __FILE__, __LINE__, #condition)

/* Checks the status of a call, and that its nuc_error agrees: the message is empty after a success, only an argument
 * error names an argument, and an error that names a row also names an argument. */
#define CHECK_STATUS(wanted, error, call) check_status((wanted), (call), &(error), __FILE__, __LINE__, #call)
static inline int check_status(nuc_status wanted, nuc_status got, const nuc_error *error, const char *file, int line,
                               const char *what) {
    const int agrees = error->code == got && (error->message[0] == '\0') == (got == NUC_OK) &&
                       (error->message_length == 0) == (got == NUC_OK) &&
                       (error->argument == NULL || got == NUC_INVALID_ARGUMENT) &&
                       (error->row == -1 || (error->row >= 0 && error->argument != NULL));
    const int holds = check_that(got == wanted && agrees, file, line, what);
    if (!holds) {
        fprintf(stderr, "    %s (error code %d: %s) instead of %s\n", nuc_status_string(got), (int)error->code,
                error->message, nuc_status_string(wanted));
    }
    return holds;
}

/* Checks that the message of a failure contains `name`. */
#define CHECK_NAMES(error, name) check_names(&(error), (name), __FILE__, __LINE__)
static inline int check_names(const nuc_error *error, const char *name, const char *file, int line) {
    const int holds = check_that(strstr(error->message, name) != NULL, file, line, "the message names the argument");
    if (!holds) fprintf(stderr, "    '%s' does not mention '%s'\n", error->message, name);
    return holds;
}

/* Checks that a failure names `argument`. */
#define CHECK_ARGUMENT(error, argument) check_argument(&(error), (argument), __FILE__, __LINE__)
static inline int check_argument(const nuc_error *error, const char *argument, const char *file, int line) {
    const char *const got = error->argument == NULL ? "none" : error->argument;
    const int holds = check_that(strcmp(got, argument) == 0, file, line, "nuc_error.argument");
    if (!holds) fprintf(stderr, "    %s instead of %s: %s\n", got, argument, error->message);
    return holds;
}

/* Prints the last line of a program and returns its exit status. */
static inline int report(void) {
    printf("%ld checks, %ld failed\n", checks, failures);
    return failures != 0;
}

/* The options of a sampler on a plugin, or on the built-in backend if `plugin` is null. */
static inline nuc_sampler_options options_for(const char *plugin) {
    nuc_sampler_options options = NUC_SAMPLER_OPTIONS_INIT;
    options.backend = plugin ? NUC_BACKEND_PJRT : NUC_BACKEND_BUILTIN;
    options.plugin_path = plugin;
    return options;
}

/* Creates a sampler on a plugin, or on the built-in backend if `plugin` is null. A failure ends the program. */
static inline nuc_sampler *make_sampler(const char *plugin, size_t max_k) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler_options options = options_for(plugin);
    nuc_sampler *sampler = NULL;
    options.max_k = max_k;
    if (!CHECK_STATUS(NUC_OK, error, nuc_sampler_create(&options, &sampler, &error))) exit(report());
    return sampler;
}

/* A small random number generator, so that every machine tests the same values. */
static inline uint32_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    uint64_t x = *state;
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdu;
    return (uint32_t)(x >> 32);
}

/* Returns a number in [-1, 1). */
static inline float next_float(uint64_t *state) {
    return (float)(next_random(state) >> 8) / 8388608.0f - 1.0f;
}

#endif

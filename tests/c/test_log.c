/*
 * The log: the effects of NUCLEUS_LOG and nuc_set_log, and the destination of messages. Every backend logs failed calls
 * at NUC_LOG_DEBUG. A plugin's sampler logs programs that it cannot load at NUC_LOG_WARNING (test_ahead).
 *
 * A process reads NUCLEUS_LOG once, so each value is tested in a separate process.
 */
#define _POSIX_C_SOURCE 200112L
#include "check.h"
#include "child.h"

#include <pthread.h>

typedef struct heard {
    int count;
    nuc_log_level level;
    char message[600];
} heard;

static void hear(void *user, nuc_log_level level, const char *message) {
    heard *ears = user;
    ears->count++;
    ears->level = level;
    snprintf(ears->message, sizeof ears->message, "%s", message);
}

/* Runs a call that fails. The library logs its message at NUC_LOG_DEBUG. */
static void fail(void) {
    nuc_error error = NUC_ERROR_INIT;
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_prewarm(NULL, NULL, &error));
}

static void create_two_and_fail(void *value) {
    if (value) CHECK(setenv("NUCLEUS_LOG", value, 1) == 0);
    nuc_sampler_destroy(make_sampler(NULL, 64), NULL);
    nuc_sampler_destroy(make_sampler(NULL, 64), NULL);
    fail();
}

static void set_log_decides(void *value) {
    nuc_error error = NUC_ERROR_INIT;
    heard ears = {0};
    CHECK(setenv("NUCLEUS_LOG", value, 1) == 0);
    CHECK_STATUS(NUC_OK, error, nuc_set_log(hear, &ears, NUC_LOG_ERROR, &error));
    nuc_sampler_destroy(make_sampler(NULL, 64), NULL);
    fail();
    CHECK(ears.count == 0);
    CHECK_STATUS(NUC_OK, error, nuc_set_log(hear, &ears, NUC_LOG_DEBUG, &error));
    fail();
    CHECK(ears.count == 1);
}

static void *create_one(void *argument) {
    nuc_sampler_destroy(make_sampler(NULL, 64), NULL);
    return argument;
}

/* Samplers in other threads read the environment while this thread calls nuc_set_log. The setting of nuc_set_log must
 * remain. */
static void race(void *value) {
    nuc_error error = NUC_ERROR_INIT;
    pthread_t threads[3];
    CHECK(setenv("NUCLEUS_LOG", value, 1) == 0);
    for (int i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, create_one, NULL) == 0);
    CHECK_STATUS(NUC_OK, error, nuc_set_log(NULL, NULL, NUC_LOG_OFF, &error));
    for (int i = 0; i < 3; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    fail();
}

static void environment(void) {
    child_outcome outcome = run_child(create_two_and_fail, NULL);
    check_silent_child(&outcome, "without NUCLEUS_LOG");
    outcome = run_child(create_two_and_fail, "warning");
    check_silent_child(&outcome, "NUCLEUS_LOG=warning");
    outcome = run_child(create_two_and_fail, "debug");
    check_child(&outcome, "NUCLEUS_LOG=debug");
    CHECK(strstr(outcome.errors, "nucleus: debug: NUC_INVALID_ARGUMENT: sampler is ") != NULL);

    /* The library reports an unknown level once, and samplers can still be created. */
    outcome = run_child(create_two_and_fail, "loud");
    check_child(&outcome, "NUCLEUS_LOG=loud");
    CHECK(strstr(outcome.errors, "nucleus: warning: NUCLEUS_LOG is \"loud\"") == outcome.errors);
    CHECK(strstr(outcome.errors, "off, error, warning, info, debug\n") != NULL);
    CHECK(strchr(outcome.errors, '\n') == outcome.errors + strlen(outcome.errors) - 1);

    outcome = run_child(set_log_decides, "debug");
    check_silent_child(&outcome, "nuc_set_log before NUCLEUS_LOG=debug");
    outcome = run_child(set_log_decides, "loud");
    check_silent_child(&outcome, "nuc_set_log before NUCLEUS_LOG=loud");
    for (int round = 0; round < 8; round++) {
        outcome = run_child(race, "debug");
        check_silent_child(&outcome, "nuc_set_log beside nuc_sampler_create");
    }
}

static int sigpipe_is_pending(void) {
    sigset_t pending;
    CHECK(sigemptyset(&pending) == 0 && sigpending(&pending) == 0);
    return sigismember(&pending, SIGPIPE);
}

/* Standard error is a closed pipe, and SIGPIPE has the default action of a C program. */
static void closed_pipe(void *argument) {
    int ends[2];
    sigset_t sigpipe;
    (void)argument;
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    CHECK(pipe(ends) == 0 && dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    CHECK(nuc_set_log(NULL, NULL, NUC_LOG_DEBUG, NULL) == NUC_OK);
    fail();
    CHECK(sigemptyset(&sigpipe) == 0 && sigaddset(&sigpipe, SIGPIPE) == 0);
    CHECK(pthread_sigmask(SIG_BLOCK, &sigpipe, NULL) == 0);
    CHECK(!sigpipe_is_pending());
    fail();
    CHECK(!sigpipe_is_pending());
    /* A pending signal of the caller stays pending. */
    raise(SIGPIPE);
    fail();
    CHECK(sigpipe_is_pending());
}

/* Whether a failed call writes to standard error. */
static int standard_error_speaks(const char *program) {
    char path[512], text[600];
    snprintf(path, sizeof path, "%s.stderr", program);
    fflush(stderr);
    const int kept = dup(STDERR_FILENO);
    CHECK(kept >= 0 && freopen(path, "w", stderr) != NULL);
    fail();
    fflush(stderr);
    CHECK(dup2(kept, STDERR_FILENO) == STDERR_FILENO && close(kept) == 0);
    FILE *file = fopen(path, "r");
    if (!CHECK(file != NULL)) return -1;
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    remove(path);
    CHECK(text[0] == '\0' || strncmp(text, "nucleus: debug: NUC_INVALID_ARGUMENT: sampler is ", 49) == 0);
    return text[0] != '\0';
}

static void set_log(const char *program, const char *plugin) {
    nuc_error error = NUC_ERROR_INIT;
    heard one = {0}, two = {0};
    CHECK_STATUS(NUC_OK, error, nuc_set_log(hear, &one, NUC_LOG_DEBUG, &error));
    CHECK(standard_error_speaks(program) == 0);
    CHECK(one.count == 1 && one.level == NUC_LOG_DEBUG);
    CHECK(strstr(one.message, "NUC_INVALID_ARGUMENT: sampler is ") == one.message);

    /* A message is one line, even if it quotes text with several lines. */
    nuc_sampler_options options = NUC_SAMPLER_OPTIONS_INIT;
    nuc_sampler *sampler = NULL;
    options.plugin_path = "/nowhere/\n\033[31mplugin";
    CHECK_STATUS(NUC_PLUGIN_NOT_FOUND, error, nuc_sampler_create(&options, &sampler, &error));
    CHECK(strstr(one.message, "/nowhere/\\n\\u{1b}[31mplugin") != NULL && strchr(one.message, '\n') == NULL);

    one.count = 0;
    CHECK_STATUS(NUC_OK, error, nuc_set_log(hear, &two, NUC_LOG_INFO, &error));
    nuc_sampler_destroy(make_sampler(plugin, 64), NULL);
    fail();
    CHECK(one.count == 0 && two.count == 0);
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_set_log(hear, &one, 5, &error));
    CHECK_NAMES(error, "level");
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_set_log(hear, &one, -1, &error));
    CHECK_STATUS(NUC_OK, error, nuc_set_log(hear, &two, NUC_LOG_DEBUG, &error));
    fail();
    CHECK(one.count == 0 && two.count == 1);
    CHECK_STATUS(NUC_OK, error, nuc_set_log(NULL, NULL, NUC_LOG_OFF, &error));
    CHECK(standard_error_speaks(program) == 0);
    CHECK(nuc_set_log(NULL, NULL, NUC_LOG_DEBUG, NULL) == NUC_OK);
    CHECK(standard_error_speaks(program) == 1);
    CHECK(one.count == 0 && two.count == 1);
}

int main(int argc, char **argv) {
    CHECK(unsetenv("NUCLEUS_LOG") == 0);
    environment();
    const child_outcome outcome = run_child(closed_pipe, NULL);
    check_child(&outcome, "standard error is a closed pipe");
    set_log(argv[0], argc > 1 ? argv[1] : NULL);
    return report();
}

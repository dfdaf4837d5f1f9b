/* Signals and thread cancellation in a process that uses the library. Each case runs in a child process. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"
#include "child.h"

#include <pthread.h>

enum { ROWS = 8, VOCAB = 50000 };

static float logits[ROWS * VOCAB];

/* `plugin` is null for the built-in backend. */
static nuc_sampler *sampler_with_threads(const char *plugin) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler_options options = options_for(plugin);
    nuc_sampler *sampler = NULL;
    options.num_threads = 3;
    CHECK_STATUS(NUC_OK, error, nuc_sampler_create(&options, &sampler, &error));
    return sampler;
}

static nuc_status sample(nuc_sampler *sampler, const float *values, nuc_error *error) {
    int32_t tokens[ROWS];
    nuc_batch batch = NUC_BATCH_INIT;
    batch.logits = values;
    batch.num_rows = ROWS;
    batch.vocab = VOCAB;
    return nuc_topk_topp_and_sample(sampler, &batch, NULL, tokens, NULL, NULL, error);
}

/* A server creates its sampler, then blocks the signals that it handles, and waits for them in one thread. No thread of
 * the library may receive them. */
static void waits_for_signals(void *plugin) {
    static const int handled[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD};
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler *const sampler = sampler_with_threads(plugin);
    CHECK_STATUS(NUC_OK, error, sample(sampler, logits, &error));
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof handled / sizeof *handled; i++) sigaddset(&set, handled[i]);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    for (size_t i = 0; i < sizeof handled / sizeof *handled; i++) {
        int got = 0;
        CHECK(kill(getpid(), handled[i]) == 0);
        CHECK(sigwait(&set, &got) == 0 && got == handled[i]);
    }
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(sampler, &error));
}

/* The mask of the calling thread is the same before and after a call. */
static void keeps_the_mask(void *plugin) {
    sigset_t before, after;
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &before) == 0);
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler *const sampler = sampler_with_threads(plugin);
    CHECK_STATUS(NUC_OK, error, sample(sampler, logits, &error));
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(sampler, &error));
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &after) == 0);
    for (int number = 1; number <= SIGRTMAX; number++) {
        CHECK(sigismember(&before, number) == sigismember(&after, number));
    }
}

typedef struct cancelled {
    const char *plugin;
    long returned;
} cancelled;

/* Each call returns although a request to cancel the thread is pending. */
static void *calls_of_a_cancelled_thread(void *argument) {
    cancelled *const c = argument;
    nuc_error error = NUC_ERROR_INIT;
    if (pthread_cancel(pthread_self()) != 0) return NULL;
    nuc_sampler *const sampler = sampler_with_threads(c->plugin);
    c->returned++;
    CHECK_STATUS(NUC_OK, error, sample(sampler, logits, &error));
    c->returned++;
    /* The log writes to standard error, which is a cancellation point. */
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, sample(sampler, NULL, &error));
    c->returned++;
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(sampler, &error));
    c->returned++;
    pthread_testcancel();
    return NULL;
}

static void is_cancelled_after_calls(void *plugin) {
    pthread_t thread;
    void *result = NULL;
    cancelled c = {plugin, 0};
    nuc_error error = NUC_ERROR_INIT;
    CHECK_STATUS(NUC_OK, error, nuc_set_log(NULL, NULL, NUC_LOG_DEBUG, &error));
    CHECK(pthread_create(&thread, NULL, calls_of_a_cancelled_thread, &c) == 0);
    CHECK(pthread_join(thread, &result) == 0);
    CHECK(result == PTHREAD_CANCELED && c.returned == 4);
}

int main(int argc, char **argv) {
    static const struct {
        void (*run)(void *);
        const char *name;
    } cases[] = {{waits_for_signals, "waits for signals"},
                 {keeps_the_mask, "keeps the mask"},
                 {is_cancelled_after_calls, "is cancelled after calls"}};
    uint64_t state = 5;
    for (size_t i = 0; i < ROWS * VOCAB; i++) logits[i] = next_float(&state);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const child_outcome outcome = run_child(cases[i].run, argc > 1 ? argv[1] : NULL);
        check_child(&outcome, cases[i].name);
    }
    return report();
}

/* Runs parts of a test in a child process, to check its output and its exit status. Include this after check.h. */
#ifndef CHILD_H
#define CHILD_H

#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct child_outcome {
    int status;          /* from waitpid */
    char errors[4096];   /* its standard error, NUL-terminated */
} child_outcome;

/*
 * Runs `body` in a child process and waits at most two minutes for its exit. The child counts its own checks, and exits
 * with 0 if all of them pass.
 */
static inline child_outcome run_child(void (*body)(void *), void *argument) {
    child_outcome outcome;
    int ends[2];
    memset(&outcome, 0, sizeof outcome);
    outcome.status = -1;
    fflush(NULL);
    if (!CHECK(pipe(ends) == 0)) return outcome;
    const pid_t child = fork();
    if (!CHECK(child >= 0)) return outcome;
    if (child == 0) {
        alarm(120);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        failures = 0;
        body(argument);
        fflush(NULL);
        _exit(failures != 0);
    }
    close(ends[1]);
    size_t used = 0;
    char more[512];
    ssize_t got;
    while ((got = read(ends[0], more, sizeof more)) > 0) {
        for (ssize_t i = 0; i < got; i++) {
            if (used + 1 < sizeof outcome.errors) outcome.errors[used++] = more[i];
        }
    }
    close(ends[0]);
    CHECK(waitpid(child, &outcome.status, 0) == child);
    return outcome;
}

/* Checks that a child exited with 0. Otherwise prints its standard error. */
static inline int check_child(const child_outcome *outcome, const char *name) {
    const int held = CHECK(WIFEXITED(outcome->status) && WEXITSTATUS(outcome->status) == 0);
    if (!held) {
        fprintf(stderr, "    %s: %s %d: %s\n", name, WIFSIGNALED(outcome->status) ? "signal" : "exit status",
                WIFSIGNALED(outcome->status) ? WTERMSIG(outcome->status) : WEXITSTATUS(outcome->status),
                outcome->errors);
    }
    return held;
}

/* Checks that a child exited with 0 and wrote nothing to standard error. */
static inline void check_silent_child(const child_outcome *outcome, const char *name) {
    if (check_child(outcome, name) && !CHECK(outcome->errors[0] == '\0')) {
        fprintf(stderr, "    %s printed: %s\n", name, outcome->errors);
    }
}

#endif

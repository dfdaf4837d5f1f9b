/*
 * A panic inside the library becomes the status NUC_INTERNAL, also in the linked library: the unwind tables survived
 * linking and stripping. The panic is real: Rust's standard library panics if the clock fails, and this program
 * replaces `clock_gettime` with one that can fail. The argument is a plugin, because creating a client reads the clock.
 */
#define _DEFAULT_SOURCE
#include "check.h"

#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static __thread int failing_reads;

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (failing_reads > 0) {
        failing_reads--;
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_clock_gettime, clock, time);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: test_unwind PLUGIN\n");
        return 2;
    }
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler_options options = NUC_SAMPLER_OPTIONS_INIT;
    nuc_sampler *sampler = NULL;
    /* Load the plugin while the clock works. */
    nuc_sampler_destroy(make_sampler(argv[1], 8), NULL);
    options.backend = NUC_BACKEND_PJRT;
    options.plugin_path = argv[1];
    for (int round = 0; round < 3; round++) {
        failing_reads = 1;
        CHECK_STATUS(NUC_INTERNAL, error, nuc_sampler_create(&options, &sampler, &error));
        CHECK(failing_reads == 0);
        failing_reads = 0;
        CHECK_NAMES(error, "internal defect");
    }
    nuc_sampler_destroy(make_sampler(argv[1], 8), NULL);
    return report();
}

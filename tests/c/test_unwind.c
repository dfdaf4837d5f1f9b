/*
 * A panic inside the library becomes the status NUC_INTERNAL. The test shows that linking and stripping keep the
 * unwind tables. The panic is real: Rust's standard library panics if the clock fails, and this program replaces
 * `clock_gettime` by a function that can fail. The argument is a plugin, because a call on a plugin reads the clock.
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
    const float logits[4] = {0, 1, 2, 3};
    int32_t token = 7;
    nuc_error error = NUC_ERROR_INIT;
    nuc_batch batch = NUC_BATCH_INIT;
    nuc_sampler *const sampler = make_sampler(argv[1], 8);
    batch.logits = logits;
    batch.num_rows = 1;
    batch.vocab = 4;
    for (int round = 0; round < 3; round++) {
        failing_reads = 1;
        CHECK_STATUS(NUC_INTERNAL, error,
                     nuc_topk_topp_and_sample(sampler, &batch, NULL, &token, NULL, NULL, &error));
        CHECK(failing_reads == 0);
        failing_reads = 0;
        CHECK_NAMES(error, "internal defect");
        CHECK(token == 7);
    }
    CHECK_STATUS(NUC_OK, error, nuc_topk_topp_and_sample(sampler, &batch, NULL, &token, NULL, NULL, &error));
    CHECK(token >= 0 && token < 4);
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(sampler, &error));
    return report();
}

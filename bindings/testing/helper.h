/* Functions for the tests of the bindings: PJRT buffers, and the time of calls from C. */
#ifndef NUCLEUS_TEST_HELPER_H
#define NUCLEUS_TEST_HELPER_H

#include <nucleus.h>

/* Copies logits `[num_rows, vocab]` to the first device of a client, and returns the PJRT_Buffer. Null: the plugin
 * failed. */
void *nucleus_test_upload(const void *api, void *client, const void *logits, nuc_dtype dtype, int64_t num_rows,
                          int64_t vocab);

/* Copies a buffer of `size` bytes to `bytes`. Returns 0 if the plugin failed. */
int32_t nucleus_test_download(const void *api, void *buffer, void *bytes, size_t size);

/* Destroys a buffer. Returns 0 if the plugin failed. */
int32_t nucleus_test_destroy(const void *api, void *buffer);

/* The mean time of a call of nuc_sample_flat in nanoseconds, for one row with k = 50 and p = 0.9. -1: a call failed. */
double nucleus_test_call_time(const nuc_sampler *sampler, const float *logits, size_t vocab, int32_t calls);

#endif

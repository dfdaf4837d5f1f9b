#define _POSIX_C_SOURCE 200112L
#include "helper.h"

#include <string.h>
#include <time.h>
#include <xla/pjrt/c/pjrt_c_api.h>

/* Returns whether a PJRT call succeeded, and frees its error. */
static int good(const PJRT_Api *api, PJRT_Error *error) {
    PJRT_Error_Destroy_Args args = {PJRT_Error_Destroy_Args_STRUCT_SIZE, NULL, error};
    if (error == NULL) return 1;
    api->PJRT_Error_Destroy(&args);
    return 0;
}

static int await(const PJRT_Api *api, PJRT_Event *event) {
    PJRT_Event_Await_Args wait = {PJRT_Event_Await_Args_STRUCT_SIZE, NULL, event};
    PJRT_Event_Destroy_Args destroy = {PJRT_Event_Destroy_Args_STRUCT_SIZE, NULL, event};
    int ready = good(api, api->PJRT_Event_Await(&wait));
    return good(api, api->PJRT_Event_Destroy(&destroy)) && ready;
}

void *nucleus_test_upload(const void *api_table, void *client, const void *logits, nuc_dtype dtype, int64_t num_rows,
                          int64_t vocab) {
    static const PJRT_Buffer_Type types[] = {PJRT_Buffer_Type_F32, PJRT_Buffer_Type_BF16, PJRT_Buffer_Type_F16};
    const PJRT_Api *api = api_table;
    const int64_t dims[2] = {num_rows, vocab};
    PJRT_Client_AddressableDevices_Args devices;
    PJRT_Client_BufferFromHostBuffer_Args args;
    memset(&devices, 0, sizeof devices);
    memset(&args, 0, sizeof args);
    devices.struct_size = PJRT_Client_AddressableDevices_Args_STRUCT_SIZE;
    devices.client = client;
    if (!good(api, api->PJRT_Client_AddressableDevices(&devices))) return NULL;
    args.struct_size = PJRT_Client_BufferFromHostBuffer_Args_STRUCT_SIZE;
    args.client = client;
    args.data = logits;
    args.type = types[dtype];
    args.dims = dims;
    args.num_dims = 2;
    args.host_buffer_semantics = PJRT_HostBufferSemantics_kImmutableUntilTransferCompletes;
    args.device = devices.addressable_devices[0];
    if (!good(api, api->PJRT_Client_BufferFromHostBuffer(&args))) return NULL;
    return await(api, args.done_with_host_buffer) ? args.buffer : NULL;
}

int32_t nucleus_test_download(const void *api_table, void *buffer, void *bytes, size_t size) {
    const PJRT_Api *api = api_table;
    PJRT_Buffer_ToHostBuffer_Args args;
    memset(&args, 0, sizeof args);
    args.struct_size = PJRT_Buffer_ToHostBuffer_Args_STRUCT_SIZE;
    args.src = buffer;
    args.dst = bytes;
    args.dst_size = size;
    return good(api, api->PJRT_Buffer_ToHostBuffer(&args)) && await(api, args.event);
}

int32_t nucleus_test_destroy(const void *api_table, void *buffer) {
    const PJRT_Api *api = api_table;
    PJRT_Buffer_Destroy_Args args = {PJRT_Buffer_Destroy_Args_STRUCT_SIZE, NULL, buffer};
    return good(api, api->PJRT_Buffer_Destroy(&args));
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

double nucleus_test_call_time(const nuc_sampler *sampler, const float *logits, size_t vocab, int32_t calls) {
    const int32_t top_k = 50;
    const float top_p = 0.9f;
    nuc_error error = NUC_ERROR_INIT;
    int32_t token;
    const double start = now();
    for (int32_t i = 0; i < calls; i++) {
        const uint64_t offset = (uint64_t)i;
        if (nuc_sample_flat(sampler, NUC_PATH_AUTO, logits, NUC_DTYPE_F32, 1, vocab, 0, &top_k, &top_p, NULL, NULL,
                            NULL, NULL, &offset, 0, &token, NULL, &error) != NUC_OK) {
            return -1.0;
        }
    }
    return (now() - start) / calls;
}

/* Samples logits on a device. The program creates the buffers with the PJRT C API, on its own client and on the
 * sampler's client. Without a plugin, it tests the errors of the built-in backend, and the programs of nuc_emit. */
#define _POSIX_C_SOURCE 200112L
#include "check.h"
#include "child.h"

#include <dlfcn.h>
#include <pthread.h>
#include <xla/pjrt/c/pjrt_c_api.h>

enum { ROWS = 3, VOCAB = 50, MAX_K = 8, STEPS = 4 };

static float logits[ROWS * VOCAB];
static const int32_t top_k[ROWS] = {3, 0, 40};
static const float top_p[ROWS] = {0.9f, 0.5f, 1.0f}, temperature[ROWS] = {1.0f, 0.0f, 2.0f};
static const uint64_t seed[ROWS] = {1, 2, UINT64_MAX};

/* Ends the program if a PJRT call fails. */
static void must(const PJRT_Api *api, PJRT_Error *error) {
    if (CHECK(error == NULL)) return;
    PJRT_Error_Message_Args message = {PJRT_Error_Message_Args_STRUCT_SIZE, NULL, error, NULL, 0};
    api->PJRT_Error_Message(&message);
    fprintf(stderr, "    %.*s\n", (int)message.message_size, message.message);
    exit(report());
}

static void await(const PJRT_Api *api, PJRT_Event *event) {
    PJRT_Event_Await_Args wait = {PJRT_Event_Await_Args_STRUCT_SIZE, NULL, event};
    PJRT_Event_Destroy_Args destroy = {PJRT_Event_Destroy_Args_STRUCT_SIZE, NULL, event};
    must(api, api->PJRT_Event_Await(&wait));
    must(api, api->PJRT_Event_Destroy(&destroy));
}

/* Copies the logits to the client's first device. */
static PJRT_Buffer *upload(const PJRT_Api *api, PJRT_Client *client) {
    static const int64_t dims[2] = {ROWS, VOCAB};
    PJRT_Client_AddressableDevices_Args devices;
    PJRT_Client_BufferFromHostBuffer_Args args;
    memset(&devices, 0, sizeof devices);
    memset(&args, 0, sizeof args);
    devices.struct_size = PJRT_Client_AddressableDevices_Args_STRUCT_SIZE;
    devices.client = client;
    must(api, api->PJRT_Client_AddressableDevices(&devices));
    args.struct_size = PJRT_Client_BufferFromHostBuffer_Args_STRUCT_SIZE;
    args.client = client;
    args.data = logits;
    args.type = PJRT_Buffer_Type_F32;
    args.dims = dims;
    args.num_dims = 2;
    args.host_buffer_semantics = PJRT_HostBufferSemantics_kImmutableUntilTransferCompletes;
    args.device = devices.addressable_devices[0];
    must(api, api->PJRT_Client_BufferFromHostBuffer(&args));
    await(api, args.done_with_host_buffer);
    return args.buffer;
}

static void download(const PJRT_Api *api, PJRT_Buffer *buffer, void *bytes, size_t size) {
    PJRT_Buffer_ToHostBuffer_Args args;
    memset(&args, 0, sizeof args);
    args.struct_size = PJRT_Buffer_ToHostBuffer_Args_STRUCT_SIZE;
    args.src = buffer;
    args.dst = bytes;
    args.dst_size = size;
    must(api, api->PJRT_Buffer_ToHostBuffer(&args));
    await(api, args.event);
}

static void destroy_buffer(const PJRT_Api *api, PJRT_Buffer *buffer) {
    PJRT_Buffer_Destroy_Args args = {PJRT_Buffer_Destroy_Args_STRUCT_SIZE, NULL, buffer};
    must(api, api->PJRT_Buffer_Destroy(&args));
}

/* The tokens of a host call on the built-in backend, at a step. */
static void host_tokens(const nuc_sampler *builtin, uint64_t step, int32_t *tokens) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_batch batch = NUC_BATCH_INIT;
    uint64_t offset[ROWS];
    for (int row = 0; row < ROWS; row++) offset[row] = step;
    batch.logits = logits;
    batch.num_rows = ROWS;
    batch.vocab = VOCAB;
    batch.top_k = top_k;
    batch.top_p = top_p;
    batch.temperature = temperature;
    batch.seed = seed;
    batch.offset = offset;
    CHECK_STATUS(NUC_OK, error, nuc_topk_topp_and_sample(builtin, &batch, NULL, tokens, NULL, NULL, &error));
}

static nuc_parameters *make_parameters(const nuc_sampler *sampler) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_parameters_options options = NUC_PARAMETERS_OPTIONS_INIT;
    nuc_parameters *parameters = NULL;
    options.num_rows = ROWS;
    options.vocab = VOCAB;
    if (!CHECK_STATUS(NUC_OK, error, nuc_parameters_create(sampler, &options, &parameters, &error))) exit(report());
    for (size_t row = 0; row < ROWS; row++) {
        nuc_row_parameters values = NUC_ROW_PARAMETERS_INIT;
        values.top_k = top_k[row];
        values.use_top_p = 1;
        values.top_p = top_p[row];
        values.use_temperature = 1;
        values.temperature = temperature[row];
        values.seed = seed[row];
        CHECK_STATUS(NUC_OK, error, nuc_parameters_set(parameters, row, &values, &error));
    }
    return parameters;
}

/* Counts the calls that have ended. Callbacks run on threads of the plugin. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static void count_end(void *user) {
    pthread_mutex_lock(&mutex);
    ++*(int *)user;
    pthread_mutex_unlock(&mutex);
}

/* Several calls run at the same time. Their tokens, and the tokens in their buffers, equal those of the host. */
static void samples(const nuc_sampler *sampler, const nuc_sampler *builtin, nuc_parameters *parameters,
                    const PJRT_Api *api, PJRT_Buffer *buffer) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_call *calls[STEPS];
    int32_t tokens[ROWS], want[ROWS], on_device[ROWS], done = 0;
    uint32_t status[ROWS];
    int ended = 0;
    for (uint64_t step = 0; step < STEPS; step++) {
        CHECK_STATUS(NUC_OK, error, nuc_sample_start(sampler, NUC_PATH_AUTO, buffer, parameters, step, NULL,
                                                     &calls[step], &error));
        CHECK_STATUS(NUC_OK, error, nuc_call_on_done(calls[step], count_end, &ended, &error));
    }
    for (uint64_t step = 0; step < STEPS; step++) {
        void *taken = NULL;
        host_tokens(builtin, step, want);
        CHECK_STATUS(NUC_OK, error, nuc_call_wait(calls[step], UINT64_MAX, &error));
        CHECK_STATUS(NUC_OK, error, nuc_call_is_done(calls[step], &done, &error));
        CHECK(done == 1);
        CHECK_STATUS(NUC_OK, error, nuc_call_get_tokens(calls[step], tokens, NULL, &error));
        CHECK(memcmp(tokens, want, sizeof want) == 0);
        CHECK_STATUS(NUC_OK, error, nuc_call_take_buffer(calls[step], NUC_BUFFER_TOKENS, &taken, &error));
        CHECK_STATUS(NUC_OK, error, nuc_call_destroy(calls[step], &error));
        download(api, (PJRT_Buffer *)taken, on_device, sizeof on_device);
        CHECK(memcmp(on_device, want, sizeof want) == 0);
        destroy_buffer(api, (PJRT_Buffer *)taken);
    }
    CHECK(ended == STEPS);
    CHECK_STATUS(NUC_OK, error, nuc_sample_on_device(sampler, NUC_PATH_AUTO, buffer, parameters, STEPS - 1, tokens,
                                                     status, &error));
    CHECK(memcmp(tokens, want, sizeof want) == 0 && status[0] == 0);
    /* A call can be destroyed while it runs. */
    CHECK_STATUS(NUC_OK, error,
                 nuc_sample_start(sampler, NUC_PATH_AUTO, buffer, parameters, 0, NULL, &calls[0], &error));
    CHECK_STATUS(NUC_OK, error, nuc_call_destroy(calls[0], &error));
}

/* On request, a call takes the contents of the logits. The program still destroys the buffer. */
static void donates(const nuc_sampler *sampler, const nuc_sampler *builtin, const nuc_parameters *parameters,
                    const PJRT_Api *api, PJRT_Client *client) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_start_options options = NUC_START_OPTIONS_INIT;
    nuc_call *call = NULL;
    int32_t tokens[ROWS], want[ROWS];
    PJRT_Buffer *const buffer = upload(api, client);
    PJRT_Buffer_IsDeleted_Args deleted = {PJRT_Buffer_IsDeleted_Args_STRUCT_SIZE, NULL, buffer, false};
    options.donate_logits = 2;
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error,
                 nuc_sample_start(sampler, NUC_PATH_AUTO, buffer, parameters, 1, &options, &call, &error));
    CHECK_ARGUMENT(error, "donate_logits");
    must(api, api->PJRT_Buffer_IsDeleted(&deleted));
    CHECK(!deleted.is_deleted);
    options.donate_logits = 1;
    CHECK_STATUS(NUC_OK, error,
                 nuc_sample_start(sampler, NUC_PATH_AUTO, buffer, parameters, 1, &options, &call, &error));
    must(api, api->PJRT_Buffer_IsDeleted(&deleted));
    CHECK(deleted.is_deleted);
    host_tokens(builtin, 1, want);
    CHECK_STATUS(NUC_OK, error, nuc_call_get_tokens(call, tokens, NULL, &error));
    CHECK(memcmp(tokens, want, sizeof want) == 0);
    CHECK_STATUS(NUC_OK, error, nuc_call_destroy(call, &error));
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error,
                 nuc_sample_start(sampler, NUC_PATH_AUTO, buffer, parameters, 2, NULL, &call, &error));
    CHECK_ARGUMENT(error, "logits");
    CHECK_NAMES(error, "deleted or donated");
    destroy_buffer(api, buffer);
}

/* A decode loop without its own thread: the callback of each call starts the next call. */
typedef struct chain {
    const nuc_sampler *sampler;
    const nuc_parameters *parameters;
    PJRT_Buffer *buffer;
    nuc_call *calls[STEPS];
    nuc_status statuses[STEPS];
    uint64_t ended;
    pthread_cond_t changed;
} chain;

static void start_next(void *user);

static void start_link(chain *links, uint64_t step) {
    nuc_status status = nuc_sample_start(links->sampler, NUC_PATH_AUTO, links->buffer, links->parameters, step, NULL,
                                         &links->calls[step], NULL);
    links->statuses[step] = status;
    if (status == NUC_OK) status = nuc_call_on_done(links->calls[step], start_next, links, NULL);
    links->statuses[step] = status;
}

static void start_next(void *user) {
    chain *const links = (chain *)user;
    pthread_mutex_lock(&mutex);
    const uint64_t step = ++links->ended;
    pthread_mutex_unlock(&mutex);
    if (step < STEPS) start_link(links, step);
    pthread_mutex_lock(&mutex);
    pthread_cond_signal(&links->changed);
    pthread_mutex_unlock(&mutex);
}

static void callbacks_start_calls(const nuc_sampler *sampler, const nuc_sampler *builtin,
                                  const nuc_parameters *parameters, PJRT_Buffer *buffer) {
    nuc_error error = NUC_ERROR_INIT;
    chain links = {sampler, parameters, buffer, {NULL}, {0}, 0, PTHREAD_COND_INITIALIZER};
    int32_t tokens[ROWS], want[ROWS];
    start_link(&links, 0);
    pthread_mutex_lock(&mutex);
    while (links.ended < STEPS) pthread_cond_wait(&links.changed, &mutex);
    pthread_mutex_unlock(&mutex);
    for (uint64_t step = 0; step < STEPS; step++) {
        if (!CHECK(links.statuses[step] == NUC_OK)) exit(report());
        host_tokens(builtin, step, want);
        CHECK_STATUS(NUC_OK, error, nuc_call_get_tokens(links.calls[step], tokens, NULL, &error));
        CHECK(memcmp(tokens, want, sizeof want) == 0);
    }
    /* When a call is destroyed, its callback has returned. So nothing uses the chain after this loop. */
    for (uint64_t step = 0; step < STEPS; step++) CHECK(nuc_call_destroy(links.calls[step], NULL) == NUC_OK);
    pthread_cond_destroy(&links.changed);
}

typedef struct objects {
    nuc_sampler *sampler;
    nuc_parameters *parameters;
    nuc_call *call;
    PJRT_Buffer *buffer;
} objects;

/* In a child after fork every call is refused, and destroying does nothing. */
static void use_after_fork(void *argument) {
    const objects *const parent = (const objects *)argument;
    nuc_error error = NUC_ERROR_INIT;
    nuc_row_parameters values = NUC_ROW_PARAMETERS_INIT;
    nuc_call *call = NULL;
    int32_t tokens[ROWS];
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_parameters_set(parent->parameters, 0, &values, &error));
    CHECK_NAMES(error, "fork");
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sample_start(parent->sampler, NUC_PATH_AUTO, parent->buffer,
                                                               parent->parameters, 0, NULL, &call, &error));
    CHECK_NAMES(error, "fork");
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_call_get_tokens(parent->call, tokens, NULL, &error));
    CHECK_NAMES(error, "fork");
    CHECK_STATUS(NUC_OK, error, nuc_call_destroy(parent->call, &error));
    CHECK_STATUS(NUC_OK, error, nuc_parameters_destroy(parent->parameters, &error));
}

/* Samples with a sampler, and destroys it. */
static void use(nuc_sampler *sampler, const nuc_sampler *builtin, const PJRT_Api *api, PJRT_Client *client) {
    nuc_error error = NUC_ERROR_INIT;
    objects all = {sampler, make_parameters(sampler), NULL, upload(api, client)};
    samples(sampler, builtin, all.parameters, api, all.buffer);
    callbacks_start_calls(sampler, builtin, all.parameters, all.buffer);
    donates(sampler, builtin, all.parameters, api, client);
    CHECK_STATUS(NUC_OK, error, nuc_sample_start(sampler, NUC_PATH_AUTO, all.buffer, all.parameters, 0, NULL, &all.call,
                                                 &error));
    CHECK_STATUS(NUC_OK, error, nuc_call_wait(all.call, UINT64_MAX, &error));
    const child_outcome outcome = run_child(use_after_fork, &all);
    check_silent_child(&outcome, "the child after fork");

    /* The call remains valid without its logits, its parameters and its sampler. */
    int32_t tokens[ROWS], want[ROWS];
    host_tokens(builtin, 0, want);
    destroy_buffer(api, all.buffer);
    CHECK_STATUS(NUC_OK, error, nuc_parameters_destroy(all.parameters, &error));
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(sampler, &error));
    CHECK_STATUS(NUC_OK, error, nuc_call_get_tokens(all.call, tokens, NULL, &error));
    CHECK(memcmp(tokens, want, sizeof want) == 0);
    CHECK_STATUS(NUC_OK, error, nuc_call_destroy(all.call, &error));
}

/* Loads the plugin as a program does that has its own client. */
static const PJRT_Api *load(const char *plugin) {
    void *const library = dlopen(plugin, RTLD_NOW | RTLD_LOCAL);
    if (!CHECK(library != NULL)) exit(report());
    const PJRT_Api *(*get_api)(void) = NULL;
    void *const symbol = dlsym(library, "GetPjrtApi");
    memcpy(&get_api, &symbol, sizeof symbol);
    const PJRT_Api *const api = get_api();
    PJRT_Plugin_Initialize_Args args = {PJRT_Plugin_Initialize_Args_STRUCT_SIZE, NULL};
    must(api, api->PJRT_Plugin_Initialize(&args));
    return api;
}

static void on_plugin(const char *plugin, const nuc_sampler *builtin) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler_options options = NUC_SAMPLER_OPTIONS_INIT;
    nuc_sampler_info info = NUC_SAMPLER_INFO_INIT;
    nuc_sampler *sampler = NULL;
    /* The plugin's struct can be longer than that of this older header. Zeroes mean that nothing is set. */
    union {
        PJRT_Client_Create_Args args;
        char room[256];
    } create;
    const PJRT_Api *const api = load(plugin);
    memset(&create, 0, sizeof create);
    create.args.struct_size = sizeof create;
    must(api, api->PJRT_Client_Create(&create.args));
    options.pjrt_api = api;
    options.pjrt_client = create.args.client;
    options.max_k = MAX_K;
    if (!CHECK_STATUS(NUC_OK, error, nuc_sampler_create(&options, &sampler, &error))) exit(report());
    CHECK_STATUS(NUC_OK, error, nuc_sampler_get_info(sampler, &info, &error));
    CHECK(info.pjrt_api == api && info.pjrt_client == create.args.client);
    use(sampler, builtin, api, create.args.client);
    /* The client is still alive. Only the program may destroy it. */
    destroy_buffer(api, upload(api, create.args.client));
    PJRT_Client_Destroy_Args destroy = {PJRT_Client_Destroy_Args_STRUCT_SIZE, NULL, create.args.client};
    must(api, api->PJRT_Client_Destroy(&destroy));

    /* The sampler creates the client, and the program borrows it. */
    sampler = make_sampler(plugin, MAX_K);
    CHECK_STATUS(NUC_OK, error, nuc_sampler_get_info(sampler, &info, &error));
    CHECK(info.pjrt_api == api && info.pjrt_client != NULL);
    use(sampler, builtin, api, (PJRT_Client *)info.pjrt_client);
}

static void without_a_device(const nuc_sampler *builtin) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler_info info = NUC_SAMPLER_INFO_INIT;
    nuc_parameters_options options = NUC_PARAMETERS_OPTIONS_INIT;
    nuc_parameters *parameters = NULL;
    options.num_rows = ROWS;
    options.vocab = VOCAB;
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_parameters_create(builtin, &options, &parameters, &error));
    CHECK_ARGUMENT(error, "sampler");
    CHECK(parameters == NULL);
    CHECK_STATUS(NUC_OK, error, nuc_sampler_get_info(builtin, &info, &error));
    CHECK(info.pjrt_api == NULL && info.pjrt_client == NULL);
}

/* The text of a function and its parameters need no device. */
static void embeds(void) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_emit_options options = NUC_EMIT_OPTIONS_INIT;
    nuc_batch batch = NUC_BATCH_INIT;
    int32_t parameters[ROWS * NUC_PARAMETER_COLUMNS];
    size_t length = 0, again = 0;
    options.num_rows = ROWS;
    options.vocab = VOCAB;
    CHECK_STATUS(NUC_OK, error, nuc_emit(&options, NULL, 0, &length, &error));
    char *const text = (char *)malloc(length + 1);
    if (!CHECK(text != NULL)) return;
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_emit(&options, text, length, &again, &error));
    CHECK_ARGUMENT(error, "text_size");
    CHECK_STATUS(NUC_OK, error, nuc_emit(&options, text, length + 1, &again, &error));
    CHECK(again == length && strlen(text) == length && strstr(text, "@nucleus_sample(") != NULL);
    free(text);
    batch.num_rows = ROWS;
    batch.vocab = VOCAB;
    batch.top_k = top_k;
    batch.seed = seed;
    memset(parameters, 0x5a, sizeof parameters);
    CHECK_STATUS(NUC_OK, error, nuc_pack_parameters(&options, &batch, NULL, parameters, &error));
    for (int row = 0; row < ROWS; row++) CHECK(parameters[row * (int)NUC_PARAMETER_COLUMNS] == top_k[row]);
}

int main(int argc, char **argv) {
    uint64_t state = 3;
    for (int i = 0; i < ROWS * VOCAB; i++) logits[i] = 6 * next_float(&state);
    nuc_sampler *const builtin = make_sampler(NULL, MAX_K);
    without_a_device(builtin);
    embeds();
    if (argc > 1) on_plugin(argv[1], builtin);
    nuc_sampler_destroy(builtin, NULL);
    return report();
}

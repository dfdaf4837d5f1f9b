// Logits on a device through nucleus.hpp. The argument is a PJRT plugin. The program uploads the logits with the PJRT C
// API, on the client of the sampler.
#include "check.hpp"

#include <atomic>
#include <cstdlib>
#include <memory>
#include <vector>

#include <xla/pjrt/c/pjrt_c_api.h>

namespace {

constexpr std::size_t rows = 3, vocab = 50, max_k = 8;
const std::vector<std::int32_t> top_k{3, 0, 40};
const std::vector<float> top_p{0.9f, 0.5f, 1.0f}, temperature{1.0f, 0.0f, 2.0f};
const std::vector<std::uint64_t> seed{1, 2, UINT64_MAX};

std::vector<float> make_logits() {
    std::vector<float> logits;
    for (std::size_t i = 0; i < rows * vocab; i++) logits.push_back(static_cast<float>(i * 7919 % 101) / 10.0f);
    return logits;
}
const std::vector<float> logits = make_logits();

// The client of a sampler. It ends the program if a PJRT call fails.
class Client {
public:
    explicit Client(const nucleus::sampler_info &info)
        : api_(static_cast<const PJRT_Api *>(info.pjrt_api)), client_(static_cast<PJRT_Client *>(info.pjrt_client)) {}

    PJRT_Buffer *upload() const {
        PJRT_Client_AddressableDevices_Args devices{};
        devices.struct_size = PJRT_Client_AddressableDevices_Args_STRUCT_SIZE;
        devices.client = client_;
        must(api_->PJRT_Client_AddressableDevices(&devices));
        const std::int64_t dims[2] = {rows, vocab};
        PJRT_Client_BufferFromHostBuffer_Args args{};
        args.struct_size = PJRT_Client_BufferFromHostBuffer_Args_STRUCT_SIZE;
        args.client = client_;
        args.data = logits.data();
        args.type = PJRT_Buffer_Type_F32;
        args.dims = dims;
        args.num_dims = 2;
        args.host_buffer_semantics = PJRT_HostBufferSemantics_kImmutableUntilTransferCompletes;
        args.device = devices.addressable_devices[0];
        must(api_->PJRT_Client_BufferFromHostBuffer(&args));
        await(args.done_with_host_buffer);
        return args.buffer;
    }

    template <class Element>
    std::vector<Element> download(void *buffer, std::size_t size) const {
        std::vector<Element> elements(size);
        PJRT_Buffer_ToHostBuffer_Args args{};
        args.struct_size = PJRT_Buffer_ToHostBuffer_Args_STRUCT_SIZE;
        args.src = static_cast<PJRT_Buffer *>(buffer);
        args.dst = elements.data();
        args.dst_size = size * sizeof(Element);
        must(api_->PJRT_Buffer_ToHostBuffer(&args));
        await(args.event);
        return elements;
    }

    void destroy(void *buffer) const {
        PJRT_Buffer_Destroy_Args args{};
        args.struct_size = PJRT_Buffer_Destroy_Args_STRUCT_SIZE;
        args.buffer = static_cast<PJRT_Buffer *>(buffer);
        must(api_->PJRT_Buffer_Destroy(&args));
    }

    bool is_deleted(void *buffer) const {
        PJRT_Buffer_IsDeleted_Args args{};
        args.struct_size = PJRT_Buffer_IsDeleted_Args_STRUCT_SIZE;
        args.buffer = static_cast<PJRT_Buffer *>(buffer);
        must(api_->PJRT_Buffer_IsDeleted(&args));
        return args.is_deleted;
    }

private:
    void await(PJRT_Event *event) const {
        PJRT_Event_Await_Args wait{};
        wait.struct_size = PJRT_Event_Await_Args_STRUCT_SIZE;
        wait.event = event;
        must(api_->PJRT_Event_Await(&wait));
        PJRT_Event_Destroy_Args destroy_args{};
        destroy_args.struct_size = PJRT_Event_Destroy_Args_STRUCT_SIZE;
        destroy_args.event = event;
        must(api_->PJRT_Event_Destroy(&destroy_args));
    }

    static void must(const PJRT_Error *error) {
        if (!CHECK(error == nullptr)) std::exit(report());
    }

    const PJRT_Api *api_;
    PJRT_Client *client_;
};

// The tokens and the debug arrays of a host call on the built-in backend, at a step.
struct Wanted {
    std::vector<std::int32_t> tokens = std::vector<std::int32_t>(rows), greedy = tokens, next = tokens;
    std::vector<std::uint32_t> status = std::vector<std::uint32_t>(rows), high = status, low = status;
    std::vector<std::int32_t> weights = std::vector<std::int32_t>(rows * vocab);

    explicit Wanted(std::uint64_t step) {
        nucleus::sampler_options options;
        options.backend = nucleus::backend::builtin;
        options.max_k = max_k;
        const std::vector<std::uint64_t> offset(rows, step);
        nucleus::batch batch;
        batch.logits = nucleus::logits_view::f32(logits, rows, vocab);
        batch.top_k = top_k;
        batch.top_p = top_p;
        batch.temperature = temperature;
        batch.seed = seed;
        batch.offset = offset;
        nucleus::debug_arrays debug;
        debug.greedy_sampled = greedy;
        debug.next_tokens = next;
        debug.random_unnorm_cdf_sampled_high = high;
        debug.random_unnorm_cdf_sampled_low = low;
        debug.topk_topp_unnorm_probs_i32_unsorted = weights;
        nucleus::sampler::create(options).sample(batch, tokens, status, {}, &debug);
    }
};

nucleus::row_parameters row_values(std::size_t row) {
    nucleus::row_parameters values;
    values.top_k = top_k[row];
    values.top_p = top_p[row];
    values.temperature = temperature[row];
    values.seed = seed[row];
    return values;
}

nucleus::parameters make_parameters(const nucleus::sampler &sampler) {
    nucleus::parameters_options options;
    options.num_rows = rows;
    options.vocab = vocab;
    nucleus::parameters parameters = sampler.create_parameters(options);
    CHECK(parameters.num_rows() == rows);
    for (std::size_t row = 0; row < rows; row++) parameters.set(row, row_values(row));
    CHECK_FAILURE(invalid_argument, "row", parameters.try_set(rows, {}));
    return parameters;
}

// Calls that run at the same time, with callbacks.
void starts_calls(const nucleus::sampler &sampler, const nucleus::parameters &parameters, const Client &client,
                  PJRT_Buffer *buffer) {
    std::atomic<int> ended{0};
    // The library destroys its copies of a callback, and with them their references to this object.
    auto shared = std::make_shared<int>(0);
    std::vector<nucleus::call> calls;
    for (std::uint64_t step = 0; step < 4; step++) {
        calls.push_back(sampler.start(nucleus::path::automatic, buffer, parameters, step));
        calls.back().on_done([&ended, shared] { ended++; });
    }
    for (std::uint64_t step = 0; step < 4; step++) {
        nucleus::call &call = calls[step];
        call.wait();
        CHECK(call.is_done() && call.wait_for(std::chrono::milliseconds(0)) && call.num_rows() == rows);
        std::vector<std::int32_t> tokens(rows, 77), few(rows - 1);
        std::vector<std::uint32_t> status(rows);
        const Wanted wanted(step);
        call.get_tokens(tokens);
        CHECK(tokens == wanted.tokens);
        CHECK_FAILURE(invalid_argument, "tokens", call.try_get_tokens(few));
        // The call did not copy the statuses to the host.
        CHECK_FAILURE(invalid_argument, nullptr, call.try_get_tokens(tokens, status));
        void *const taken = call.take_buffer(nucleus::buffer::tokens);
        CHECK_FAILURE(invalid_argument, nullptr, call.try_take_buffer(nucleus::buffer::tokens));
        CHECK(call.close());
        CHECK(client.download<std::int32_t>(taken, rows) == wanted.tokens);
        client.destroy(taken);
    }
    CHECK(ended == 4 && shared.use_count() == 1);

    // The destructor waits for a call that runs, and for its callbacks.
    {
        const nucleus::call running = sampler.start(nucleus::path::automatic, buffer, parameters, 0);
        running.on_done([&ended] { ended++; });
    }
    CHECK(ended == 5);

    // A callback must not destroy objects. The handle keeps its object and can be closed later.
    nucleus::sampler other = nucleus::sampler::create();
    nucleus::call ended_call = sampler.start(nucleus::path::automatic, buffer, parameters, 0);
    ended_call.wait();
    ended_call.on_done([&other] {
        CHECK_FAILURE(invalid_argument, nullptr, other.close());
        CHECK(other);
    });
    CHECK(other.close() && !other);

    std::vector<std::int32_t> tokens(rows, 77);
    std::vector<std::uint32_t> status(rows, 77);
    sampler.sample_on_device(nucleus::path::arbitrary, buffer, parameters, 2, tokens, status);
    CHECK(tokens == Wanted(2).tokens && status == Wanted(2).status);
    CHECK_FAILURE(invalid_argument, "tokens",
                  sampler.try_sample_on_device(nucleus::path::arbitrary, buffer, parameters, 2, {}));
    CHECK_FAILURE(invalid_argument, "path",
                  sampler.try_start(static_cast<nucleus::path>(9), buffer, parameters, 2));
}

void reads_every_result(const nucleus::sampler &sampler, const nucleus::parameters &parameters, const Client &client,
                        PJRT_Buffer *buffer) {
    const Wanted wanted(1);
    nucleus::start_options options;
    options.host_numbers = nucleus::host_numbers::all;
    options.debug_arrays = nucleus::debug_topk_topp_probs;
    nucleus::call call = sampler.start(nucleus::path::automatic, buffer, parameters, 1, options);
    std::vector<std::int32_t> tokens(rows, 77), greedy(rows, 77), next(rows, 77);
    std::vector<std::uint32_t> status(rows, 77), high(rows, 77), low(rows, 77);
    call.get_tokens(tokens, status);
    CHECK(tokens == wanted.tokens && status == wanted.status);
    nucleus::debug_arrays numbers;
    numbers.greedy_sampled = greedy;
    numbers.next_tokens = next;
    numbers.random_unnorm_cdf_sampled_high = high;
    numbers.random_unnorm_cdf_sampled_low = low;
    call.get_numbers(numbers);
    CHECK(greedy == wanted.greedy && next == wanted.next && high == wanted.high && low == wanted.low);
    void *const taken = call.take_buffer(nucleus::buffer::topk_topp_probs);
    CHECK(client.download<std::int32_t>(taken, rows * vocab) == wanted.weights);
    client.destroy(taken);
    std::vector<std::int32_t> few(rows - 1);
    numbers.next_tokens = few;
    CHECK_FAILURE(invalid_argument, "next_tokens", call.try_get_numbers(numbers));
    numbers.next_tokens = {};
    numbers.topk_indices_k = few;
    CHECK_FAILURE(invalid_argument, "topk_indices_k", call.try_get_numbers(numbers));

    options = {};
    options.donate_logits = true;
    PJRT_Buffer *const donated = client.upload();
    sampler.start(nucleus::path::automatic, donated, parameters, 1, options).get_tokens(tokens);
    CHECK(tokens == wanted.tokens && client.is_deleted(donated));
    client.destroy(donated);
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: test_device PLUGIN\n");
        return 2;
    }
    try {
        nucleus::sampler_options options;
        options.backend = nucleus::backend::pjrt;
        options.plugin_path = argv[1];
        options.max_k = max_k;
        nucleus::sampler sampler = nucleus::sampler::create(options);
        const Client client(sampler.info());
        nucleus::parameters parameters = make_parameters(sampler);
        PJRT_Buffer *const buffer = client.upload();

        nucleus::prewarm_spec spec;
        spec.num_rows = rows;
        spec.vocab = vocab;
        spec.logits = nucleus::logits_place::device;
        spec.host_numbers = nucleus::host_numbers::all;
        sampler.prewarm(spec);
        CHECK(sampler.stats().compiles > 0);

        starts_calls(sampler, parameters, client, buffer);
        reads_every_result(sampler, parameters, client, buffer);

        // Another sampler can use the client of this one.
        nucleus::sampler_options shared;
        shared.pjrt_api = sampler.info().pjrt_api;
        shared.pjrt_client = sampler.info().pjrt_client;
        CHECK(nucleus::sampler::create(shared).info().pjrt_client == shared.pjrt_client);

        // Handles can be destroyed in any order. The call and the parameters keep the client alive.
        nucleus::call last = sampler.start(nucleus::path::automatic, buffer, parameters, 3);
        client.destroy(buffer);
        CHECK(sampler.close() && parameters.close());
        std::vector<std::int32_t> tokens(rows);
        last.get_tokens(tokens);
        CHECK(tokens == Wanted(3).tokens);
        CHECK(last.close());
    } catch (const std::exception &error) {
        const bool no_exception = false;
        CHECK(no_exception);
        std::fprintf(stderr, "    %s\n", error.what());
    }
    return report();
}

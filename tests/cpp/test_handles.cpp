// Handles: an object is destroyed exactly once, by its last owner. Calls with an empty handle fail and do nothing else.
// Views and results have the conversions that programs need, and no others.
#include "check.hpp"

#include <array>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>
#if __cplusplus >= 202002L
#include <span>
#endif

namespace {

template <class Handle>
constexpr bool is_move_only = std::is_nothrow_move_constructible_v<Handle> &&
                              std::is_nothrow_move_assignable_v<Handle> && !std::is_copy_constructible_v<Handle> &&
                              !std::is_copy_assignable_v<Handle> && std::is_nothrow_default_constructible_v<Handle>;
static_assert(is_move_only<nucleus::sampler> && is_move_only<nucleus::parameters> && is_move_only<nucleus::call> &&
              is_move_only<nucleus::prewarming>);
// A handle is one pointer and at most one number.
static_assert(sizeof(nucleus::sampler) <= 2 * sizeof(void *) && sizeof(nucleus::prewarming) == sizeof(void *));
// An exception that is copied while it is thrown must not throw.
static_assert(std::is_nothrow_copy_constructible_v<nucleus::error> &&
              std::is_nothrow_copy_assignable_v<nucleus::error>);

// Views are created from containers with elements of the same type. A temporary container cannot become a view, because
// its elements would be destroyed before the call uses them. A temporary view can.
template <class View, class From>
constexpr bool from = std::is_convertible_v<From, View>;
using Ints = nucleus::span<std::int32_t>;
using ConstInts = nucleus::span<const std::int32_t>;
static_assert(from<Ints, std::vector<std::int32_t> &> && from<Ints, std::int32_t (&)[3]> &&
              from<Ints, std::array<std::int32_t, 3> &>);
static_assert(from<ConstInts, const std::vector<std::int32_t> &> && from<ConstInts, const std::int32_t (&)[3]> &&
              from<ConstInts, const std::array<std::int32_t, 3> &> && from<ConstInts, Ints> &&
              from<ConstInts, const Ints> && from<ConstInts, std::initializer_list<std::int32_t>>);
static_assert(from<nucleus::span<const char>, std::string_view> && from<nucleus::span<const char>, std::string &>);
#ifdef __cpp_lib_span
static_assert(from<Ints, std::span<std::int32_t>> && from<Ints, const std::span<std::int32_t, 3>> &&
              from<ConstInts, std::span<std::int32_t>> && from<ConstInts, std::span<const std::int32_t>>);
#endif
static_assert(!from<Ints, const std::vector<std::int32_t> &> && !from<Ints, ConstInts>);
template <class View>
constexpr bool from_temporary =
    from<View, std::vector<std::int32_t>> || from<View, const std::vector<std::int32_t>> ||
    from<View, std::array<std::int32_t, 3>> || from<View, const std::array<std::int32_t, 3>> ||
    from<View, std::array<const std::int32_t, 3>> || from<View, std::int32_t (&&)[3]> ||
    from<View, const std::int32_t (&&)[3]>;
static_assert(!from_temporary<Ints> && !from_temporary<ConstInts>);
static_assert(!from<nucleus::span<const char>, std::string>);
// The fields of a batch, and the functions that return a view.
static_assert(std::is_assignable_v<decltype((nucleus::batch::temperature)), std::vector<float> &> &&
              !std::is_assignable_v<decltype((nucleus::batch::temperature)), std::vector<float>> &&
              !std::is_assignable_v<decltype((nucleus::batch::seed)), std::array<std::uint64_t, 2>>);
static_assert(std::is_invocable_v<decltype(nucleus::logits_view::f32), std::vector<float> &, int, int, int> &&
              !std::is_invocable_v<decltype(nucleus::logits_view::f32), std::vector<float>, int, int, int>);
static_assert(!from<Ints, std::vector<std::uint32_t> &> && !from<ConstInts, std::vector<std::int64_t> &>);
static_assert(!from<ConstInts, int> && !from<ConstInts, const std::int32_t *>);
using Logits = nucleus::logits_span;
static_assert(from<Logits, std::vector<float> &> && from<Logits, std::vector<std::uint16_t> &> &&
              from<Logits, nucleus::span<float>>);
static_assert(!from<Logits, std::vector<double> &> && !from<Logits, const std::vector<float> &> &&
              !from<Logits, std::vector<float>>);

nucleus::sampler make() {
    nucleus::sampler_options options;
    options.backend = nucleus::backend::builtin;
    options.num_threads = 1;
    return nucleus::sampler::create(options);
}

const float logits[3] = {0, 5, 1};

nucleus::batch one_row() {
    nucleus::batch batch;
    batch.logits = nucleus::logits_view::f32(logits, 1, 3);
    return batch;
}

bool works(const nucleus::sampler &sampler) {
    static const float greedy[1] = {0};
    nucleus::batch batch = one_row();
    batch.temperature = greedy;
    std::int32_t token[1] = {77};
    return sampler.try_sample(batch, token).has_value() && token[0] == 1;
}

void moves() {
    nucleus::sampler first = make();
    nuc_sampler *const object = first.get();
    CHECK(first && works(first));

    nucleus::sampler second(std::move(first));
    CHECK(second.get() == object && works(second) && second.max_k() == 128);
    CHECK(!first && first.get() == nullptr);  // NOLINT: use after move is what this test is about

    // Assignment destroys the object that the target owned.
    nucleus::sampler third = make();
    third = std::move(second);
    CHECK(third.get() == object && !second && works(third));

    // Assignment to itself keeps the object.
    nucleus::sampler &same = third;
    third = std::move(same);
    CHECK(third.get() == object && works(third));

    std::swap(first, third);
    CHECK(first.get() == object && !third && works(first));

    std::vector<nucleus::sampler> many;
    for (int i = 0; i < 5; i++) many.push_back(make());
    for (const nucleus::sampler &sampler : many) CHECK(works(sampler));
    many.erase(many.begin() + 1);
    for (const nucleus::sampler &sampler : many) CHECK(works(sampler));
}

void closes_once() {
    nucleus::sampler sampler = make();
    CHECK(sampler.close() && !sampler);
    CHECK(sampler.close());  // Nothing happens.
    CHECK_FAILURE(invalid_argument, "sampler", sampler.try_info());

    // The library detects a second destruction, so it would report one here.
    nucleus::sampler owner = make();
    nuc_sampler *const object = owner.release();
    CHECK(!owner && object != nullptr);
    nucleus::sampler again = nucleus::sampler::adopt(object);
    CHECK(again.get() == object && again.max_k() == 128 && works(again));
    CHECK(again.close());
}

// Every function of every handle.
void empty_handles_fail() {
    nucleus::sampler moved = make();
    const nucleus::sampler taken = std::move(moved);
    const nucleus::sampler empty;
    for (const nucleus::sampler *sampler : {&empty, static_cast<const nucleus::sampler *>(&moved)}) {
        std::int32_t token[1] = {77};
        CHECK_FAILURE(invalid_argument, "sampler", sampler->try_sample(one_row(), token));
        CHECK_FAILURE(invalid_argument, "sampler", sampler->try_sample_arbitrary(one_row(), token));
        CHECK_FAILURE(invalid_argument, "sampler", sampler->try_sample_bounded(one_row(), token));
        CHECK_FAILURE(invalid_argument, "sampler", sampler->try_sample_reference(one_row(), token));
        CHECK_FAILURE(invalid_argument, "sampler", sampler->try_create_parameters({}));
        CHECK_FAILURE(invalid_argument, "sampler", sampler->try_start(nucleus::path::automatic, token, {}, 0));
        CHECK_FAILURE(invalid_argument, nullptr,
                      sampler->try_sample_on_device(nucleus::path::automatic, token, {}, 0, {}));
        CHECK_FAILURE(invalid_argument, "sampler", sampler->try_prewarm({}));
        CHECK_FAILURE(invalid_argument, "sampler", sampler->try_start_prewarm({}));
        CHECK_FAILURE(invalid_argument, "sampler", sampler->try_stats());
        CHECK_FAILURE(invalid_argument, "sampler", sampler->try_info());
        CHECK_FAILURE(invalid_argument, "sampler", sampler->try_device(0));
        CHECK(token[0] == 77);
    }
    CHECK_FAILURE(invalid_argument, "sampler", nucleus::sampler::try_adopt(nullptr));

    nucleus::parameters parameters;
    CHECK_FAILURE(invalid_argument, "parameters", parameters.try_set(0, {}));
    CHECK(parameters.close());

    nucleus::call call;
    std::int32_t token[1] = {77};
    CHECK_FAILURE(invalid_argument, "call", call.try_is_done());
    CHECK_FAILURE(invalid_argument, "call", call.try_wait());
    CHECK_FAILURE(invalid_argument, "call", call.try_wait_for(std::chrono::milliseconds(1)));
    CHECK_FAILURE(invalid_argument, "call", call.try_on_done([] {}));
    CHECK_FAILURE(invalid_argument, "call", call.try_get_tokens({}));
    CHECK_FAILURE(invalid_argument, "tokens", call.try_get_tokens(token));
    CHECK_FAILURE(invalid_argument, "call", call.try_get_numbers({}));
    CHECK_FAILURE(invalid_argument, "call", call.try_take_buffer(nucleus::buffer::tokens));
    CHECK(call.close());

    nucleus::prewarming prewarming;
    CHECK_FAILURE(invalid_argument, "prewarming", prewarming.try_progress());
    CHECK_FAILURE(invalid_argument, "prewarming", prewarming.try_wait());
    CHECK_FAILURE(invalid_argument, "prewarming", prewarming.try_wait_for(std::chrono::seconds(0)));
    CHECK_FAILURE(invalid_argument, "prewarming", prewarming.try_cancel());
    CHECK(prewarming.close());
}

void errors_copy() {
    const nucleus::error none;
    CHECK(none.code() == nucleus::status::ok && std::strcmp(none.message(), "NUC_OK") == 0 && none.row() == -1);

    const nucleus::error failure(nucleus::status::io_error, 3, "program_dir", "one line", "two\nlines");
    nucleus::error copy = failure;
    CHECK(copy.message() != failure.message() && std::strcmp(copy.message(), "one line") == 0);
    CHECK(std::strcmp(copy.full_message(), "two\nlines") == 0 && copy.row() == 3);
    CHECK(copy.code() == nucleus::status::io_error && std::strcmp(copy.argument(), "program_dir") == 0);
    nucleus::error moved = std::move(copy);
    CHECK(std::strcmp(moved.what(), "one line") == 0);
    // An error that was moved from keeps its code and has the name of the code as its message.
    CHECK(std::strcmp(copy.what(), "NUC_IO_ERROR") == 0);  // NOLINT: as above
    copy = moved;
    nucleus::error &same = copy;
    copy = same;
    CHECK(std::strcmp(copy.what(), "one line") == 0 && std::strcmp(copy.full_message(), "two\nlines") == 0);

    nucleus::result<std::string> value(std::string("text"));
    CHECK(value && *value == "text" && value->size() == 4 && value.code() == nucleus::status::ok);
    CHECK(std::move(value).value() == "text");
    const nucleus::result<std::string> failed(failure);
    CHECK(!failed && failed.code() == nucleus::status::io_error);
    bool thrown = false;
    try {
        static_cast<void>(failed.value());
    } catch (const std::exception &error) {
        thrown = std::strcmp(error.what(), "one line") == 0;
    }
    CHECK(thrown);
}

}  // namespace

int main() {
    moves();
    closes_once();
    empty_handles_fail();
    errors_copy();
    return report();
}

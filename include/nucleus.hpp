/**
 * @file nucleus.hpp
 * @brief nucleus in C++17: owning handles, checked array views, and errors as exceptions or as results.
 *
 * This header wraps nucleus.h. It contains inline functions only, so a program needs no other library than
 * libnucleus. The rules of sampling, the meaning of each parameter and the statuses of each function are in nucleus.h.
 *
 * EXAMPLE
 *
 *     #include <nucleus.hpp>
 *     #include <cstdio>
 *     #include <vector>
 *
 *     int main() {
 *         const std::vector<float> logits{0.1f, 2.0f, -1.0f, 1.9f, 0.0f, 5.0f, 0.0f, 0.0f, 0.0f, 4.0f};
 *         const std::vector<float> temperature{0.7f, 0.0f};
 *         const std::vector<std::uint64_t> seed{1, 2}, step{0, 0};
 *         std::vector<std::int32_t> tokens(2);
 *
 *         nucleus::batch batch;
 *         batch.logits = nucleus::logits_view::f32(logits, 2, 5);  // 2 rows, a vocabulary of 5
 *         batch.temperature = temperature;
 *         batch.seed = seed;
 *         batch.offset = step;
 *         try {
 *             const nucleus::sampler sampler = nucleus::sampler::create();
 *             sampler.sample(batch, tokens);
 *             std::printf("%d %d\n", tokens[0], tokens[1]);
 *         } catch (const nucleus::error &error) {
 *             std::fprintf(stderr, "%s\n", error.what());
 *             return 1;
 *         }
 *         return 0;
 *     }
 *
 * CONVENTIONS
 *
 *   Errors. Every function that can fail, except close(), has two forms. The form `f` throws a nucleus::error. The form
 *   `try_f` throws nothing and returns a nucleus::result, which contains the value or the error. Without exceptions
 *   (-fno-exceptions) only the second form exists. Both forms do the same and write no output if they fail. Files of one
 *   program may be compiled with and without exceptions.
 *
 *   Memory. The caller owns all arrays. Views (span, logits_view, logits_span, batch, debug_arrays) own nothing, and
 *   the library reads or writes their arrays only during the call. A temporary that owns its elements cannot become a
 *   view: `batch.temperature = std::vector<float>(2, 0.7f)` does not compile. An empty view means that the array is not
 *   given. A view with a wrong number of elements is an error (status::invalid_argument), so no call reads or writes
 *   outside an array. Option structs own their strings and lists.
 *
 *   Handles. sampler, parameters, call and prewarming own an object of the library. They can be moved, but not copied.
 *   The destructor frees the object. A handle that was moved from, closed, or created by its default constructor is
 *   empty: calls with it fail with status::invalid_argument. Handles can be destroyed in any order.
 *
 *   Threads. Any number of threads may call the const functions of the same handle at the same time. No other thread
 *   may use a handle while it is moved, assigned, closed or destroyed. Structs, views, errors and results are plain
 *   values: different threads may use different copies.
 *
 *   Compatibility. All functions are inline, and only the functions of nucleus.h are in the library. So a program that
 *   was compiled with this header runs with every library that nucleus.h allows. The types of this header can change
 *   with its version: do not use them in the binary interface of a library of your own.
 *
 *   Macros. This header defines no macro except its include guard. It includes nucleus.h, which defines NUC_*.
 */

#ifndef NUCLEUS_HPP
#define NUCLEUS_HPP

#if !(defined(__cplusplus) && __cplusplus >= 201703L) && !(defined(_MSVC_LANG) && _MSVC_LANG >= 201703L)
#error "nucleus.hpp needs C++17 or newer"
#endif

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iterator>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "nucleus.h"

namespace nucleus {

/** The result of a call, see nuc_status. A newer library can return values that are not listed here. */
enum class status : nuc_status {
    ok = NUC_OK,
    invalid_argument = NUC_INVALID_ARGUMENT,
    plugin_not_found = NUC_PLUGIN_NOT_FOUND,
    plugin_invalid = NUC_PLUGIN_INVALID,
    plugin_version = NUC_PLUGIN_VERSION,
    device_error = NUC_DEVICE_ERROR,
    internal = NUC_INTERNAL,
    out_of_memory = NUC_OUT_OF_MEMORY,
    io_error = NUC_IO_ERROR,
    timeout = NUC_TIMEOUT,
    cancelled = NUC_CANCELLED
};

/** The backend of a sampler, see nuc_backend. */
enum class backend : nuc_backend {
    automatic = NUC_BACKEND_AUTO,
    builtin = NUC_BACKEND_BUILTIN,
    pjrt = NUC_BACKEND_PJRT
};

/** The element type of logits, see nuc_dtype. */
enum class dtype : nuc_dtype { f32 = NUC_DTYPE_F32, bf16 = NUC_DTYPE_BF16, f16 = NUC_DTYPE_F16 };

/** A sampling function, see nuc_path. */
enum class path : nuc_path {
    automatic = NUC_PATH_AUTO,
    arbitrary = NUC_PATH_ARBITRARY,
    bounded = NUC_PATH_BOUNDED
};

/** The numbers that a call on the device copies to the host, see nuc_host_numbers. */
enum class host_numbers : nuc_host_numbers { tokens = NUC_HOST_TOKENS, all = NUC_HOST_ALL, none = NUC_HOST_NONE };

/** A result of a call on the device, see nuc_buffer. */
enum class buffer : nuc_buffer {
    tokens = NUC_BUFFER_TOKENS,
    topk_logits = NUC_BUFFER_TOPK_LOGITS,
    topk_topp_probs = NUC_BUFFER_TOPK_TOPP_PROBS,
    topk_indices_k = NUC_BUFFER_TOPK_INDICES_K,
    topk_logits_k = NUC_BUFFER_TOPK_LOGITS_K,
    topk_topp_probs_k = NUC_BUFFER_TOPK_TOPP_PROBS_K
};

/** Where the logits of calls are, see nuc_logits_place. */
enum class logits_place : nuc_logits_place { host = NUC_LOGITS_ON_HOST, device = NUC_LOGITS_ON_DEVICE };

/** How much the library logs, see nuc_log_level. */
enum class log_level : nuc_log_level {
    off = NUC_LOG_OFF,
    error = NUC_LOG_ERROR,
    warning = NUC_LOG_WARNING,
    info = NUC_LOG_INFO,
    debug = NUC_LOG_DEBUG
};

/** Bits of the row status, see NUC_ROW_NO_CANDIDATE and the others. A newer library can set other bits. */
inline constexpr std::uint32_t row_no_candidate = NUC_ROW_NO_CANDIDATE, row_had_nan = NUC_ROW_HAD_NAN,
                               row_had_inf = NUC_ROW_HAD_INF, row_bad_parameter = NUC_ROW_BAD_PARAMETER;

/** Bits of the fields `debug_arrays`, see NUC_DEBUG_TOPK_LOGITS and the others. */
inline constexpr std::uint32_t debug_topk_logits = NUC_DEBUG_TOPK_LOGITS,
                               debug_topk_topp_probs = NUC_DEBUG_TOPK_TOPP_PROBS,
                               debug_k_slices = NUC_DEBUG_K_SLICES;

/** The number of columns of the array of pack_parameters. */
inline constexpr std::size_t parameter_columns = NUC_PARAMETER_COLUMNS;

/** The version of the loaded library, for example "0.1.0". Valid until the process ends. Any thread may call it. */
[[nodiscard]] inline const char *version() noexcept { return nuc_version(); }

/** The version of the loaded library as a number, see NUC_VERSION. Any thread may call it. */
[[nodiscard]] inline std::uint32_t version_number() noexcept { return nuc_version_number(); }

/** The NUC_ABI_VERSION of the loaded library. Any thread may call it. */
[[nodiscard]] inline std::uint32_t abi_version() noexcept { return nuc_abi_version(); }

/** The name of a status, for example "NUC_OK". Valid until the process ends. Any thread may call it. */
[[nodiscard]] inline const char *to_string(status value) noexcept {
    return nuc_status_string(static_cast<nuc_status>(value));
}

namespace detail {

// The type of a container's elements.
template <class Container>
using element_of = std::remove_pointer_t<decltype(std::data(std::declval<Container &>()))>;

// Whether a container does not own its elements, for example std::span, std::string_view or std::initializer_list. Two
// conditions must hold. The elements have the same type if the container is const: this excludes std::vector and
// std::array. The container can be copied and assigned byte by byte: this excludes containers of const elements. All
// other types count as owners.
template <class Container, class = void>
struct is_view : std::false_type {};
template <class Container>
struct is_view<Container, std::enable_if_t<std::is_same_v<element_of<Container>, element_of<const Container>>>>
    : std::bool_constant<std::is_trivially_copyable_v<Container> && std::is_copy_assignable_v<Container>> {};

}  // namespace detail

/**
 * A view of an array, like std::span. It has its own type, so that files that were compiled for C++17 and for C++20 can
 * be linked. It is created implicitly from arrays, std::vector, std::array, std::span and other contiguous containers.
 *
 * It owns nothing: the array must live as long as the view is used. So a temporary that owns its elements, for example
 * the std::vector that a function returns, does not become a view. Copies are independent values.
 */
template <class T>
class span {
    template <class Container, class Value = std::remove_reference_t<Container>>
    using if_viewable =
        std::enable_if_t<!std::is_same_v<std::decay_t<Container>, span> &&
                         std::is_convertible_v<detail::element_of<Value> (*)[], T (*)[]> &&
                         (std::is_lvalue_reference_v<Container> || detail::is_view<std::remove_cv_t<Value>>::value)>;

public:
    using element_type = T;
    using value_type = std::remove_cv_t<T>;
    using size_type = std::size_t;
    using iterator = T *;

    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <class Container, class = if_viewable<Container>,
              class = decltype(std::size(std::declval<Container &>()))>
    constexpr span(Container &&container) noexcept : data_(std::data(container)), size_(std::size(container)) {}

    [[nodiscard]] constexpr T *data() const noexcept { return data_; }
    [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
    [[nodiscard]] constexpr bool empty() const noexcept { return size_ == 0; }
    [[nodiscard]] constexpr T *begin() const noexcept { return data_; }
    [[nodiscard]] constexpr T *end() const noexcept { return data_ + size_; }
    [[nodiscard]] constexpr T &operator[](std::size_t index) const noexcept { return data_[index]; }

    /** The first `count` elements. `count` must not exceed size(). */
    [[nodiscard]] constexpr span first(std::size_t count) const noexcept { return {data_, count}; }

    /** `count` elements from the element `start` on. `start + count` must not exceed size(). */
    [[nodiscard]] constexpr span subspan(std::size_t start, std::size_t count) const noexcept {
        return {data_ + start, count};
    }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/**
 * The reason why a call failed. A function `f` throws it. A function `try_f` returns it in a result.
 *
 * It owns its messages. Copying and moving never throw: if there is no memory for the messages, a copy has the name of
 * the status as its message. Any number of threads may read the same error.
 */
class error final : public std::exception {
public:
    /** No failure: status::ok. */
    error() noexcept = default;

    /** A failure with the messages of a nuc_error. `full_message` may be null. Both texts are copied. */
    error(status code, std::int64_t row, const char *argument, const char *message, const char *full_message) noexcept
        : code_(code), row_(row), argument_(argument) {
        set_text(message, full_message);
    }

    error(const error &other) noexcept
        : std::exception(other), code_(other.code_), row_(other.row_), argument_(other.argument_) {
        if (other.text_) set_text(other.message(), other.full_message());
    }
    error(error &&other) noexcept = default;
    error &operator=(const error &other) noexcept {
        if (this != &other) *this = error(other);
        return *this;
    }
    error &operator=(error &&other) noexcept = default;
    ~error() override = default;

    /** The kind of the failure. */
    [[nodiscard]] status code() const noexcept { return code_; }

    /** The index of the row at fault, or -1. */
    [[nodiscard]] std::int64_t row() const noexcept { return row_; }

    /** The name of the argument at fault, or null. Valid until the process ends. */
    [[nodiscard]] const char *argument() const noexcept { return argument_; }

    /** The message as one line. It belongs to this error. */
    [[nodiscard]] const char *message() const noexcept { return text_ ? text_.get() : to_string(code_); }

    /**
     * The message with all its lines, cut after 4095 bytes. The same as message() if it has one line. It belongs to
     * this error.
     */
    [[nodiscard]] const char *full_message() const noexcept { return text_ ? text_.get() + full_ : to_string(code_); }

    /** The same as message(). */
    [[nodiscard]] const char *what() const noexcept override { return message(); }

private:
    // One allocation contains both texts. The one-line message is the first.
    void set_text(const char *message, const char *full_message) noexcept {
        if (full_message == nullptr || *full_message == '\0') full_message = message;
        const std::size_t size = std::strlen(message) + 1, full_size = std::strlen(full_message) + 1;
        text_.reset(new (std::nothrow) char[size + full_size]);
        if (!text_) return;
        std::memcpy(text_.get(), message, size);
        std::memcpy(text_.get() + size, full_message, full_size);
        full_ = size;
    }

    status code_ = status::ok;
    std::int64_t row_ = -1;
    const char *argument_ = nullptr;
    std::unique_ptr<char[]> text_;
    std::size_t full_ = 0;
};

/**
 * A value of type T, or the error of the call that failed. It owns the value or the error.
 *
 *     if (auto made = nucleus::sampler::try_create()) use(*made); else report(made.error());
 */
template <class T>
class [[nodiscard]] result {
public:
    using value_type = T;

    result(T value) noexcept(std::is_nothrow_move_constructible_v<T>) : value_(std::move(value)) {}
    result(nucleus::error failure) noexcept : error_(std::move(failure)) {}

    [[nodiscard]] bool has_value() const noexcept { return value_.has_value(); }
    [[nodiscard]] explicit operator bool() const noexcept { return has_value(); }

    /** status::ok, or the kind of the failure. */
    [[nodiscard]] status code() const noexcept { return error_.code(); }

    /** The failure. After a success its code is status::ok. */
    [[nodiscard]] const nucleus::error &error() const & noexcept { return error_; }
    [[nodiscard]] nucleus::error error() && noexcept { return std::move(error_); }

    /** The value. The behaviour is undefined if there is none, as with std::optional. */
    [[nodiscard]] T &operator*() & noexcept { return *value_; }
    [[nodiscard]] const T &operator*() const & noexcept { return *value_; }
    [[nodiscard]] T &&operator*() && noexcept { return std::move(*value_); }
    [[nodiscard]] T *operator->() noexcept { return &*value_; }
    [[nodiscard]] const T *operator->() const noexcept { return &*value_; }

#ifdef __cpp_exceptions
    /** The value. Throws the error if there is no value. */
    [[nodiscard]] T value() && {
        if (!value_) throw std::move(error_);
        return std::move(*value_);
    }
    [[nodiscard]] const T &value() const & {
        if (!value_) throw nucleus::error(error_);
        return *value_;
    }
#endif

private:
    std::optional<T> value_;
    nucleus::error error_;
};

/** The success of a call that has no value, or its error. */
template <>
class [[nodiscard]] result<void> {
public:
    using value_type = void;

    result() noexcept = default;
    result(nucleus::error failure) noexcept : error_(std::move(failure)) {}

    [[nodiscard]] bool has_value() const noexcept { return error_.code() == status::ok; }
    [[nodiscard]] explicit operator bool() const noexcept { return has_value(); }
    [[nodiscard]] status code() const noexcept { return error_.code(); }
    [[nodiscard]] const nucleus::error &error() const & noexcept { return error_; }
    [[nodiscard]] nucleus::error error() && noexcept { return std::move(error_); }

#ifdef __cpp_exceptions
    /** Throws the error if the call failed. */
    void value() && {
        if (!has_value()) throw std::move(error_);
    }
    void value() const & {
        if (!has_value()) throw nucleus::error(error_);
    }
#endif

private:
    nucleus::error error_;
};

/**
 * Logits, `[num_rows, vocab]`, row-major. It owns nothing: the array must live as long as the view is used. Copies are
 * independent values. Calls check that the array has enough elements.
 */
class logits_view {
public:
    /** No logits. */
    constexpr logits_view() noexcept = default;

    /** Logits in f32. `row_stride` is the distance between two rows in elements; 0: `vocab`. */
    [[nodiscard]] static constexpr logits_view f32(span<const float> values, std::size_t num_rows, std::size_t vocab,
                                                   std::size_t row_stride = 0) noexcept {
        return {dtype::f32, values.data(), values.size(), num_rows, vocab, row_stride};
    }

    /** The bits of logits in bf16. */
    [[nodiscard]] static constexpr logits_view bf16(span<const std::uint16_t> bits, std::size_t num_rows,
                                                    std::size_t vocab, std::size_t row_stride = 0) noexcept {
        return {dtype::bf16, bits.data(), bits.size(), num_rows, vocab, row_stride};
    }

    /** The bits of logits in f16. */
    [[nodiscard]] static constexpr logits_view f16(span<const std::uint16_t> bits, std::size_t num_rows,
                                                   std::size_t vocab, std::size_t row_stride = 0) noexcept {
        return {dtype::f16, bits.data(), bits.size(), num_rows, vocab, row_stride};
    }

    /**
     * Logits of any type at an address, for example of std::bfloat16_t. `num_elements` is the size of the whole array
     * in elements.
     */
    [[nodiscard]] static constexpr logits_view raw(nucleus::dtype type, const void *data, std::size_t num_elements,
                                                   std::size_t num_rows, std::size_t vocab,
                                                   std::size_t row_stride = 0) noexcept {
        return {type, data, num_elements, num_rows, vocab, row_stride};
    }

    [[nodiscard]] constexpr nucleus::dtype type() const noexcept { return type_; }
    [[nodiscard]] constexpr const void *data() const noexcept { return data_; }
    [[nodiscard]] constexpr std::size_t num_elements() const noexcept { return num_elements_; }
    [[nodiscard]] constexpr std::size_t num_rows() const noexcept { return num_rows_; }
    [[nodiscard]] constexpr std::size_t vocab() const noexcept { return vocab_; }
    [[nodiscard]] constexpr std::size_t row_stride() const noexcept { return row_stride_; }

private:
    constexpr logits_view(nucleus::dtype type, const void *data, std::size_t num_elements, std::size_t num_rows,
                          std::size_t vocab, std::size_t row_stride) noexcept
        : data_(data), num_elements_(num_elements), num_rows_(num_rows), vocab_(vocab), row_stride_(row_stride),
          type_(type) {}

    const void *data_ = nullptr;
    std::size_t num_elements_ = 0, num_rows_ = 0, vocab_ = 0, row_stride_ = 0;
    nucleus::dtype type_ = nucleus::dtype::f32;
};

/**
 * A view of an array that receives logits: elements of type float for f32, or of type std::uint16_t with the bits of
 * bf16 or f16. It is created implicitly from containers of these types. It owns nothing: the array must live as long as
 * the view is used. Copies are independent values.
 */
class logits_span {
    template <class Container, class Element>
    using if_span = std::enable_if_t<!std::is_same_v<std::decay_t<Container>, logits_span> &&
                                         std::is_constructible_v<span<Element>, Container>,
                                     int>;

public:
    constexpr logits_span() noexcept = default;
    template <class Container, if_span<Container, float> = 0>
    constexpr logits_span(Container &&values) noexcept
        : logits_span(span<float>(std::forward<Container>(values)), sizeof(float)) {}
    template <class Container, if_span<Container, std::uint16_t> = 0, class = void>
    constexpr logits_span(Container &&bits) noexcept
        : logits_span(span<std::uint16_t>(std::forward<Container>(bits)), sizeof(std::uint16_t)) {}

    [[nodiscard]] constexpr void *data() const noexcept { return data_; }
    [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
    [[nodiscard]] constexpr std::size_t element_size() const noexcept { return element_size_; }

private:
    template <class Element>
    constexpr logits_span(span<Element> elements, std::size_t element_size) noexcept
        : data_(elements.data()), size_(elements.size()), element_size_(element_size) {}

    void *data_ = nullptr;
    std::size_t size_ = 0, element_size_ = 0;
};

/**
 * A batch of logits and the sampling parameters of its rows, see nuc_batch. Each array has `num_rows` elements, except
 * `random_words`, which has 4 per row. An array that is empty has the default.
 *
 * It owns nothing: the arrays must live, and no thread may write them, during the call. Copies are independent values.
 */
struct batch {
    logits_view logits = {};
    span<const std::int32_t> top_k = {};
    span<const float> top_p = {};
    span<const float> min_p = {};
    span<const float> temperature = {};
    span<const std::uint32_t> random_words = {};
    span<const std::uint64_t> seed = {};
    span<const std::uint64_t> offset = {};
};

/** Options of one sampling call, see nuc_call_options. A plain value that owns nothing. */
struct call_options {
    /** Whether top-k keeps every entry that ties with the threshold. */
    bool keep_ties = false;
    /** The value of `topk_logits_unsorted` where top-k removed the entry. Without a value: -1e12. */
    std::optional<float> replace_val = std::nullopt;
};

namespace detail {

// The default argument of calls with options. If each call created its own object, GCC 12 with -fsanitize=address would
// report that replace_val may be used uninitialized.
inline constexpr call_options default_options{};

}  // namespace detail

/**
 * The intermediate arrays that a call writes, see nuc_debug_arrays. The library does not compute an array whose view is
 * empty. `max_k` below is the `max_k` of the sampler.
 *
 * It owns nothing: the arrays must live during the call. Copies are independent values.
 */
struct debug_arrays {
    /** `[num_rows]` */
    span<std::int32_t> greedy_sampled = {};
    /** `[num_rows, vocab]` */
    logits_span topk_logits_unsorted = {};
    /** `[num_rows, vocab]` */
    span<std::int32_t> topk_topp_unnorm_probs_i32_unsorted = {};
    /** `[num_rows]` */
    span<std::uint32_t> random_unnorm_cdf_sampled_high = {};
    /** `[num_rows]` */
    span<std::uint32_t> random_unnorm_cdf_sampled_low = {};
    /** `[num_rows]` */
    span<std::int32_t> next_tokens = {};
    /** `[num_rows, max_k]` */
    span<std::int32_t> topk_indices_k = {};
    /** `[num_rows, max_k]` */
    logits_span topk_logits_k = {};
    /** `[num_rows, max_k]` */
    span<std::int32_t> topk_topp_unnorm_probs_i32_k = {};
};

/** One option for a plugin, see nuc_client_option. It owns its strings. */
class client_option {
public:
    [[nodiscard]] static client_option string(std::string name, std::string value) {
        client_option option(std::move(name), NUC_OPTION_STRING);
        option.string_ = std::move(value);
        return option;
    }
    [[nodiscard]] static client_option int64(std::string name, std::int64_t value) {
        client_option option(std::move(name), NUC_OPTION_INT64);
        option.int64_ = value;
        return option;
    }
    [[nodiscard]] static client_option float32(std::string name, float value) {
        client_option option(std::move(name), NUC_OPTION_FLOAT);
        option.float_ = value;
        return option;
    }
    [[nodiscard]] static client_option boolean(std::string name, bool value) {
        client_option option(std::move(name), NUC_OPTION_BOOL);
        option.int64_ = value ? 1 : 0;
        return option;
    }

    /** The option as the C struct. Its strings belong to this object. */
    [[nodiscard]] nuc_client_option c_option() const noexcept {
        nuc_client_option option = NUC_CLIENT_OPTION_INIT;
        option.name = name_.c_str();
        option.type = type_;
        option.float_value = float_;
        option.int64_value = int64_;
        if (type_ == NUC_OPTION_STRING) option.string_value = string_.c_str();
        return option;
    }

    /**
     * Whether the name or the string value contains a NUL character. A C function would ignore the text after this
     * character.
     */
    [[nodiscard]] bool contains_nul() const noexcept {
        return name_.find('\0') != std::string::npos || string_.find('\0') != std::string::npos;
    }

private:
    client_option(std::string name, nuc_option_type type) : name_(std::move(name)), type_(type) {}

    std::string name_, string_;
    std::int64_t int64_ = 0;
    float float_ = 0;
    nuc_option_type type_;
};

/**
 * Options of sampler::create, see nuc_sampler_options. A field that has its initial value has its default.
 *
 * It owns its strings and lists, which are not used after the call. `pjrt_api` and `pjrt_client` belong to the caller:
 * the table must be valid until the process ends, and the client must outlive the sampler and its other handles.
 */
struct sampler_options {
    nucleus::backend backend = nucleus::backend::automatic;
    std::int32_t device_index = 0;
    std::string plugin_path = {};
    std::vector<client_option> client_options = {};
    std::size_t max_k = 0;
    std::size_t cache_capacity = 0;
    std::size_t num_threads = 0;
    std::string program_dir = {};
    bool write_programs = false;
    std::uint64_t program_dir_capacity = 0;
    const void *pjrt_api = nullptr;
    void *pjrt_client = nullptr;
    std::vector<std::size_t> row_buckets = {};
};

/** The shape of a batch on the device, see nuc_parameters_options. A plain value that owns nothing. */
struct parameters_options {
    std::size_t num_rows = 0;
    std::size_t vocab = 0;
    nucleus::dtype dtype = nucleus::dtype::f32;
    bool keep_ties = false;
    std::optional<float> replace_val = std::nullopt;
};

/**
 * The sampling parameters of one row on the device, see nuc_row_parameters. Without a value, top_p is off and the
 * temperature is 1. A plain value that owns nothing.
 */
struct row_parameters {
    std::int32_t top_k = 0;
    std::optional<float> top_p = std::nullopt;
    float min_p = 0;
    std::optional<float> temperature = std::nullopt;
    std::uint64_t seed = 0;
    std::uint64_t offset = 0;
};

/** Options of sampler::start, see nuc_start_options. A plain value that owns nothing. */
struct start_options {
    nucleus::host_numbers host_numbers = nucleus::host_numbers::tokens;
    std::uint32_t debug_arrays = 0;
    bool donate_logits = false;
};

/** The calls that a prewarm compiles programs for, see nuc_prewarm_spec. A plain value that owns nothing. */
struct prewarm_spec {
    nucleus::path path = nucleus::path::automatic;
    nucleus::dtype dtype = nucleus::dtype::f32;
    std::size_t num_rows = 0;
    std::size_t vocab = 0;
    bool keep_ties = false;
    std::uint32_t debug_arrays = 0;
    logits_place logits = logits_place::host;
    bool has_middle_dimension = false;
    nucleus::host_numbers host_numbers = nucleus::host_numbers::tokens;
    std::size_t num_threads = 0;
};

/** What to compile ahead of time, see nuc_compile_ahead_options. It owns its strings and lists. */
struct compile_ahead_options {
    std::string plugin_path = {};
    std::string topology = {};
    std::vector<client_option> plugin_options = {};
    std::string output_dir = {};
    std::vector<std::size_t> row_counts = {};
    std::size_t vocab = 0;
    std::size_t max_k = 0;
    nucleus::dtype dtype = nucleus::dtype::f32;
    nucleus::path path = nucleus::path::automatic;
    bool keep_ties = false;
    std::uint32_t debug_arrays = 0;
    bool smaller_row_counts = false;
    std::uint64_t output_dir_capacity = 0;
    std::vector<std::size_t> row_buckets = {};
    logits_place logits = logits_place::host;
    bool has_middle_dimension = false;
};

/** A function to embed, see nuc_emit_options. It owns its strings. */
struct emit_options {
    std::size_t num_rows = 0;
    std::size_t vocab = 0;
    std::size_t max_k = 0;
    std::string target = {};
    std::string name = {};
    nucleus::dtype dtype = nucleus::dtype::f32;
    nucleus::path path = nucleus::path::automatic;
    bool keep_ties = false;
    std::uint32_t debug_arrays = 0;
};

/** Counters of a sampler. A plain value that owns nothing. */
using sampler_stats = nuc_sampler_stats;

/** The platform of a sampler. A plain value. Its strings belong to the sampler and are valid until it is destroyed. */
using sampler_info = nuc_sampler_info;

/** A device of a sampler. A plain value. Its strings belong to the sampler and are valid until it is destroyed. */
using device_info = nuc_device_info;

/** The progress of a prewarm. A plain value that owns nothing. */
using prewarm_progress = nuc_prewarm_progress;

/** A text of the library, NUL-terminated. It owns the text. It can be moved, but not copied. */
class text {
public:
    [[nodiscard]] const char *c_str() const noexcept { return data_ ? data_.get() : ""; }
    [[nodiscard]] std::string_view view() const noexcept { return {c_str(), size_}; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

    /** Takes a text of `size` bytes and its terminator. */
    text(std::unique_ptr<char[]> data, std::size_t size) noexcept : data_(std::move(data)), size_(size) {}
    text(text &&other) noexcept : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}
    text &operator=(text &&other) noexcept {
        data_ = std::move(other.data_);
        size_ = std::exchange(other.size_, 0);
        return *this;
    }

private:
    std::unique_ptr<char[]> data_;
    std::size_t size_;
};

/** The implementation. Programs must not use it. */
namespace detail {

// The nuc_error of one call. The library writes the messages. They are not initialized here, because this would take
// longer than everything else in this header. If `lines` is false, there is no buffer for a message of several lines, so
// the library has one array less to check. Only plugins have such messages, not the built-in backend.
struct call_error {
    nuc_error c;
    char full_message[4096];

    explicit call_error(bool lines = true) noexcept {
        c.struct_size = sizeof c;
        c.code = NUC_OK;
        c.reserved = 0;
        c.row = -1;
        c.argument = nullptr;
        c.full_message = lines ? full_message : nullptr;
        c.full_message_size = lines ? sizeof full_message : 0;
        c.message_length = 0;
        c.message[0] = full_message[0] = '\0';
    }

    [[nodiscard]] error failure(nuc_status status_of_call) const noexcept {
        return {static_cast<status>(status_of_call), c.row, c.argument, c.message, c.full_message};
    }

    [[nodiscard]] result<void> done(nuc_status status_of_call) const noexcept {
        if (status_of_call == NUC_OK) return {};
        return failure(status_of_call);
    }

    template <class T>
    [[nodiscard]] result<T> done(nuc_status status_of_call, T value) const noexcept {
        if (status_of_call == NUC_OK) return value;
        return failure(status_of_call);
    }
};

[[nodiscard]] inline error out_of_memory() noexcept {
    return {status::out_of_memory, -1, nullptr, "there is not enough memory for the arguments of the call", nullptr};
}

// Checks whether strings contain a NUL character. A C function would ignore the text after this character. The error
// names the first wrong string.
class nul_check {
public:
    void string(const std::string &value, const char *name) noexcept {
        if (name_ == nullptr && value.find('\0') != std::string::npos) name_ = name;
    }
    void options(const std::vector<client_option> &values, const char *name) noexcept {
        for (const client_option &value : values) {
            if (name_ == nullptr && value.contains_nul()) name_ = name;
        }
    }

    [[nodiscard]] bool failed() const noexcept { return name_ != nullptr; }

    [[nodiscard]] error failure() const noexcept {
        char message[80];
        std::snprintf(message, sizeof message, "%s contains a NUL character", name_);
        return {status::invalid_argument, -1, name_, message, nullptr};
    }

private:
    const char *name_ = nullptr;
};

// Returns a * b, or the largest number if the product overflows. No array has so many elements, so the check of the
// size fails.
[[nodiscard]] constexpr std::size_t product(std::size_t a, std::size_t b) noexcept {
    constexpr std::size_t most = std::numeric_limits<std::size_t>::max();
    return b != 0 && a > most / b ? most : a * b;
}

// Checks the sizes of the arrays of a call, and remembers the first wrong one.
class size_check {
public:
    template <class T>
    [[nodiscard]] T *required(span<T> array, std::size_t wanted, const char *name) noexcept {
        if (array.size() != wanted || (array.data() == nullptr && wanted != 0)) wrong(name, array.size(), wanted);
        return array.data();
    }

    template <class T>
    [[nodiscard]] T *optional(span<T> array, std::size_t wanted, const char *name) noexcept {
        return array.empty() ? nullptr : required(array, wanted, name);
    }

    [[nodiscard]] void *optional(const logits_span &array, dtype type, std::size_t wanted, const char *name) noexcept {
        if (array.size() == 0) return nullptr;
        const std::size_t element_size = type == dtype::f32 ? sizeof(float) : sizeof(std::uint16_t);
        if (array.size() != wanted || array.data() == nullptr || array.element_size() != element_size) {
            wrong(name, product(array.size(), array.element_size()), product(wanted, element_size));
            unit_ = "bytes";
        }
        return array.data();
    }

    // The address of an array whose size does not matter. Null if it is empty.
    template <class Array>
    [[nodiscard]] static auto present(const Array &array) noexcept -> decltype(array.data()) {
        return array.size() == 0 ? nullptr : array.data();
    }

    [[nodiscard]] const void *logits(const logits_view &view) noexcept {
        const std::size_t rows = view.num_rows(), vocab = view.vocab(), size = view.num_elements();
        const std::size_t stride = view.row_stride() == 0 ? vocab : view.row_stride();
        // The library reports a wrong vocab and a wrong row_stride.
        if (rows == 0 || vocab == 0 || stride < vocab) return view.data();
        if (size < vocab || (size - vocab) / stride < rows - 1) {
            const std::size_t before_last = product(rows - 1, stride);
            const bool too_large = before_last > std::numeric_limits<std::size_t>::max() - vocab;
            wrong("logits", size, too_large ? before_last : before_last + vocab);
        }
        return view.data();
    }

    [[nodiscard]] bool failed() const noexcept { return name_ != nullptr; }

    [[nodiscard]] error failure() const noexcept {
        char message[160];
        std::snprintf(message, sizeof message, "%s has %zu %s; the shape of the call needs %zu", name_, size_, unit_,
                      wanted_);
        return {status::invalid_argument, -1, name_, message, nullptr};
    }

private:
    void wrong(const char *name, std::size_t size, std::size_t wanted) noexcept {
        if (name_ != nullptr) return;
        name_ = name;
        size_ = size;
        wanted_ = wanted;
    }

    const char *name_ = nullptr, *unit_ = "elements";
    std::size_t size_ = 0, wanted_ = 0;
};

// The parameters of `rows` rows as a C struct without logits.
[[nodiscard]] inline nuc_batch c_parameters(const batch &batch, std::size_t rows, size_check &check) noexcept {
    nuc_batch c = NUC_BATCH_INIT;
    c.num_rows = rows;
    c.top_k = check.optional(batch.top_k, rows, "top_k");
    c.top_p = check.optional(batch.top_p, rows, "top_p");
    c.min_p = check.optional(batch.min_p, rows, "min_p");
    c.temperature = check.optional(batch.temperature, rows, "temperature");
    c.random_words = check.optional(batch.random_words, product(rows, 4), "random_words");
    c.seed = check.optional(batch.seed, rows, "seed");
    c.offset = check.optional(batch.offset, rows, "offset");
    return c;
}

[[nodiscard]] inline nuc_batch c_batch(const batch &batch, size_check &check) noexcept {
    nuc_batch c = c_parameters(batch, batch.logits.num_rows(), check);
    c.logits = check.logits(batch.logits);
    c.dtype = static_cast<nuc_dtype>(batch.logits.type());
    c.vocab = batch.logits.vocab();
    c.row_stride = batch.logits.row_stride();
    return c;
}

[[nodiscard]] inline bool are_defaults(const call_options &options) noexcept {
    return !options.keep_ties && !options.replace_val.has_value();
}

[[nodiscard]] inline nuc_call_options c_options(const call_options &options) noexcept {
    nuc_call_options c = NUC_CALL_OPTIONS_INIT;
    c.keep_ties = options.keep_ties;
    c.use_replace_val = options.replace_val.has_value();
    c.replace_val = options.replace_val.value_or(0.0f);
    return c;
}

[[nodiscard]] inline nuc_debug_arrays c_debug(const debug_arrays &arrays, const logits_view &logits, std::size_t max_k,
                                              size_check &check) noexcept {
    const std::size_t rows = logits.num_rows(), all = product(rows, logits.vocab()), slots = product(rows, max_k);
    nuc_debug_arrays c = NUC_DEBUG_ARRAYS_INIT;
    c.greedy_sampled = check.optional(arrays.greedy_sampled, rows, "greedy_sampled");
    c.topk_logits_unsorted =
        check.optional(arrays.topk_logits_unsorted, logits.type(), all, "topk_logits_unsorted");
    c.topk_topp_unnorm_probs_i32_unsorted = check.optional(arrays.topk_topp_unnorm_probs_i32_unsorted, all,
                                                           "topk_topp_unnorm_probs_i32_unsorted");
    c.random_unnorm_cdf_sampled_high =
        check.optional(arrays.random_unnorm_cdf_sampled_high, rows, "random_unnorm_cdf_sampled_high");
    c.random_unnorm_cdf_sampled_low =
        check.optional(arrays.random_unnorm_cdf_sampled_low, rows, "random_unnorm_cdf_sampled_low");
    c.next_tokens = check.optional(arrays.next_tokens, rows, "next_tokens");
    c.topk_indices_k = check.optional(arrays.topk_indices_k, slots, "topk_indices_k");
    c.topk_logits_k = check.optional(arrays.topk_logits_k, logits.type(), slots, "topk_logits_k");
    c.topk_topp_unnorm_probs_i32_k =
        check.optional(arrays.topk_topp_unnorm_probs_i32_k, slots, "topk_topp_unnorm_probs_i32_k");
    return c;
}

// The options of a list as C structs. Null if there is no memory for them.
[[nodiscard]] inline std::unique_ptr<nuc_client_option[]>
c_client_options(const std::vector<client_option> &options) noexcept {
    std::unique_ptr<nuc_client_option[]> c(new (std::nothrow) nuc_client_option[options.size()]);
    for (std::size_t i = 0; c && i < options.size(); i++) c[i] = options[i].c_option();
    return c;
}

[[nodiscard]] inline nuc_prewarm_spec c_spec(const prewarm_spec &spec) noexcept {
    nuc_prewarm_spec c = NUC_PREWARM_SPEC_INIT;
    c.path = static_cast<nuc_path>(spec.path);
    c.dtype = static_cast<nuc_dtype>(spec.dtype);
    c.num_rows = spec.num_rows;
    c.vocab = spec.vocab;
    c.keep_ties = spec.keep_ties;
    c.debug_arrays = spec.debug_arrays;
    c.logits = static_cast<nuc_logits_place>(spec.logits);
    c.has_middle_dimension = spec.has_middle_dimension;
    c.host_numbers = static_cast<nuc_host_numbers>(spec.host_numbers);
    c.num_threads = spec.num_threads;
    return c;
}

[[nodiscard]] inline nul_check names(const emit_options &options) noexcept {
    nul_check check;
    check.string(options.target, "target");
    check.string(options.name, "name");
    return check;
}

// The options as a C struct. Its strings belong to `options`.
[[nodiscard]] inline nuc_emit_options c_emit(const emit_options &options) noexcept {
    nuc_emit_options c = NUC_EMIT_OPTIONS_INIT;
    c.num_rows = options.num_rows;
    c.vocab = options.vocab;
    c.max_k = options.max_k;
    c.target = options.target.c_str();
    c.name = options.name.c_str();
    c.dtype = static_cast<nuc_dtype>(options.dtype);
    c.path = static_cast<nuc_path>(options.path);
    c.keep_ties = options.keep_ties;
    c.debug_arrays = options.debug_arrays;
    return c;
}

// A timeout in nanoseconds for the C functions. A time that does not fit means no limit.
template <class Rep, class Period>
[[nodiscard]] std::uint64_t nanoseconds(std::chrono::duration<Rep, Period> time) noexcept {
    using exact = std::chrono::nanoseconds;
    if (time <= time.zero()) return 0;
    if (std::chrono::duration<double>(time) >= std::chrono::duration<double>(exact::max())) {
        return std::numeric_limits<std::uint64_t>::max();
    }
    // Rounds up, so that a wait never ends before the time has passed.
    return static_cast<std::uint64_t>(std::chrono::ceil<exact>(time).count());
}

// Returns the result of a wait with a timeout: whether the work has ended in time, or the failure.
[[nodiscard]] inline result<bool> waited(nuc_status status_of_call, const call_error &error) noexcept {
    if (status_of_call == NUC_TIMEOUT) return false;
    return error.done(status_of_call, true);
}

// Owns an object of the library. The public functions of this base class belong to the interface of every handle.
template <class Object, nuc_status (*Destroy)(Object *, nuc_error *)>
class handle {
public:
    handle() noexcept = default;
    handle(handle &&other) noexcept : object_(other.release()) {}
    handle &operator=(handle &&other) noexcept {
        if (this != &other) {
            destroy();
            object_ = other.release();
        }
        return *this;
    }
    ~handle() { destroy(); }

    /** Whether the handle owns an object. */
    [[nodiscard]] explicit operator bool() const noexcept { return object_ != nullptr; }

    /** The object for functions of nucleus.h. It still belongs to this handle. */
    [[nodiscard]] Object *get() const noexcept { return object_; }

    /** Gives the object to the caller, who destroys it with the function of nucleus.h. The handle is then empty. */
    [[nodiscard]] Object *release() noexcept { return std::exchange(object_, nullptr); }

    /**
     * Destroys the object, as the destructor does, but returns the failure. After a success the handle is empty. It
     * fails only in a callback in which the library refuses to destroy objects; the handle then still owns the object.
     * A destructor in such a callback cannot report the failure and does not free the object. An empty handle can be
     * closed: nothing happens.
     */
    result<void> close() noexcept {
        call_error error;
        const nuc_status status_of_call = Destroy(object_, &error.c);
        if (status_of_call == NUC_OK) object_ = nullptr;
        return error.done(status_of_call);
    }

protected:
    explicit handle(Object *object) noexcept : object_(object) {}

private:
    void destroy() noexcept {
        if (object_ != nullptr) static_cast<void>(Destroy(object_, nullptr));
    }

    Object *object_ = nullptr;
};

}  // namespace detail

/**
 * The parameters of the rows of a batch on the device, see nuc_parameters. sampler::create_parameters creates it.
 *
 * It owns the object. Any number of threads may use it at the same time, also with set(). No other thread may use it
 * while it is moved, closed or destroyed. It keeps the backend of its sampler alive.
 */
class parameters : public detail::handle<nuc_parameters, nuc_parameters_destroy> {
public:
    parameters() noexcept = default;

    /** The number of rows. */
    [[nodiscard]] std::size_t num_rows() const noexcept { return num_rows_; }

    /** Sets the parameters of a row, counted from 0, for calls that start later. See nuc_parameters_set. */
    result<void> try_set(std::size_t row, const row_parameters &values) noexcept {
        nuc_row_parameters c = NUC_ROW_PARAMETERS_INIT;
        c.seed = values.seed;
        c.offset = values.offset;
        c.top_k = values.top_k;
        c.min_p = values.min_p;
        c.use_top_p = values.top_p.has_value();
        c.top_p = values.top_p.value_or(0.0f);
        c.use_temperature = values.temperature.has_value();
        c.temperature = values.temperature.value_or(0.0f);
        detail::call_error error;
        return error.done(nuc_parameters_set(get(), row, &c, &error.c));
    }

#ifdef __cpp_exceptions
    void set(std::size_t row, const row_parameters &values) { try_set(row, values).value(); }
#endif

private:
    friend class sampler;
    parameters(nuc_parameters *object, std::size_t num_rows) noexcept : handle(object), num_rows_(num_rows) {}

    std::size_t num_rows_ = 0;
};

/**
 * A call that was started on the device, see nuc_call. sampler::start creates it.
 *
 * It owns the object. Any number of threads may use it at the same time. No other thread may use it while it is moved,
 * closed or destroyed. The destructor waits for the device and for the callbacks. It keeps the backend of its sampler
 * alive.
 */
class call : public detail::handle<nuc_call, nuc_call_destroy> {
public:
    call() noexcept = default;

    /** The number of rows. */
    [[nodiscard]] std::size_t num_rows() const noexcept { return num_rows_; }

    /** Whether the call has ended. Does not wait. See nuc_call_is_done. */
    result<bool> try_is_done() const noexcept {
        detail::call_error error;
        std::int32_t done = 0;
        const nuc_status status_of_call = nuc_call_is_done(get(), &done, &error.c);
        return error.done(status_of_call, done != 0);
    }

    /** Waits until the call has ended. Fails with the error of the call if it has failed. See nuc_call_wait. */
    result<void> try_wait() const noexcept {
        detail::call_error error;
        return error.done(nuc_call_wait(get(), std::numeric_limits<std::uint64_t>::max(), &error.c));
    }

    /** Like wait(), but waits for at most `timeout`. The value is whether the call has ended. */
    template <class Rep, class Period>
    result<bool> try_wait_for(std::chrono::duration<Rep, Period> timeout) const noexcept {
        detail::call_error error;
        const nuc_status status_of_call = nuc_call_wait(get(), detail::nanoseconds(timeout), &error.c);
        return detail::waited(status_of_call, error);
    }

    /**
     * Calls a copy of `callback` once, without arguments, when the call has ended: on a thread of the plugin, or on
     * this thread if it has already ended. The copy is destroyed after the callback has returned. nuc_done_function
     * lists what a callback may do. The callback must not throw: an exception ends the process.
     */
    template <class Callback>
    result<void> try_on_done(Callback &&callback) const
        noexcept(std::is_nothrow_constructible_v<std::decay_t<Callback>, Callback>) {
        using copy = std::decay_t<Callback>;
        static_assert(std::is_invocable_v<copy &>, "the callback takes no arguments");
        std::unique_ptr<copy> owned(new (std::nothrow) copy(std::forward<Callback>(callback)));
        if (!owned) return detail::out_of_memory();
        const nuc_done_function run = [](void *user) noexcept {
            const std::unique_ptr<copy> running(static_cast<copy *>(user));
            (*running)();
        };
        detail::call_error error;
        const nuc_status status_of_call = nuc_call_on_done(get(), run, owned.get(), &error.c);
        if (status_of_call == NUC_OK) static_cast<void>(owned.release());
        return error.done(status_of_call);
    }

    /**
     * Waits until the call has ended, and writes the tokens of its rows. Both arrays have `num_rows` elements, or
     * `row_status` is empty. See nuc_call_get_tokens.
     */
    result<void> try_get_tokens(span<std::int32_t> tokens, span<std::uint32_t> row_status = {}) const noexcept {
        detail::size_check check;
        std::int32_t *const c_tokens = check.required(tokens, num_rows_, "tokens");
        std::uint32_t *const c_status = check.optional(row_status, num_rows_, "row_status");
        if (check.failed()) return check.failure();
        detail::call_error error;
        return error.done(nuc_call_get_tokens(get(), c_tokens, c_status, &error.c));
    }

    /**
     * Waits until the call has ended, and writes the debug arrays with one number per row. The other fields of `arrays`
     * must be empty. See nuc_call_get_numbers.
     */
    result<void> try_get_numbers(const debug_arrays &arrays) const noexcept {
        detail::size_check check;
        // The library rejects the arrays that are on the device and does not write them, so any size is safe.
        nuc_debug_arrays c = NUC_DEBUG_ARRAYS_INIT;
        c.greedy_sampled = check.optional(arrays.greedy_sampled, num_rows_, "greedy_sampled");
        c.random_unnorm_cdf_sampled_high =
            check.optional(arrays.random_unnorm_cdf_sampled_high, num_rows_, "random_unnorm_cdf_sampled_high");
        c.random_unnorm_cdf_sampled_low =
            check.optional(arrays.random_unnorm_cdf_sampled_low, num_rows_, "random_unnorm_cdf_sampled_low");
        c.next_tokens = check.optional(arrays.next_tokens, num_rows_, "next_tokens");
        c.topk_logits_unsorted = check.present(arrays.topk_logits_unsorted);
        c.topk_topp_unnorm_probs_i32_unsorted = check.present(arrays.topk_topp_unnorm_probs_i32_unsorted);
        c.topk_indices_k = check.present(arrays.topk_indices_k);
        c.topk_logits_k = check.present(arrays.topk_logits_k);
        c.topk_topp_unnorm_probs_i32_k = check.present(arrays.topk_topp_unnorm_probs_i32_k);
        if (check.failed()) return check.failure();
        detail::call_error error;
        return error.done(nuc_call_get_numbers(get(), &c, &error.c));
    }

    /**
     * Gives a result of the call to the caller as a `PJRT_Buffer *`. The caller destroys it with PJRT_Buffer_Destroy
     * before the client is destroyed. Each buffer can be taken once. See nuc_call_take_buffer.
     */
    result<void *> try_take_buffer(buffer which) noexcept {
        detail::call_error error;
        void *taken = nullptr;
        const nuc_status status_of_call =
            nuc_call_take_buffer(get(), static_cast<nuc_buffer>(which), &taken, &error.c);
        return error.done(status_of_call, taken);
    }

#ifdef __cpp_exceptions
    [[nodiscard]] bool is_done() const { return try_is_done().value(); }
    void wait() const { try_wait().value(); }
    template <class Rep, class Period>
    [[nodiscard]] bool wait_for(std::chrono::duration<Rep, Period> timeout) const {
        return try_wait_for(timeout).value();
    }
    template <class Callback>
    void on_done(Callback &&callback) const {
        try_on_done(std::forward<Callback>(callback)).value();
    }
    void get_tokens(span<std::int32_t> tokens, span<std::uint32_t> row_status = {}) const {
        try_get_tokens(tokens, row_status).value();
    }
    void get_numbers(const debug_arrays &arrays) const { try_get_numbers(arrays).value(); }
    [[nodiscard]] void *take_buffer(buffer which) { return try_take_buffer(which).value(); }
#endif

private:
    friend class sampler;
    call(nuc_call *object, std::size_t num_rows) noexcept : handle(object), num_rows_(num_rows) {}

    std::size_t num_rows_ = 0;
};

/**
 * A prewarm that runs in the background, see nuc_prewarming. sampler::start_prewarm creates it.
 *
 * It owns the object. Any number of threads may use it at the same time. No other thread may use it while it is moved,
 * closed or destroyed. The destructor cancels the prewarm and waits for the compilations that are running. Destroy it
 * before the process ends. It keeps the backend of its sampler alive.
 */
class prewarming : public detail::handle<nuc_prewarming, nuc_prewarming_destroy> {
public:
    prewarming() noexcept = default;

    /** The progress of the prewarm. Does not wait. */
    result<prewarm_progress> try_progress() const noexcept {
        detail::call_error error;
        prewarm_progress progress = NUC_PREWARM_PROGRESS_INIT;
        const nuc_status status_of_call = nuc_prewarming_get_progress(get(), &progress, &error.c);
        return error.done(status_of_call, progress);
    }

    /** Waits until the prewarm has ended. Fails if a compilation failed, or if the prewarm was cancelled. */
    result<void> try_wait() const noexcept {
        detail::call_error error;
        return error.done(nuc_prewarming_wait(get(), std::numeric_limits<std::uint64_t>::max(), &error.c));
    }

    /** Like wait(), but waits for at most `timeout`. The value is whether the prewarm has ended. */
    template <class Rep, class Period>
    result<bool> try_wait_for(std::chrono::duration<Rep, Period> timeout) const noexcept {
        detail::call_error error;
        const nuc_status status_of_call = nuc_prewarming_wait(get(), detail::nanoseconds(timeout), &error.c);
        return detail::waited(status_of_call, error);
    }

    /** Cancels the prewarm. Does not wait for the compilations that are running. */
    result<void> try_cancel() const noexcept {
        detail::call_error error;
        return error.done(nuc_prewarming_cancel(get(), &error.c));
    }

#ifdef __cpp_exceptions
    [[nodiscard]] prewarm_progress progress() const { return try_progress().value(); }
    void wait() const { try_wait().value(); }
    template <class Rep, class Period>
    [[nodiscard]] bool wait_for(std::chrono::duration<Rep, Period> timeout) const {
        return try_wait_for(timeout).value();
    }
    void cancel() const { try_cancel().value(); }
#endif

private:
    friend class sampler;
    explicit prewarming(nuc_prewarming *object) noexcept : handle(object) {}
};

/**
 * A sampler: a backend, its threads or its device, and the programs compiled for it. See nuc_sampler.
 *
 * It owns the object. Any number of threads may call its const functions at the same time. No other thread may use it
 * while it is moved, assigned, closed or destroyed. It must not be destroyed in a callback. It does not survive fork().
 */
class sampler : public detail::handle<nuc_sampler, nuc_sampler_destroy> {
    using sampling_function = nuc_status (*)(const nuc_sampler *, const nuc_batch *, const nuc_call_options *,
                                             std::int32_t *, std::uint32_t *, const nuc_debug_arrays *, nuc_error *);

public:
    /** An empty handle. */
    sampler() noexcept = default;

    /** Creates a sampler. With a plugin this can take seconds. See nuc_sampler_create. */
    static result<sampler> try_create(const sampler_options &options = {}) noexcept {
        detail::nul_check check;
        check.string(options.plugin_path, "plugin_path");
        check.string(options.program_dir, "program_dir");
        check.options(options.client_options, "client_options");
        if (check.failed()) return check.failure();
        const auto client_options = detail::c_client_options(options.client_options);
        if (!client_options) return detail::out_of_memory();
        nuc_sampler_options c = NUC_SAMPLER_OPTIONS_INIT;
        c.backend = static_cast<nuc_backend>(options.backend);
        c.device_index = options.device_index;
        // An empty path counts as no path, also with a client of the caller.
        c.plugin_path = options.plugin_path.empty() ? nullptr : options.plugin_path.c_str();
        c.client_options = options.client_options.empty() ? nullptr : client_options.get();
        c.num_client_options = options.client_options.size();
        c.max_k = options.max_k;
        c.cache_capacity = options.cache_capacity;
        c.num_threads = options.num_threads;
        c.program_dir = options.program_dir.c_str();
        c.write_programs = options.write_programs;
        c.pjrt_api = options.pjrt_api;
        c.pjrt_client = options.pjrt_client;
        c.program_dir_capacity = options.program_dir_capacity;
        c.row_buckets = options.row_buckets.empty() ? nullptr : options.row_buckets.data();
        c.num_row_buckets = options.row_buckets.size();
        detail::call_error error;
        nuc_sampler *made = nullptr;
        const nuc_status status_of_call = nuc_sampler_create(&c, &made, &error.c);
        if (status_of_call != NUC_OK) return error.failure(status_of_call);
        result<sampler> adopted = try_adopt(made);
        if (!adopted) static_cast<void>(nuc_sampler_destroy(made, nullptr));
        return adopted;
    }

    /**
     * Takes a handle from nuc_sampler_create. If it succeeds, the result owns the handle. If it fails, the caller still
     * owns it.
     */
    static result<sampler> try_adopt(nuc_sampler *object) noexcept {
        detail::call_error error;
        nuc_sampler_info info = NUC_SAMPLER_INFO_INIT;
        const nuc_status status_of_call = nuc_sampler_get_info(object, &info, &error.c);
        if (status_of_call != NUC_OK) return error.failure(status_of_call);
        return sampler(object, static_cast<std::uint32_t>(info.max_k), info.pjrt_api != nullptr);
    }

    /** The number of slots of the bounded path, which is the width of the k-slices. */
    [[nodiscard]] std::size_t max_k() const noexcept { return max_k_; }

    /**
     * Chooses the next token of every row, see nuc_topk_topp_and_sample. `tokens` receives the token of each row, and
     * `row_status` its NUC_ROW_* bits. `tokens` has `num_rows` elements; `row_status` has as many, or is empty.
     * `debug` may be null. An impossible parameter affects only its own row if `row_status` is given; otherwise the
     * call fails.
     */
    result<void> try_sample(const batch &batch, span<std::int32_t> tokens, span<std::uint32_t> row_status = {},
                            const call_options &options = detail::default_options,
                            const debug_arrays *debug = nullptr) const noexcept {
        return sample_with(nuc_topk_topp_and_sample, batch, tokens, row_status, options, debug);
    }

    /** Like sample(), but every row uses the path for any k. See nuc_arbitrary_topk_topp_and_sample. */
    result<void> try_sample_arbitrary(const batch &batch, span<std::int32_t> tokens,
                                      span<std::uint32_t> row_status = {},
                                      const call_options &options = detail::default_options,
                                      const debug_arrays *debug = nullptr) const noexcept {
        return sample_with(nuc_arbitrary_topk_topp_and_sample, batch, tokens, row_status, options, debug);
    }

    /** Like sample(), but every row uses the path for k up to max_k. See nuc_bounded_topk_topp_and_sample. */
    result<void> try_sample_bounded(const batch &batch, span<std::int32_t> tokens, span<std::uint32_t> row_status = {},
                                    const call_options &options = detail::default_options,
                                    const debug_arrays *debug = nullptr) const noexcept {
        return sample_with(nuc_bounded_topk_topp_and_sample, batch, tokens, row_status, options, debug);
    }

    /** Like sample(), but sorts each row on the CPU. See nuc_reference_topk_topp_and_sample. */
    result<void> try_sample_reference(const batch &batch, span<std::int32_t> tokens,
                                      span<std::uint32_t> row_status = {},
                                      const call_options &options = detail::default_options,
                                      const debug_arrays *debug = nullptr) const noexcept {
        return sample_with(nuc_reference_topk_topp_and_sample, batch, tokens, row_status, options, debug);
    }

    /** Creates the parameters of a batch on the device. See nuc_parameters_create. */
    result<parameters> try_create_parameters(const parameters_options &options) const noexcept {
        nuc_parameters_options c = NUC_PARAMETERS_OPTIONS_INIT;
        c.num_rows = options.num_rows;
        c.vocab = options.vocab;
        c.dtype = static_cast<nuc_dtype>(options.dtype);
        c.keep_ties = options.keep_ties;
        c.use_replace_val = options.replace_val.has_value();
        c.replace_val = options.replace_val.value_or(0.0f);
        detail::call_error error;
        nuc_parameters *made = nullptr;
        const nuc_status status_of_call = nuc_parameters_create(get(), &c, &made, &error.c);
        if (status_of_call != NUC_OK) return error.failure(status_of_call);
        return parameters(made, options.num_rows);
    }

    /**
     * Starts to sample logits on the device. `logits` is a `PJRT_Buffer *` of the sampler's client, which the caller
     * owns and may destroy after the function has returned. `step` is added to the offset of every row. See
     * nuc_sample_start.
     */
    result<call> try_start(path path_of_rows, void *logits, const parameters &values, std::uint64_t step,
                           const start_options &options = {}) const noexcept {
        nuc_start_options c = NUC_START_OPTIONS_INIT;
        c.host_numbers = static_cast<nuc_host_numbers>(options.host_numbers);
        c.debug_arrays = options.debug_arrays;
        c.donate_logits = options.donate_logits;
        detail::call_error error;
        nuc_call *started = nullptr;
        const nuc_status status_of_call = nuc_sample_start(get(), static_cast<nuc_path>(path_of_rows), logits,
                                                           values.get(), step, &c, &started, &error.c);
        if (status_of_call != NUC_OK) return error.failure(status_of_call);
        return call(started, values.num_rows());
    }

    /** Samples logits on the device and waits for the tokens. See nuc_sample_on_device. */
    result<void> try_sample_on_device(path path_of_rows, void *logits, const parameters &values, std::uint64_t step,
                                      span<std::int32_t> tokens,
                                      span<std::uint32_t> row_status = {}) const noexcept {
        detail::size_check check;
        std::int32_t *const c_tokens = check.required(tokens, values.num_rows(), "tokens");
        std::uint32_t *const c_status = check.optional(row_status, values.num_rows(), "row_status");
        if (check.failed()) return check.failure();
        detail::call_error error;
        return error.done(nuc_sample_on_device(get(), static_cast<nuc_path>(path_of_rows), logits, values.get(), step,
                                               c_tokens, c_status, &error.c));
    }

    /** Compiles every program that the calls of `spec` can need. See nuc_prewarm. */
    result<void> try_prewarm(const prewarm_spec &spec) const noexcept {
        const nuc_prewarm_spec c = detail::c_spec(spec);
        detail::call_error error;
        return error.done(nuc_prewarm(get(), &c, &error.c));
    }

    /** Starts a prewarm in the background. See nuc_prewarm_start. */
    result<prewarming> try_start_prewarm(const prewarm_spec &spec) const noexcept {
        const nuc_prewarm_spec c = detail::c_spec(spec);
        detail::call_error error;
        nuc_prewarming *started = nullptr;
        const nuc_status status_of_call = nuc_prewarm_start(get(), &c, &started, &error.c);
        if (status_of_call != NUC_OK) return error.failure(status_of_call);
        return prewarming(started);
    }

    /** Counters of this sampler. See nuc_sampler_get_stats. */
    result<sampler_stats> try_stats() const noexcept {
        detail::call_error error;
        sampler_stats stats = NUC_SAMPLER_STATS_INIT;
        const nuc_status status_of_call = nuc_sampler_get_stats(get(), &stats, &error.c);
        return error.done(status_of_call, stats);
    }

    /** The platform of this sampler. The strings belong to the sampler. See nuc_sampler_get_info. */
    result<sampler_info> try_info() const noexcept {
        detail::call_error error;
        sampler_info info = NUC_SAMPLER_INFO_INIT;
        const nuc_status status_of_call = nuc_sampler_get_info(get(), &info, &error.c);
        return error.done(status_of_call, info);
    }

    /** A device, counted from 0. The strings belong to the sampler. See nuc_sampler_get_device. */
    result<device_info> try_device(std::size_t index) const noexcept {
        detail::call_error error;
        device_info device = NUC_DEVICE_INFO_INIT;
        const nuc_status status_of_call = nuc_sampler_get_device(get(), index, &device, &error.c);
        return error.done(status_of_call, device);
    }

#ifdef __cpp_exceptions
    [[nodiscard]] static sampler create(const sampler_options &options = {}) { return try_create(options).value(); }
    [[nodiscard]] static sampler adopt(nuc_sampler *object) { return try_adopt(object).value(); }

    void sample(const batch &batch, span<std::int32_t> tokens, span<std::uint32_t> row_status = {},
                const call_options &options = detail::default_options, const debug_arrays *debug = nullptr) const {
        try_sample(batch, tokens, row_status, options, debug).value();
    }
    void sample_arbitrary(const batch &batch, span<std::int32_t> tokens, span<std::uint32_t> row_status = {},
                          const call_options &options = detail::default_options,
                          const debug_arrays *debug = nullptr) const {
        try_sample_arbitrary(batch, tokens, row_status, options, debug).value();
    }
    void sample_bounded(const batch &batch, span<std::int32_t> tokens, span<std::uint32_t> row_status = {},
                        const call_options &options = detail::default_options,
                        const debug_arrays *debug = nullptr) const {
        try_sample_bounded(batch, tokens, row_status, options, debug).value();
    }
    void sample_reference(const batch &batch, span<std::int32_t> tokens, span<std::uint32_t> row_status = {},
                          const call_options &options = detail::default_options,
                          const debug_arrays *debug = nullptr) const {
        try_sample_reference(batch, tokens, row_status, options, debug).value();
    }

    [[nodiscard]] parameters create_parameters(const parameters_options &options) const {
        return try_create_parameters(options).value();
    }
    [[nodiscard]] call start(path path_of_rows, void *logits, const parameters &values, std::uint64_t step,
                             const start_options &options = {}) const {
        return try_start(path_of_rows, logits, values, step, options).value();
    }
    void sample_on_device(path path_of_rows, void *logits, const parameters &values, std::uint64_t step,
                          span<std::int32_t> tokens, span<std::uint32_t> row_status = {}) const {
        try_sample_on_device(path_of_rows, logits, values, step, tokens, row_status).value();
    }
    void prewarm(const prewarm_spec &spec) const { try_prewarm(spec).value(); }
    [[nodiscard]] prewarming start_prewarm(const prewarm_spec &spec) const { return try_start_prewarm(spec).value(); }
    [[nodiscard]] sampler_stats stats() const { return try_stats().value(); }
    [[nodiscard]] sampler_info info() const { return try_info().value(); }
    [[nodiscard]] device_info device(std::size_t index) const { return try_device(index).value(); }
#endif

private:
    sampler(nuc_sampler *object, std::uint32_t max_k, bool plugin) noexcept
        : handle(object), max_k_(max_k), plugin_(plugin) {}

    result<void> sample_with(sampling_function function, const batch &batch, span<std::int32_t> tokens,
                             span<std::uint32_t> row_status, const call_options &options,
                             const debug_arrays *debug) const noexcept {
        detail::size_check check;
        const nuc_batch c_batch = detail::c_batch(batch, check);
        // A null pointer means the defaults, and the library then has less to check.
        const bool defaults = detail::are_defaults(options);
        const nuc_call_options c_options = detail::c_options(options);
        std::int32_t *const c_tokens = check.required(tokens, c_batch.num_rows, "tokens");
        std::uint32_t *const c_status = check.optional(row_status, c_batch.num_rows, "row_status");
        nuc_debug_arrays c_debug;
        if (debug != nullptr) c_debug = detail::c_debug(*debug, batch.logits, max_k_, check);
        if (check.failed()) return check.failure();
        detail::call_error error(plugin_);
        return error.done(function(get(), &c_batch, defaults ? nullptr : &c_options, c_tokens, c_status,
                                   debug == nullptr ? nullptr : &c_debug, &error.c));
    }

    std::uint32_t max_k_ = 0;
    bool plugin_ = false;
};

/**
 * The text of a function to embed: StableHLO in MLIR's text form. See nuc_emit. The caller owns the text. Any thread
 * may call this function.
 */
inline result<text> try_emit(const emit_options &options) noexcept {
    const detail::nul_check check = detail::names(options);
    if (check.failed()) return check.failure();
    const nuc_emit_options c = detail::c_emit(options);
    detail::call_error error;
    std::size_t size = 0;
    nuc_status status_of_call = nuc_emit(&c, nullptr, 0, &size, &error.c);
    if (status_of_call != NUC_OK) return error.failure(status_of_call);
    std::unique_ptr<char[]> data(new (std::nothrow) char[size + 1]);
    if (!data) return detail::out_of_memory();
    status_of_call = nuc_emit(&c, data.get(), size + 1, &size, &error.c);
    if (status_of_call != NUC_OK) return error.failure(status_of_call);
    return text(std::move(data), size);
}

/**
 * Fills the array of parameters that an embedded function takes, `[num_rows][parameter_columns]`. `batch` has the
 * parameters of the rows and no logits. If `options` has values other than the defaults, its `keep_ties` must be that
 * of the function. See nuc_pack_parameters. Any thread may call this function.
 */
inline result<void> try_pack_parameters(const emit_options &function, const batch &batch,
                                        span<std::int32_t> packed,
                                        const call_options &options = detail::default_options) noexcept {
    detail::size_check check;
    nuc_batch c_batch = detail::c_parameters(batch, function.num_rows, check);
    c_batch.logits = batch.logits.data();  // The library rejects logits.
    c_batch.dtype = static_cast<nuc_dtype>(function.dtype);
    c_batch.vocab = function.vocab;
    std::int32_t *const c_packed =
        check.required(packed, detail::product(function.num_rows, parameter_columns), "parameters");
    if (check.failed()) return check.failure();
    const detail::nul_check names = detail::names(function);
    if (names.failed()) return names.failure();
    const nuc_emit_options c = detail::c_emit(function);
    const nuc_call_options c_options = detail::c_options(options);
    // A null pointer means the defaults, and the keep_ties of the function.
    const nuc_call_options *const given = detail::are_defaults(options) ? nullptr : &c_options;
    detail::call_error error;
    return error.done(nuc_pack_parameters(&c, &c_batch, given, c_packed, &error.c));
}

/**
 * Compiles programs into files and returns the number of files written. See nuc_compile_ahead. Any thread may call this
 * function.
 */
inline result<std::size_t> try_compile_ahead(const compile_ahead_options &options) noexcept {
    detail::nul_check check;
    check.string(options.plugin_path, "plugin_path");
    check.string(options.topology, "topology");
    check.string(options.output_dir, "output_dir");
    check.options(options.plugin_options, "plugin_options");
    if (check.failed()) return check.failure();
    const auto plugin_options = detail::c_client_options(options.plugin_options);
    if (!plugin_options) return detail::out_of_memory();
    nuc_compile_ahead_options c = NUC_COMPILE_AHEAD_OPTIONS_INIT;
    c.plugin_path = options.plugin_path.c_str();
    c.topology = options.topology.c_str();
    c.plugin_options = options.plugin_options.empty() ? nullptr : plugin_options.get();
    c.num_plugin_options = options.plugin_options.size();
    c.output_dir = options.output_dir.c_str();
    c.row_counts = options.row_counts.data();
    c.num_row_counts = options.row_counts.size();
    c.vocab = options.vocab;
    c.max_k = options.max_k;
    c.dtype = static_cast<nuc_dtype>(options.dtype);
    c.path = static_cast<nuc_path>(options.path);
    c.keep_ties = options.keep_ties;
    c.debug_arrays = options.debug_arrays;
    c.smaller_row_counts = options.smaller_row_counts;
    c.output_dir_capacity = options.output_dir_capacity;
    c.row_buckets = options.row_buckets.empty() ? nullptr : options.row_buckets.data();
    c.num_row_buckets = options.row_buckets.size();
    c.logits = static_cast<nuc_logits_place>(options.logits);
    c.has_middle_dimension = options.has_middle_dimension;
    detail::call_error error;
    std::size_t written = 0;
    const nuc_status status_of_call = nuc_compile_ahead(&c, &written, &error.c);
    return error.done(status_of_call, written);
}

/** Sends the library's log up to `level` to standard error. See nuc_set_log. Any thread may call this function. */
inline result<void> try_set_log(log_level level) noexcept {
    detail::call_error error;
    return error.done(nuc_set_log(nullptr, nullptr, static_cast<nuc_log_level>(level), &error.c));
}

/**
 * Sends the library's log up to `level` to `callback(log_level, const char *message)`. The caller owns the callback. It
 * must live until the process ends, or until another set_log has replaced it and every call that began before has
 * returned. Several threads can call it at the same time. It must not throw: an exception ends the process. See
 * nuc_log_function for what it may do.
 */
template <class Callback>
result<void> try_set_log(log_level level, Callback &callback) noexcept {
    static_assert(std::is_invocable_v<Callback &, log_level, const char *>);
    const nuc_log_function run = [](void *user, nuc_log_level level_of_message, const char *message) noexcept {
        (*static_cast<Callback *>(user))(static_cast<log_level>(level_of_message), message);
    };
    detail::call_error error;
    return error.done(nuc_set_log(run, std::addressof(callback), static_cast<nuc_log_level>(level), &error.c));
}

#ifdef __cpp_exceptions
[[nodiscard]] inline std::string emit(const emit_options &options) {
    return std::string(try_emit(options).value().view());
}
inline void pack_parameters(const emit_options &function, const batch &batch, span<std::int32_t> packed,
                            const call_options &options = detail::default_options) {
    try_pack_parameters(function, batch, packed, options).value();
}
inline std::size_t compile_ahead(const compile_ahead_options &options) { return try_compile_ahead(options).value(); }
inline void set_log(log_level level) { try_set_log(level).value(); }
template <class Callback>
void set_log(log_level level, Callback &callback) {
    try_set_log(level, callback).value();
}
#endif

}  // namespace nucleus

#endif  // NUCLEUS_HPP

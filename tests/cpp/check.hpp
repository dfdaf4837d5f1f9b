// Shared by the C++ test programs: counted checks.
#ifndef CHECK_HPP
#define CHECK_HPP

#include <nucleus.hpp>

#include <cstdio>
#include <cstring>

inline long checks = 0, failures = 0;

// Counts a check, prints it if it fails, and returns whether it passes.
inline bool check_that(bool holds, const char *file, int line, const char *what) {
    checks++;
    if (!holds) {
        failures++;
        std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, what);
    }
    return holds;
}
#define CHECK(...) check_that(static_cast<bool>(__VA_ARGS__), __FILE__, __LINE__, #__VA_ARGS__)

// Checks that a failure has the code, and names the argument if `argument` is not null.
inline bool check_failure(const nucleus::error &error, nucleus::status code, const char *argument, const char *file,
                          int line, const char *what) {
    const char *const got = error.argument() == nullptr ? "none" : error.argument();
    const bool holds = error.code() == code && error.message()[0] != '\0' &&
                       (argument == nullptr || std::strcmp(got, argument) == 0);
    if (!check_that(holds, file, line, what)) {
        std::fprintf(stderr, "    %s, argument %s: %s\n", nucleus::to_string(error.code()), got, error.message());
    }
    return holds;
}
#define CHECK_FAILURE(code, argument, ...) \
    check_failure((__VA_ARGS__).error(), nucleus::status::code, argument, __FILE__, __LINE__, #__VA_ARGS__)

// Prints the last line of a program and returns its exit status.
inline int report() {
    std::printf("%ld checks, %ld failed\n", checks, failures);
    return failures != 0;
}

#endif

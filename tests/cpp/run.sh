#!/usr/bin/env bash
# Compiles and runs the tests of include/nucleus.hpp: with gcc and clang, in C++17, C++20 and C++23, with and without
# exceptions; every test vector; under valgrind, and with the address and undefined behaviour sanitizers; on the
# built-in backend and on a PJRT plugin. `make test` runs this script. It needs `make build` and `make plugins`.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
lib=$(realpath "$target/lib")
bin=$target/cpptest
plugin=.cache/plugins/lammps-jax-pjrt-cpu.so
# The header of the PJRT C API, which the crate pjrt-sys contains. GCC accepts it only with -fpermissive.
pjrt=$(cargo metadata --locked --offline --format-version 1 | python3 -c 'import json, pathlib, sys
for package in json.load(sys.stdin)["packages"]:
    if package["name"] == "pjrt-sys":
        print(pathlib.Path(package["manifest_path"]).parent / "include")')
warnings="-Wall -Wextra -Wconversion -Wshadow -pedantic -Werror -Iinclude"
shared="-L$lib -lnucleus -Wl,-rpath,$lib -pthread"
unset NUCLEUS_PJRT_PLUGIN NUCLEUS_PROGRAM_DIR NUCLEUS_LOG
mkdir -p "$bin"
. tests/report.sh

# The header compiles without a warning, also if it is included twice, and so do programs that use all of it, with and
# without exceptions. The other programs are compiled without a warning when they run.
warning_free() {
    local compiler standard count=0
    printf '#include <nucleus.hpp>\n' >"$bin/header.cpp"
    for compiler in g++ clang++; do
        for standard in c++17 c++20 c++2b; do
            "$compiler" -std=$standard $warnings -include "$bin/header.cpp" -fsyntax-only tests/cpp/test_handles.cpp &&
                "$compiler" -std=$standard $warnings -fno-exceptions -fsyntax-only tests/cpp/unit_results.cpp ||
                return 1
            count=$((count + 2))
        done
    done
    echo "$count checks, 0 failed"
}

# nucleus.hpp defines no macro except its include guard. Names that start with an underscore belong to the compiler and
# its library.
no_macros() {
    local headers='atomic chrono cstddef cstdint cstdio cstring exception iterator limits memory new optional string
        string_view type_traits utility vector'
    macros() { c++ -std=c++17 -Iinclude -dM -E -x c++ - | awk '$2 !~ /^_/ { print $2 }' | sort; }
    [ "$(comm -13 <({ printf '#include <%s>\n' $headers nucleus.h; } | macros) <(echo '#include <nucleus.hpp>' | macros))" \
        = NUCLEUS_HPP ] && echo "1 checks, 0 failed"
}

# nucleus.hpp uses every function of nucleus.h except nuc_sample_flat, which exists for languages without structs.
covers_the_c_interface() {
    local function count=0
    for function in $(scripts/header.py functions); do
        [ "$function" = nuc_sample_flat ] || grep -qE "\b$function\b[(,>]" include/nucleus.hpp ||
            { echo "nucleus.hpp does not call $function"; return 1; }
        count=$((count + 1))
    done
    echo "$count checks, 0 failed"
}

# The example in the comment at the beginning of the header.
example_of_the_header() {
    sed -n 's/^ \*     \?//p' include/nucleus.hpp | sed -n '/^#include <nucleus.hpp>/,/^}/p' >"$bin/example.cpp" &&
        c++ -std=c++17 $warnings "$bin/example.cpp" -o "$bin/example" $shared && [ "$("$bin/example" | wc -w)" = 2 ] &&
        echo "2 checks, 0 failed"
}

# Two files that were compiled with different standards, with and without exceptions, and by different compilers.
two_files() {
    local compiler first second
    for compiler in g++ clang++; do
        "$compiler" -std=c++17 -g $warnings -c tests/cpp/test_units.cpp -o "$bin/units.$compiler.o" &&
            "$compiler" -std=c++20 -g $warnings -fno-exceptions -c tests/cpp/unit_results.cpp \
                -o "$bin/results.$compiler.o" || return 1
    done
    for first in g++ clang++; do
        for second in g++ clang++; do
            "$first" "$bin/units.$first.o" "$bin/results.$second.o" -o "$bin/test_units" $shared && "$bin/test_units" ||
                return 1
        done
    done
}

# build NAME COMPILER OPTION...: compiles tests/cpp/NAME.cpp.
build() {
    "$2" -g -O1 $warnings "${@:3}" "tests/cpp/$1.cpp" -o "$bin/$1" $shared
}

# runs NAME "ARGUMENTS" COMPILER OPTION...: compiles a program and runs it.
runs() {
    build "$1" "${@:3}" && "$bin/$1" $2
}

sanitized() {
    runs "$1" "$2" g++ -std=c++17 -fsanitize=address,undefined -fno-sanitize-recover=all
}

memcheck() {
    runs "$1" "" g++ -std=c++17 && valgrind --quiet --error-exitcode=99 --leak-check=full --num-callers=50 \
        --suppressions=tests/c/valgrind.supp "$bin/$1"
}

run "no warnings" warning_free
run "no macros" no_macros
run "every function of nucleus.h" covers_the_c_interface
run "example in nucleus.hpp" example_of_the_header
run "two files, different options" two_files
run "test_vectors, built-in, clang" runs test_vectors tests/vectors clang++ -std=c++17
run "test_vectors, built-in, sanitizers" sanitized test_vectors tests/vectors
for program in test_handles test_sampling; do
    run "$program, valgrind" memcheck "$program"
    run "$program, sanitizers" sanitized "$program" ""
done
run "test_sampling, plugin, C++23" runs test_sampling "$plugin" g++ -std=c++2b
run "test_device, plugin" runs test_device "$plugin" g++ -std=c++17 -fpermissive -isystem "$pjrt"

finish

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
pjrt=$(scripts/pjrt-include.sh)
warnings="-Wall -Wextra -Wconversion -Wshadow -pedantic -Werror -Iinclude"
shared="-L$lib -lnucleus -Wl,-rpath,$lib -pthread"
unset NUCLEUS_PJRT_PLUGIN NUCLEUS_PROGRAM_DIR NUCLEUS_LOG
mkdir -p "$bin"
. tests/report.sh

# compile NAME SOURCE COMPILER OPTION...: starts to compile a program, or an object file if its name ends with .o. Waits
# if all processors are busy.
compile() {
    local name=$1 source=$2 compiler=$3
    local -a link=($shared)
    shift 3
    if [[ $name == *.o ]]; then link=(-c); fi
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n || true; done
    rm -f "$bin/$name"
    "$compiler" -g $warnings "$@" "$source" -o "$bin/$name" "${link[@]}" >"$bin/$name.log" 2>&1 &
}

# compiled NAME: fails and prints the errors of the compiler if there is no such program.
compiled() {
    [ -e "$bin/$1" ] || { cat "$bin/$1.log"; return 1; }
}

# runs NAME ARGUMENT...
runs() {
    compiled "$1" && "$bin/$1" "${@:2}"
}

memcheck() {
    compiled "$1" && valgrind --quiet --error-exitcode=99 --leak-check=full --num-callers=50 \
        --suppressions=tests/c/valgrind.supp "$bin/$1"
}

# The header compiles without a warning, also if it is included twice, and so do programs that use all of it, with gcc
# and clang, in every standard, with and without exceptions.
printf '#include <nucleus.hpp>\n' >"$bin/header.cpp"
for compiler in g++ clang++; do
    for standard in c++17 c++20 c++2b; do
        compile "handles.$compiler.$standard.o" tests/cpp/test_handles.cpp $compiler -std=$standard \
            -include "$bin/header.cpp"
        compile "results.$compiler.$standard.o" tests/cpp/unit_results.cpp $compiler -std=$standard -fno-exceptions
    done
    compile "units.$compiler.o" tests/cpp/test_units.cpp $compiler -std=c++17
done
sanitizers="-fsanitize=address,undefined -fno-sanitize-recover=all"
# GCC gives more warnings if it optimizes and a sanitizer is on.
compile quickstart.sanitized.o examples/cpp/quickstart.cpp g++ -std=c++17 -O2 -fsanitize=address
compile test_vectors tests/cpp/test_vectors.cpp clang++ -std=c++17
compile test_vectors_sanitized tests/cpp/test_vectors.cpp g++ -std=c++17 $sanitizers
compile test_handles tests/cpp/test_handles.cpp g++ -std=c++17
compile test_handles_sanitized tests/cpp/test_handles.cpp g++ -std=c++17 $sanitizers
compile test_sampling tests/cpp/test_sampling.cpp g++ -std=c++2b
compile test_sampling_sanitized tests/cpp/test_sampling.cpp g++ -std=c++17 $sanitizers
compile test_device tests/cpp/test_device.cpp g++ -std=c++17 -fpermissive -isystem "$pjrt"
wait

warning_free() {
    local compiler standard count=1
    compiled quickstart.sanitized.o || return 1
    for compiler in g++ clang++; do
        for standard in c++17 c++20 c++2b; do
            compiled "handles.$compiler.$standard.o" && compiled "results.$compiler.$standard.o" || return 1
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
    [ "$(comm -13 <({ printf '#include <%s>\n' $headers nucleus.h; } | macros) \
        <(echo '#include <nucleus.hpp>' | macros))" = NUCLEUS_HPP ] && echo "1 checks, 0 failed"
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
    local first second
    for first in g++ clang++; do
        for second in g++ clang++; do
            compiled "units.$first.o" &&
                "$first" "$bin/units.$first.o" "$bin/results.$second.c++20.o" -o "$bin/test_units" $shared &&
                "$bin/test_units" || return 1
        done
    done
}

# A wrong number in any result line of a vector makes test_vectors fail and name the line.
vectors_can_fail() {
    local key count=0
    for key in tokens row_status greedy_sampled topk_logits_unsorted topk_topp_unnorm_probs_i32_unsorted \
        random_unnorm_cdf_sampled_high random_unnorm_cdf_sampled_low next_tokens topk_indices_k topk_logits_k \
        topk_topp_unnorm_probs_i32_k; do
        rm -rf "$bin/wrong" && mkdir "$bin/wrong" || return 1
        # 12345678 is wrong as a decimal and as a hexadecimal number.
        sed "0,/^$key [^ ]*/s//$key 12345678/" tests/vectors/bounded.txt >"$bin/wrong/bounded.txt" || return 1
        if runs test_vectors "$bin/wrong" >"$bin/wrong/log" 2>&1; then echo "$key: no failure"; return 1; fi
        holds "the failure names $key" grep -q "case .*, $key, function" "$bin/wrong/log" &&
            holds "it is the only failure" grep -q ' 1 failed$' "$bin/wrong/log" || return 1
        count=$((count + 2))
    done
    echo "$count checks, 0 failed"
}

run "no warnings" warning_free
run "no macros" no_macros
run "every function of nucleus.h" covers_the_c_interface
run "example in nucleus.hpp" example_of_the_header
run "two files, different options" two_files
run "test_vectors, built-in" runs test_vectors tests/vectors
run "test_vectors, wrong vectors" vectors_can_fail
run "test_vectors, built-in, sanitizers" runs test_vectors_sanitized tests/vectors
run "test_handles, valgrind" memcheck test_handles
run "test_handles, sanitizers" runs test_handles_sanitized
run "test_sampling, valgrind" memcheck test_sampling
run "test_sampling, sanitizers" runs test_sampling_sanitized
run "test_sampling, plugin" runs test_sampling "$plugin"
run "test_device, plugin" runs test_device "$plugin"

finish

#!/usr/bin/env bash
# Builds the C and C++ tests with the release library and runs them on the built-in backend, with and without valgrind,
# and on a PJRT plugin without valgrind. Also tests compiling ahead of time with that plugin and with libtpu. `make
# test` runs this script. It needs `make examples` and `make plugins`.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
release=$(realpath "$target/release")
bin=$target/ctest
plugin=.cache/plugins/lammps-jax-pjrt-cpu.so
warnings="-g -O1 -Wall -Wextra -pedantic -Werror -Iinclude"
shared="-L$release -lnucleus -Wl,-rpath,$release"
static="$release/libnucleus.a -lpthread -ldl -lm"
passed=0 failed=0
unset NUCLEUS_PJRT_PLUGIN NUCLEUS_PROGRAM_DIR NUCLEUS_LOG
mkdir -p "$bin"

# run NAME COMMAND...: runs a test and prints one line. If the command fails, also prints its output. Exit status 77
# means that the test cannot run here; the last line of its output states the reason.
run() {
    local name=$1 start=$SECONDS
    shift
    local status=0
    "$@" >"$bin/log" 2>&1 || status=$?
    if [ "$status" -eq 0 ]; then
        passed=$((passed + 1))
        printf 'ok      %-42s %3d s  %s\n' "$name" $((SECONDS - start)) "$(grep -a 'checks,' "$bin/log" | tail -n 1)"
        grep -a '^skipped: ' "$bin/log" || true
    elif [ "$status" -eq 77 ]; then
        echo "skipped: $name: $(tail -n 1 "$bin/log")"
    else
        failed=$((failed + 1))
        printf 'FAILED  %s\n' "$name"
        tail -n 60 "$bin/log" | sed 's/^/        /'
    fi
}

memcheck() {
    valgrind --quiet --error-exitcode=99 --leak-check=full --num-callers=50 --suppressions=tests/c/valgrind.supp "$@"
}

# The library exports only the functions of the header.
exported_symbols() {
    local exported declared
    exported=$(nm -D --defined-only "$release/libnucleus.so" | awk '{ sub(/@.*/, "", $3); print $3 }' | sort)
    declared=$(grep -oE '\bnuc_[a-z_]+\(' include/nucleus.h | tr -d '(' | sort -u)
    if ! diff <(echo "$declared") <(echo "$exported"); then
        echo "left: declared in the header; right: exported by the library"
        return 1
    fi
    echo "$(wc -l <<<"$exported") checks, 0 failed"
}

# The header compiles in old and new versions of C and C++, also if it is included twice.
header_compiles() {
    local standard
    printf '#include <nucleus.h>\n#include <nucleus.h>\n' >"$bin/header.c"
    for standard in c99 c11 c17; do
        cc -std=$standard $warnings -fsyntax-only "$bin/header.c" || return 1
    done
    for standard in c++11 c++17 c++20; do
        c++ -std=$standard -x c++ $warnings -fsyntax-only "$bin/header.c" || return 1
    done
    echo "6 checks, 0 failed"
}

# The files that `make install` installs are enough to build and run a program.
installed_library() {
    local prefix
    prefix=$(realpath "$bin")/root/opt/nucleus
    make install PREFIX=/opt/nucleus DESTDIR="$(realpath "$bin")/root" &&
        cc -std=c99 $warnings examples/c/quickstart.c -o "$bin/installed" -I"$prefix/include" -L"$prefix/lib" \
            -lnucleus -Wl,-rpath,"$prefix/lib" &&
        "$bin/installed" &&
        "$prefix/bin/nucleus" --version | grep -Eq '^nucleus [0-9]+\.[0-9]+\.[0-9]+$' &&
        grep -q '^prefix=/opt/nucleus$' "$prefix/lib/pkgconfig/nucleus.pc" &&
        grep -Eq '^Version: [0-9]+\.[0-9]+\.[0-9]+$' "$prefix/lib/pkgconfig/nucleus.pc" &&
        echo "6 checks, 0 failed"
}

# libtpu can compile for a TPU that this host does not have. Its errors name the environment variables that it needs.
libtpu_without_a_tpu() {
    local libtpu=.cache/plugins/libtpu.so unset="-u TPU_SKIP_MDS_QUERY -u TPU_WORKER_HOSTNAMES"
    env TPU_SKIP_MDS_QUERY=1 TPU_WORKER_HOSTNAMES=localhost ALLOW_MULTIPLE_LIBTPU_LOAD=1 \
        "$bin/test_ahead" "$libtpu" "$1" v5e:2x2 && env $unset "$bin/test_ahead" "$libtpu" "$1" unset
}

# The program in the README builds and runs.
readme_example() {
    sed -n '/^```c$/,/^```$/p' README.md | sed '/^```/d' >"$bin/readme.c"
    cc -std=c99 $warnings "$bin/readme.c" -o "$bin/readme" $shared && "$bin/readme" && echo "2 checks, 0 failed"
}

# The tokens of the examples do not depend on the backend or on the other rows of a batch.
examples_agree() {
    "$target/examples/quickstart" >"$bin/quickstart.1" &&
        "$target/examples/quickstart" "$plugin" >"$bin/quickstart.2" &&
        cmp "$bin/quickstart.1" "$bin/quickstart.2" &&
        "$target/examples/generate" --slots 3 --output "$bin/text.1" README.md >/dev/null &&
        "$target/examples/generate" --slots 8 --output "$bin/text.2" README.md >/dev/null &&
        "$target/examples/generate" --slots 2 --output "$bin/text.3" --plugin "$plugin" README.md >/dev/null &&
        cmp "$bin/text.1" "$bin/text.2" && cmp "$bin/text.1" "$bin/text.3" && [ -s "$bin/text.1" ] &&
        echo "4 checks, 0 failed"
}

# A program that runs with more privileges than its user ignores NUCLEUS_* variables.
setuid_environment() {
    local directory status=0
    directory=$(mktemp -d) && chmod 755 "$directory" &&
        install -o 65534 -g 65534 -m 4755 "$bin/test_setuid" "$directory/raised" &&
        install -m 755 "$bin/test_setuid" "$directory/plain" || return 1
    local -a unprivileged=(setpriv --reuid 1 --regid 1 --clear-groups env NUCLEUS_PJRT_PLUGIN=/nowhere/plugin.so)
    "${unprivileged[@]}" NUCLEUS_LOG=debug "$directory/raised" raised 2>"$directory/errors" || status=$?
    cat "$directory/errors"
    if [ "$status" -eq 0 ]; then
        "${unprivileged[@]}" NUCLEUS_LOG=off "$directory/plain" plain && [ ! -s "$directory/errors" ] || status=1
    fi
    rm -rf "$directory"
    return "$status"
}

for source in tests/c/test_*.c; do
    name=$(basename "$source" .c)
    cc -std=c99 $warnings "$source" -o "$bin/$name" $shared -lpthread -lm
done
cc -std=c99 $warnings tests/c/test_basics.c -o "$bin/test_basics_static" $static
cc -std=c99 $warnings tests/c/test_setuid.c -o "$bin/test_setuid" $static
c++ -std=c++17 $warnings tests/c/test_cpp.cpp -o "$bin/test_cpp" $shared
c++ -std=c++17 $warnings tests/c/test_cpp.cpp -o "$bin/test_cpp_static" $static

run "exported symbols" exported_symbols
run "header compiles" header_compiles
run "installed library" installed_library
run "program in the README" readme_example
run "examples" examples_agree
for program in test_basics test_arguments test_debug test_threads test_layout test_log test_cpp; do
    run "$program, built-in, valgrind" memcheck "$bin/$program"
    run "$program, built-in" "$bin/$program"
    run "$program, plugin" "$bin/$program" "$plugin"
done
for program in test_lifetime test_memory; do
    run "$program, built-in" "$bin/$program"
    run "$program, plugin" "$bin/$program" "$plugin"
done
if [ "$(id -u)" -ne 0 ] || ! command -v setpriv >/dev/null; then
    echo "skipped: setuid, because only root with setpriv can run it"
else
    run "setuid" setuid_environment
fi
rm -rf "$bin/ahead"
run "test_ahead, plugin" "$bin/test_ahead" "$plugin" "$bin/ahead/plugin"
# Whether this host may have a TPU. The rule is that of the library: an accelerator device node, or a PCI device of
# vendor 1ae0 that is neither a disk nor a network card.
shows_tpu() {
    local device
    [ -e /dev/accel0 ] && return
    for device in /sys/bus/pci/devices/*; do
        if [ "$(cat "$device/vendor" 2>/dev/null)" = 0x1ae0 ] && ! grep -q '^0x0[12]' "$device/class"; then return; fi
    done
    return 1
}
if shows_tpu; then
    echo "skipped: libtpu without a TPU, because this host may have one"
else
    run "test_ahead, libtpu" libtpu_without_a_tpu "$bin/ahead/libtpu"
fi
run "test_basics, static library, valgrind" memcheck "$bin/test_basics_static"
run "test_cpp, static library" "$bin/test_cpp_static"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

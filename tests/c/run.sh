#!/usr/bin/env bash
# Builds the C and C++ tests with the release library and runs them on the built-in backend, with and without valgrind,
# and on a PJRT plugin without valgrind. Also tests compiling ahead of time with that plugin and with libtpu. `make
# test` runs this script. It needs `make examples` and `make plugins`.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
release=$(realpath "$target/release")
lib=$(realpath "$target/lib")
bin=$target/ctest
plugin=.cache/plugins/lammps-jax-pjrt-cpu.so
# The header of the PJRT C API, which the crate pjrt-sys contains.
pjrt=$(scripts/pjrt-include.sh)
warnings="-g -O1 -Wall -Wextra -Wconversion -pedantic -Werror -Iinclude -isystem $pjrt"
shared="-L$lib -lnucleus -Wl,-rpath,$lib"
static="$lib/libnucleus.a -lpthread -ldl -lm"
# `sort` must order names as Python does.
export LC_ALL=C
unset NUCLEUS_PJRT_PLUGIN NUCLEUS_PROGRAM_DIR NUCLEUS_LOG
mkdir -p "$bin"
. tests/report.sh

memcheck() {
    valgrind --quiet --error-exitcode=99 --leak-check=full --num-callers=50 --suppressions=tests/c/valgrind.supp "$@"
}

# The libraries export exactly the functions of the header. In the shared library each symbol has the version of the
# ABI.
exported_symbols() {
    local abi functions
    abi=$(scripts/header.py abi-version) && functions=$(scripts/header.py functions) || return 1
    # link_library.py exports the functions of the header. Cargo's library exports the functions of the sources.
    holds "the header has every exported function of the sources" \
        diff <(echo "$functions") <(nm -D --defined-only "$release/libnucleus.so" | awk '{ print $3 }' | sort) &&
        holds "libnucleus.so exports the header's functions, with the version of the ABI" \
            diff <(sed "s/\$/@@NUCLEUS_$abi/" <<<"$functions") \
            <(nm -D --defined-only "$lib/libnucleus.so" | awk '$2 != "A" { print $3 }' | sort) &&
        holds "libnucleus.a has no other global symbols" \
            diff <(echo "$functions") <(nm -g --defined-only "$lib/libnucleus.a" | awk 'NF == 3 { print $3 }' | sort) &&
        echo "$(($(wc -l <<<"$functions") * 3)) checks, 0 failed"
}

# Checks the dynamic section, the program headers and the debug information of the shared library.
shared_library_format() {
    local abi dynamic headers address
    abi=$(scripts/header.py abi-version)
    dynamic=$(readelf -dW "$lib/libnucleus.so") && headers=$(readelf -lW "$lib/libnucleus.so") || return 1
    address=$(nm -D --defined-only "$lib/libnucleus.so" | awk '/ nuc_version@/ { print $1 }')
    holds "SONAME" grep -q "(SONAME) .*\[libnucleus.so.$abi\]" <<<"$dynamic" &&
        holds "the SONAME is a link to the library" [ "$lib/libnucleus.so.$abi" -ef "$lib/libnucleus.so" ] &&
        holds "all symbols are resolved when the library is loaded" grep -q '(FLAGS) .*BIND_NOW' <<<"$dynamic" &&
        holds "relocated data is read-only" grep -q ' GNU_RELRO ' <<<"$headers" &&
        holds "the stack is not executable" grep -q ' GNU_STACK .* RW ' <<<"$headers" &&
        holds "no search path" [ -z "$(grep -E 'RPATH|RUNPATH' <<<"$dynamic")" ] &&
        holds "no relocations in the code" [ -z "$(grep TEXTREL <<<"$dynamic")" ] &&
        holds "no other libraries than those of the C compiler" [ -z "$(grep '(NEEDED)' <<<"$dynamic" |
            grep -vE '\[(lib(c|m|dl|pthread|gcc_s)|ld-linux-.*)\.so\.[0-9]+\]')" ] &&
        holds "stripped" [ -z "$(readelf -SW "$lib/libnucleus.so" | grep -E ' \.(symtab|debug_)')" ] &&
        holds "debuggers find the line of a function" \
            grep -Eq 'src/abi/[a-z_/]+\.rs:[0-9]+' <<<"$(addr2line -e "$lib/libnucleus.so" "0x$address")" &&
        echo "10 checks, 0 failed"
}

# The shared library and the command run with the oldest glibc that docs/compatibility.md names.
oldest_glibc() {
    local documented file versions needed
    documented=$(sed -n 's/.* glibc \([0-9.]*\) or newer.*/\1/p' docs/compatibility.md)
    for file in "$lib/libnucleus.so" "$release/nucleus"; do
        versions=$(objdump -T "$file" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//') || return 1
        needed=$(sort -V <<<"$versions" | tail -n 1)
        holds "$file needs glibc $needed; docs/compatibility.md says $documented" \
            [ "$(printf '%s\n' "$needed" "$documented" | sort -V | tail -n 1)" = "$documented" ] || return 1
    done
    echo "2 checks, 0 failed"
}

# A program can link libnucleus.a together with another Rust static library. The other library is linked in two forms:
# as one object with all its symbols, which would clash with any Rust symbol that libnucleus.a exports, and as rustc's
# archive.
static_library_beside_rust() {
    rustc --crate-type staticlib -C panic=unwind -C opt-level=1 tests/c/beside.rs -o "$bin/libbeside.a" &&
        ld -r -u beside_work --gc-sections "$bin/libbeside.a" -o "$bin/beside.o" &&
        cc -std=c99 $warnings -Dmain=readme_main -c "$bin/readme.c" -o "$bin/readme_main.o" || return 1
    local other
    for other in "$bin/beside.o $static" "$bin/libbeside.a $static" "$static $bin/libbeside.a"; do
        cc -std=c99 $warnings tests/c/beside.c "$bin/readme_main.o" -o "$bin/beside" $other &&
            "$bin/beside" || return 1
    done
}

# compile_all "COMPILERS" "STANDARDS" FILE...: compiles files with every compiler and standard, without a warning.
compile_all() {
    local compiler standard
    for compiler in $1; do
        for standard in $2; do
            "$compiler" -std="$standard" $warnings -fsyntax-only "${@:3}" || return 1
        done
    done
}

# The header and all programs compile with gcc and clang, in every version of C and C++ in which they are valid. The
# header may be included twice. (tests/library/header.rs checks the initializers and the example of the header in the
# same way.)
warning_free() {
    printf '#include <nucleus.h>\n#include <nucleus.h>\nextern int unused;\n' >"$bin/header.c"
    local c89=("$bin/header.c" "$bin/readme.c" examples/c/quickstart.c)
    local c99=(tests/c/test_*.c tests/c/beside.c "$bin/layout.c")
    local cpp17=(tests/c/test_cpp.cpp examples/cpp/generate.cpp)
    compile_all "gcc clang" "c89 c99 c11 c17" "${c89[@]}" &&
        compile_all "g++ clang++" "c++11 c++14 c++17 c++20" -x c++ "${c89[@]}" &&
        compile_all "gcc clang" "c99 c11 c17" -Itests/c "${c99[@]}" &&
        compile_all "g++ clang++" "c++17 c++20" "${cpp17[@]}" &&
        echo "$((${#c89[@]} * 16 + ${#c99[@]} * 6 + ${#cpp17[@]} * 4)) checks, 0 failed"
}

# pkg_config HOME OPTION...: runs pkg-config for the library that is installed in HOME/.local.
pkg_config() {
    PKG_CONFIG_PATH=$1/.local/lib/pkgconfig pkg-config "${@:2}" nucleus
}

# The files that `make install` installs are enough to build and run a program with the README's commands.
installed_library() {
    local home command before prefix abi
    rm -rf "$bin/home" "$bin/root" && mkdir -p "$bin/home/work" "$bin/home/archive" || return 1
    home=$(realpath "$bin/home") prefix=$home/.local abi=$(scripts/header.py abi-version)
    make build && before=$(stat -c '%i %y' "$lib/libnucleus.a") && make install PREFIX="$prefix" || return 1
    holds "nothing is linked again" [ "$before" = "$(stat -c '%i %y' "$lib/libnucleus.a")" ] || return 1

    # The environment is that of a user's terminal with another home directory. No variable names the library's
    # directory.
    cp "$bin/readme.c" "$home/work/main.c"
    command=$(grep -m 1 '^gcc main.c \$(PKG_CONFIG_PATH' README.md) || return 1
    local -a user=(env -u LD_LIBRARY_PATH -u LD_RUN_PATH -u LIBRARY_PATH -u CPATH "HOME=$home" bash -euc)
    holds "the command in the README works" "${user[@]}" "cd ~/work; $command; ./a.out" &&
        holds "the program needs the versioned name" \
            grep -q "\[libnucleus.so.$abi\]" <<<"$(readelf -d "$home/work/a.out")" &&
        holds "debug information beside the library" \
            grep -q 'src/abi/' <<<"$(addr2line -e "$prefix/lib/libnucleus.so.$abi" \
                "0x$(nm -D "$prefix/lib/libnucleus.so" | awk '/ nuc_version@/ { print $1 }')")" || return 1

    # The first directory that the linker searches contains only the static library.
    cp "$prefix/lib/libnucleus.a" "$home/archive/"
    holds "pkg-config --static names the libraries that libnucleus.a needs" \
        cc "$home/work/main.c" -L"$home/archive" $(pkg_config "$home" --static --cflags --libs) \
            -o "$home/work/static" &&
        holds "the program does not need the shared library" \
            [ -z "$(readelf -d "$home/work/static" | grep 'NEEDED.*nucleus')" ] &&
        "$home/work/static" &&
        holds "the version of the command" \
            grep -Eq '^nucleus [0-9]+\.[0-9]+\.[0-9]+$' <<<"$("$prefix/bin/nucleus" --version)" &&
        holds "the version of the package" \
            grep -Eq '^[0-9]+\.[0-9]+\.[0-9]+$' <<<"$(pkg_config "$home" --modversion)" &&
        holds "every header and layout file is installed" \
            diff <(find include -type f | sed 's|.*/||' | sort) <(cd "$prefix" &&
                find include share/nucleus -type f ! -name installed-files | sed 's|.*/||' | sort) &&
        echo "10 checks, 0 failed"
}

# PREFIX can be relative, DESTDIR replaces the root directory, and only directories that need an rpath get one.
install_options() {
    local root
    root=$(realpath "$bin")/root
    rm -rf "$root" && mkdir -p "$root" || return 1
    # The variables are those that `make install` passes.
    install_to() { env VERSION=1.2.3 RPATH=yes DESTDIR= "$@" scripts/install.sh install "$(realpath "$target")"; }
    install_to PREFIX=relative/prefix DESTDIR="$root/stage" && install_to PREFIX=/usr DESTDIR="$root/usr" &&
        install_to PREFIX=/opt/n RPATH=no DESTDIR="$root/opt" || return 1
    holds "a relative PREFIX is relative to the current directory" \
        grep -qx "prefix=$PWD/relative/prefix" "$root/stage$PWD/relative/prefix/lib/pkgconfig/nucleus.pc" &&
        holds "no rpath to /usr/lib" [ -z "$(grep rpath "$root/usr/usr/lib/pkgconfig/nucleus.pc")" ] &&
        holds "no rpath with RPATH=no" [ -z "$(grep rpath "$root/opt/opt/n/lib/pkgconfig/nucleus.pc")" ] &&
        holds "the shared library" [ -f "$root/opt/opt/n/lib/libnucleus.so" ] &&
        echo "4 checks, 0 failed"
}

# A program that is linked with -static cannot load a plugin. It gets an error, and does not crash.
statically_linked() {
    local form
    for form in -static -static-pie; do
        cc -std=c99 $warnings $form tests/c/static.c -o "$bin/static" $static && "$bin/static" "$plugin" || return 1
    done
    echo "16 checks, 0 failed"
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
    cc -std=c99 $warnings "$source" -o "$bin/$name" $shared -lpthread -lm -ldl
done
python3 tests/c/layout.py include/nucleus.layout.json >"$bin/layout.c"
cc -std=c99 $warnings -Itests/c "$bin/layout.c" -o "$bin/layout" $shared
cc -std=c99 $warnings tests/c/test_basics.c -o "$bin/test_basics_static" $static
cc -std=c99 $warnings tests/c/test_setuid.c -o "$bin/test_setuid" $static
cc -std=c99 $warnings tests/c/test_unwind.c -o "$bin/test_unwind_static" $static
c++ -std=c++17 $warnings tests/c/test_cpp.cpp -o "$bin/test_cpp" $shared
c++ -std=c++17 $warnings tests/c/test_cpp.cpp -o "$bin/test_cpp_static" $static

run "exported symbols" exported_symbols
run "program in the README" readme_example
run "no warnings" warning_free
run "layout" "$bin/layout"
run "shared library's format" shared_library_format
run "oldest glibc" oldest_glibc
run "static library beside Rust" static_library_beside_rust
run "installed library" installed_library
run "options of make install" install_options
run "examples" examples_agree
for program in test_basics test_arguments test_debug test_device test_threads test_layout test_log test_cpp; do
    run "$program, built-in, valgrind" memcheck "$bin/$program"
    run "$program, built-in" "$bin/$program"
    run "$program, plugin" "$bin/$program" "$plugin"
done
for program in test_lifetime test_memory test_signals; do
    run "$program, built-in" "$bin/$program"
    run "$program, plugin" "$bin/$program" "$plugin"
done
run "test_vectors, built-in, valgrind" memcheck "$bin/test_vectors" builtin tests/vectors/*.txt
run "test_vectors, plugin, f32" "$bin/test_vectors" "$plugin" tests/vectors/*.txt
run "test_unwind, plugin" "$bin/test_unwind" "$plugin"
run "test_unwind, plugin, static library" "$bin/test_unwind_static" "$plugin"
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
run "program linked with -static" statically_linked

finish

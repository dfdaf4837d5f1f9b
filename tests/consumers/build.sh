# Functions that build and run the programs in tests/consumers/project with an installed library. run.sh and test-deb.sh
# source this file, also in a system without the rest of the tree. They return 1 after a failure.

# linked KIND PROGRAM: runs a program and checks that it uses the shared library (shared), does not use it (static), or
# uses no shared library at all (alone).
linked() {
    local needed
    needed=$(readelf -d "$2" | grep '(NEEDED)' || true)
    case $1 in
        shared) grep -q '\[libnucleus\.so\.[0-9]*\]' <<<"$needed" ;;
        static) [ -n "$needed" ] && ! grep -q nucleus <<<"$needed" ;;
        alone) [ -z "$needed" ] ;;
    esac || { echo "$2 is not linked as wanted ($1): $needed"; return 1; }
    "$2"
}

# with_pkg_config DIRECTORY SOURCES: DIRECTORY contains nucleus.pc.
with_pkg_config() {
    local out compiler source kind flags
    out=$(mktemp -d)
    for kind in shared static alone; do
        case $kind in
            shared) flags=$(PKG_CONFIG_PATH=$1 pkg-config --cflags --libs nucleus) ;;
            static) flags=$(PKG_CONFIG_PATH=$1 pkg-config --cflags --libs nucleus-static) ;;
            alone) flags="-static $(PKG_CONFIG_PATH=$1 pkg-config --static --cflags --libs nucleus)" ;;
        esac || return 1
        # pkg-config writes a backslash before each space of a path. eval makes the shell interpret these backslashes.
        for source in main.c main.cpp; do
            compiler=cc
            [ $source = main.c ] || compiler="c++ -std=c++17"
            eval "$compiler \"\$2/\$source\" $flags -o \"\$out/\$source.\$kind\"" &&
                linked $kind "$out/$source.$kind" || return 1
        done
    done
    rm -r "$out"
    echo "6 checks, 0 failed"
}

# with_cmake PREFIX SOURCES
with_cmake() {
    local out
    out=$(mktemp -d)
    cmake -S "$2" -B "$out" -DCMAKE_PREFIX_PATH="$1" -DCMAKE_BUILD_TYPE=Debug &&
        cmake --build "$out" --parallel 2 || return 1
    local prefix
    prefix=$(realpath "$1")
    grep -qF "nucleus_DIR:PATH=$prefix/" "$out/CMakeCache.txt" || { echo "CMake found another nucleus"; return 1; }
    linked shared "$out/c_nucleus" && linked shared "$out/cpp_nucleus" && linked static "$out/c_static" &&
        linked static "$out/cpp_static" && (cd "$out" && ctest --output-on-failure) || return 1
    rm -r "$out"
    echo "4 checks, 0 failed"
}

#!/usr/bin/env bash
# Checks the Debian packages of `make deb` with lintian. Then installs them in a new Debian system, builds and runs
# programs with them, and removes them. The system is a directory that debootstrap fills; .cache keeps it, so later runs
# work offline. Needs root, for chroot. `make test-deb` runs this script.
#
# usage: test-deb.sh TARGET
set -euo pipefail
cd "$(dirname "$0")/../.."

target=$(realpath "$1")
[ "$(id -u)" -eq 0 ] || { echo "test-deb: only root can use chroot; run sudo make test-deb" >&2; exit 1; }
packages=("$target"/deb/*.deb)
# The packages need the C library of the system that built them, or a newer one.
suite=stable
if [ "$(. /etc/os-release && echo "$ID")" = debian ]; then suite=$(. /etc/os-release && echo "$VERSION_CODENAME"); fi
base=.cache/debootstrap-$suite.tar
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
. tests/report.sh

# Every error and warning of lintian is a failure.
lint() {
    lintian --allow-root --fail-on error,warning "${packages[@]}" &&
        echo "${#packages[@]} checks, 0 failed"
}

# Creates the system in .cache once.
create_base() {
    [ -f "$base" ] && return
    mkdir -p .cache
    # 100 MB of downloads. The compilers and CMake build the programs.
    debootstrap --variant=minbase --include=g++,cmake,pkgconf,make "$suite" "$bin/base" &&
        rm -rf "$bin"/base/var/cache/apt/archives/*.deb && tar -C "$bin/base" -cf "$base.new" . &&
        mv "$base.new" "$base" && rm -rf "$bin/base"
}

inside() {
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive HOME=/root chroot "$bin/system" "$@"
}

# The files of the system, without the databases and logs of dpkg and of the dynamic loader.
files() {
    (cd "$bin/system" && find . -xdev \( -path ./var/lib/dpkg -o -path ./var/log -o -path ./var/cache -o -path ./test \
        -o -path ./tmp -o -path ./etc/ld.so.cache \) -prune -o -print) | LC_ALL=C sort
}

installs() {
    mkdir "$bin/system" "$bin/system/test" && tar -C "$bin/system" -xf "$base" && files >"$bin/before" &&
        cp -R "${packages[@]}" tests/consumers/project tests/consumers/build.sh "$bin/system/test/" &&
        inside sh -c 'dpkg --install /test/*.deb' && inside dpkg --verify libnucleus1 libnucleus-dev nucleus || return 1
    holds "the loader finds the library" grep -q 'libnucleus\.so\.1 ' <<<"$(inside ldconfig -p)" &&
        holds "the command runs" inside nucleus --version &&
        holds "every package has its licence" \
            ls "$bin"/system/usr/share/doc/{libnucleus1,libnucleus-dev,nucleus}/copyright &&
        echo "4 checks, 0 failed"
}

# No variable names a directory: the compiler, pkg-config and CMake search only the directories of the system.
builds() {
    inside bash -euc '. /test/build.sh; with_pkg_config "" /test/project; with_cmake /usr /test/project' &&
        holds "no rpath" [ -z "$(inside pkg-config --libs nucleus | grep rpath)" ] && echo "11 checks, 0 failed"
}

removes() {
    inside dpkg --remove nucleus libnucleus-dev libnucleus1 || return 1
    files >"$bin/after"
    holds "the system has the same files as before" diff "$bin/before" "$bin/after" &&
        holds "the loader does not find the library" [ -z "$(inside ldconfig -p | grep nucleus)" ] &&
        holds "no package is left" [ -z "$(inside dpkg --list | grep -E '^i.* (lib)?nucleus')" ] &&
        inside sh -c 'dpkg --install /test/*.deb && dpkg --purge nucleus libnucleus-dev libnucleus1' &&
        echo "4 checks, 0 failed"
}

run "lintian" lint
run "debootstrap $suite" create_base
run "installation" installs
run "pkg-config and CMake" builds
run "removal" removes

finish

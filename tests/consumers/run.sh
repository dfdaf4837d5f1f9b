#!/usr/bin/env bash
# Installs the library in every supported way, and builds and runs programs outside the tree with it: with CMake and
# with pkg-config, with the shared and with the static library. `make test` runs this script. It needs `make build`.
set -euo pipefail
cd "$(dirname "$0")/../.."
scripts/install-deps.sh consumers >/dev/null

target=$(realpath "${CARGO_TARGET_DIR:-target}")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
. tests/report.sh
. tests/consumers/build.sh
unset NUCLEUS_PJRT_PLUGIN NUCLEUS_PROGRAM_DIR NUCLEUS_LOG
unset LD_LIBRARY_PATH LIBRARY_PATH CPATH PKG_CONFIG_PATH CMAKE_PREFIX_PATH
# The programs are built in directories outside the tree.
cp -R tests/consumers/project tests/consumers/versions "$bin/"

# A user such as root, who has no Rust toolchain. If something calls cargo, it fails.
mkdir "$bin/no-rust"
printf '#!/bin/sh\necho "cargo was called: $*" >&2\nexit 1\n' >"$bin/no-rust/cargo"
cp "$bin/no-rust/cargo" "$bin/no-rust/rustc"
chmod +x "$bin/no-rust/cargo" "$bin/no-rust/rustc"
as_root() {
    env -i HOME="$bin" PATH="$bin/no-rust:/usr/sbin:/usr/bin:/sbin:/bin" CARGO_TARGET_DIR="$target" "$@"
}

installs() {
    chmod +x "$bin/no-rust/cargo"
    as_root make install PREFIX="$bin/prefix" || return 1
    local file
    for file in include/nucleus.h include/nucleus.hpp lib/libnucleus.a lib/libnucleus.so share/doc/nucleus/LICENSE \
        share/doc/nucleus/README.md share/doc/nucleus/docs/semantics.md share/nucleus/nucleus.layout.json \
        share/man/man1/nucleus.1; do
        holds "$file is installed" [ -s "$bin/prefix/$file" ] || return 1
    done
    holds "the command runs" "$bin/prefix/bin/nucleus" --version && echo "10 checks, 0 failed"
}

# links_of_documents DIRECTORY: every relative link of the installed documents leads to an installed file.
links_of_documents() {
    local directory=$1 page link count=0
    for page in $(find "$directory" -name '*.md'); do
        for link in $(grep -oE '\]\([^()#]+' "$page" | sed 's/^](//' | grep -vE '^[a-z]+:'); do
            [ -e "$(dirname "$page")/$link" ] || { echo "$page has a link to $link"; return 1; }
            count=$((count + 1))
        done
    done
    # The links between the documents are still there.
    holds "README.md has a link to the contract" grep -qF '](docs/semantics.md)' \
        "$directory/README.md" && echo "$((count + 1)) checks, 0 failed"
}

# `make uninstall` removes what `make install` installed, and nothing else.
uninstalls() {
    local root=$bin/uninstall
    mkdir -p "$root/lib" && touch "$root/lib/other" || return 1
    as_root make install PREFIX="$root" && as_root make install PREFIX="$root" || return 1
    # A file of an older version, which the list still has.
    touch "$root/lib/libnucleus.so.0.0.1" && echo lib/libnucleus.so.0.0.1 >>"$root/share/nucleus/installed-files" &&
        touch "$root/share/doc/other" && as_root make uninstall PREFIX="$root" || return 1
    holds "only the other files remain" [ "$(cd "$root" && find . | LC_ALL=C sort | tr '\n' ' ')" = \
        ". ./lib ./lib/other ./share ./share/doc ./share/doc/other " ] || return 1
    if as_root make uninstall PREFIX="$root"; then echo "a second uninstall succeeds"; return 1; fi
    as_root make install PREFIX="$bin/new/prefix" && as_root make uninstall PREFIX="$bin/new/prefix" &&
        holds "a directory that was created is removed" [ ! -e "$bin/new/prefix" ] || return 1
    as_root make install PREFIX=/opt/n DESTDIR="$bin/stage" &&
        as_root make uninstall PREFIX=/opt/n DESTDIR="$bin/stage" &&
        holds "below DESTDIR no directory remains" [ -z "$(find "$bin/stage" -mindepth 1)" ] || return 1
    local wrong
    for wrong in '' "/opt/it's" '/opt/"n"' '/opt/$x' '/opt/a\b' '/opt/a#b' '/opt/a,b'; do
        if as_root make install PREFIX="$wrong" DESTDIR="$bin/stage" 2>"$bin/errors"; then
            echo "PREFIX=$wrong is accepted"
            return 1
        fi
        holds "the message names PREFIX" grep -q 'PREFIX.* \(is empty\|must not contain\)' "$bin/errors" || return 1
    done
    # A list that was tampered with must not remove files outside the prefix.
    touch "$bin/precious" && as_root make install PREFIX="$root" || return 1
    echo "lib/../../precious" >>"$root/share/nucleus/installed-files"
    if as_root make uninstall PREFIX="$root"; then echo "a path with .. is accepted"; return 1; fi
    holds "a file outside the prefix remains" [ -e "$bin/precious" ] && echo "20 checks, 0 failed"
}

# The files of pkg-config contain this prefix in quotes.
prefix_with_a_space() {
    as_root make install PREFIX="$bin/a b" && with_pkg_config "$bin/a b/lib/pkgconfig" "$bin/project"
}

versions() {
    cmake -S "$bin/versions" -B "$bin/build-versions" -DVERSION="$version" \
        -DINSTALLED="$bin/prefix/lib/cmake/nucleus" && echo "14 checks, 0 failed"
}

# The archive works in a directory that it did not have when it was made.
tarball() {
    as_root make tarball || return 1
    local name
    name=nucleus-$version-$(uname -m)-linux
    mkdir -p "$bin/with space" && tar -xzf "$target/$name.tar.gz" -C "$bin" && cp -R "$bin/$name" "$bin/moved" &&
        mv "$bin/$name" "$bin/with space/nucleus" || return 1
    # The prefix of tarball.sh is /$name.
    holds "no file contains the prefix or the directory of the build" \
        [ -z "$(grep -rF -e 'prefix=/' -e "/$name" -e "$target" "$bin/moved" --include '*.pc' --include '*.cmake')" ] &&
        "$bin/moved/bin/nucleus" --version && with_pkg_config "$bin/moved/lib/pkgconfig" "$bin/project" &&
        with_pkg_config "$bin/with space/nucleus/lib/pkgconfig" "$bin/project" &&
        with_cmake "$bin/with space/nucleus" "$bin/project" && echo "17 checks, 0 failed"
}

# The files of the Debian packages, without installing them. `make test-deb` installs them.
debian_packages() {
    command -v dpkg-buildpackage >/dev/null || { echo "there is no dpkg-buildpackage on this system"; return 77; }
    as_root make deb || return 1
    local package root=$bin/debian libdir
    for package in "$target"/deb/*.deb; do dpkg-deb -x "$package" "$root" || return 1; done
    libdir=$root/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)
    with_cmake "$root/usr" "$bin/project" && "$root/usr/bin/nucleus" --version &&
        holds "pkg-config names the directories of the system" \
            [ "$(sed -n 's/^prefix=//p' "$libdir/pkgconfig/nucleus.pc")" = /usr ] &&
        links_of_documents "$root/usr/share/doc/libnucleus-dev" && echo "7 checks, 0 failed"
}

# The vcpkg port installs one kind of library in the places of vcpkg. This runs the port without vcpkg (vcpkg.cmake).
vcpkg_port() {
    local linkage kind packages files
    for linkage in static dynamic; do
        packages=$bin/vcpkg-$linkage kind=static
        [ $linkage = static ] || kind=nucleus
        as_root cmake -DROOT="$PWD" -DVERSION="$version" -DLINKAGE=$linkage -DPACKAGES="$packages" \
            -P tests/consumers/vcpkg.cmake &&
            cmake -S "$bin/project" -B "$packages.build" -DKINDS=$kind -DCMAKE_PREFIX_PATH="$packages" &&
            cmake --build "$packages.build" && (cd "$packages.build" && ctest --output-on-failure) || return 1
        files=$(cd "$packages" && find . -type f | LC_ALL=C sort)
        holds "only this kind of library" [ "$(grep -c 'libnucleus\.\(a\|so\)' <<<"$(ls "$packages/lib")")" = \
            "$([ $linkage = static ] && echo 1 || echo 3)" ] &&
            holds "the command is a tool" "$packages/tools/nucleus/nucleus" --version &&
            holds "the licence" cmp LICENSE "$packages/share/nucleus/copyright" &&
            holds "no other documents" [ -z "$(grep -E '^./(bin|share/doc|share/man)/' <<<"$files")" ] || return 1
    done
    echo "12 checks, 0 failed"
}

run "make install, without Rust" installs
run "links of the installed documents" links_of_documents "$bin/prefix/share/doc/nucleus"
run "make uninstall" uninstalls
run "pkg-config, shared and static" with_pkg_config "$bin/prefix/lib/pkgconfig" "$bin/project"
run "make install, a prefix with a space" prefix_with_a_space
run "CMake, shared and static" with_cmake "$bin/prefix" "$bin/project"
run "CMake, versions" versions
run "tarball, moved" tarball
run "Debian packages, unpacked" debian_packages
run "vcpkg port, without vcpkg" vcpkg_port

finish

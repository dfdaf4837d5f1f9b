#!/bin/sh
# Builds the Conan package from the archive of the committed sources, once with the static and once with the shared
# library, runs the program in packaging/conan/test_package with each, and installs each without a Rust toolchain. Each
# time it compiles the library again, from the crates that Cargo has downloaded. Downloads Conan in the first run; later
# runs work offline. `make test-conan` runs this script.
#
# usage: test-conan.sh TARGET VERSION
set -eu
cd "$(dirname "$0")/.."
target=$1 version=$2
scripts/python-env.sh .cache/conan conan scripts/requirements-conan.txt
# The cache of Conan, and the build directory of Cargo, which both builds share.
CONAN_HOME=$target/conan/home CARGO_TARGET_DIR=$target/conan/cargo
NUCLEUS_SOURCE_ARCHIVE=$target/nucleus-$version.tar.gz
export CONAN_HOME CARGO_TARGET_DIR NUCLEUS_SOURCE_ARCHIVE
# The profile is that of the compiler on this host.
.cache/conan/bin/conan profile detect --force >/dev/null 2>&1
for shared in False True; do
    .cache/conan/bin/conan create packaging/conan --build=missing --build='nucleus/*' -o "nucleus/*:shared=$shared"
    # The package can be installed where there is no Rust toolchain, and no other program.
    PATH=/nonexistent .cache/conan/bin/conan install --requires="nucleus/$version" --build=never \
        -o "nucleus/*:shared=$shared" --output-folder="$target/conan/installed"
done
echo "test-conan: the static and the shared package work"

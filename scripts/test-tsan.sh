#!/usr/bin/env bash
# Runs the tests that use threads under ThreadSanitizer: the thread pool, the built-in backend, the program cache, and
# the end of a device call.
# The standard library is instrumented too. Otherwise ThreadSanitizer does not see the library's locks, and it reports
# every access that they protect. Plugins are not instrumented, so tests with plugins do not run here.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(rustc -vV | sed -n 's/^host: //p')
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/src/rust/library" ]; then
    command -v rustup >/dev/null ||
        { echo "test-tsan: the sources of the standard library are missing, and there is no rustup to add them" >&2; exit 1; }
    rustup component add rust-src
fi

# Allows -Z options on a stable toolchain.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=thread"
# Some tests allocate impossible sizes. The allocator must then return null, as it does without the sanitizer.
export TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1 allocator_may_return_null=1"
cargo test --locked --workspace -Zbuild-std --target "$target" --target-dir "${CARGO_TARGET_DIR:-target}/tsan" \
    --lib --test library -- parallel:: device_call:: completion program_cache:: backend::builtin:: builtin_backend::a_batch_is_the_same \
    builtin_with_two_threads::many_threads builtin_with_two_threads::batch_invariance
echo "test-tsan: no data race"

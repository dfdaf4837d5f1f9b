#!/usr/bin/env bash
# Runs the GPU kernels under the tools of compute-sanitizer: memcheck, racecheck, synccheck and initcheck. Prints a line
# for each tool. Fails if a tool reports an error, or if a value differs from the value of the built-in backend.
#
# The program that runs is examples/agreement. It compares every class of rows, both paths, and every output array.
# NUCLEUS_PJRT_PLUGIN names the CUDA plugin. TOOLS lists the tools (default: all four). AGREEMENT is the path of the
# compiled example (default: this script compiles it). SHAPES lists the shapes that the example compares. LOGS is the
# directory of the reports (default: target/sanitizer).
set -euo pipefail
cd "$(dirname "$0")/.."

: "${NUCLEUS_PJRT_PLUGIN:?gpu-sanitize: NUCLEUS_PJRT_PLUGIN must name the CUDA plugin}"
command -v compute-sanitizer >/dev/null || { echo "gpu-sanitize: compute-sanitizer is not installed" >&2; exit 1; }
target=${CARGO_TARGET_DIR:-target}
logs=${LOGS:-$target/sanitizer}
if [ -z "${AGREEMENT:-}" ]; then
    cargo build --release --locked --example agreement
    AGREEMENT=$target/release/examples/agreement
fi

# With allocator=platform, each buffer has its own allocation. So the tools see every access outside of a buffer.
# XLA_FLAGS turns off command buffers, so XLA launches every kernel separately.
arguments=("$NUCLEUS_PJRT_PLUGIN" --option allocator=platform --option preallocate=false)
for shape in ${SHAPES:-17x129 17x1000 8x32000 3x128256}; do
    arguments+=(--only "$shape")
done
export XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_enable_command_buffer="

mkdir -p "$logs"
failed=0
for tool in ${TOOLS:-memcheck racecheck synccheck initcheck}; do
    start=$SECONDS status=0
    rm -f "$logs/$tool.log" "$logs/$tool.out"
    # The tools check all kernels, also those of XLA. If they did not, initcheck would not see that a kernel of XLA has
    # written a buffer, and would report every kernel that reads this buffer. memcheck does not report failed calls of
    # the driver, because the plugin handles these failures.
    options=(--log-file "$logs/$tool.log" --print-limit 20 --error-exitcode 9 --show-backtrace no)
    [ "$tool" != memcheck ] || options+=(--report-api-errors no)
    compute-sanitizer --tool "$tool" "${options[@]}" "$AGREEMENT" "${arguments[@]}" >"$logs/$tool.out" 2>&1 || status=$?
    summary=$([ ! -f "$logs/$tool.log" ] || sed -n 's/^=* *\([A-Z]* SUMMARY: .*\)/\1/p' "$logs/$tool.log" | tail -n 1)
    compared=$(sed -n 's/^rows compared/rows compared/p' "$logs/$tool.out")
    [ "$status" = 0 ] && [ -n "$summary" ] && [ -n "$compared" ] || failed=1
    echo "$tool: ${summary:-no summary}; ${compared:-the program did not end}; status $status, $((SECONDS - start)) s"
done
[ "$failed" = 0 ] || { echo "gpu-sanitize: failed; the reports are in $logs" >&2; exit 1; }

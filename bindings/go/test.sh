#!/usr/bin/env bash
# Tests the Go package with the libraries that `make build` built. `make test` runs this script.
#
#   test.sh          the tests
#   test.sh bench    the time of a call, beside the same call from C
set -euo pipefail
cd "$(dirname "$0")"
root=$(realpath ../..)

"$root/scripts/fetch-go.sh"
variables=$(../testing/build.sh)
eval "$variables"
# The tests use no module of other authors, so the toolchain needs no network.
export PATH=$root/.cache/go/bin:$PATH GOTOOLCHAIN=local GOPROXY=off GOFLAGS=-mod=readonly GOWORK=off GO111MODULE=on
export GOCACHE=$root/.cache/go-build GOPATH=$root/.cache/go-path GOENV=off GOTELEMETRY=off CGO_ENABLED=1
unset GOROOT NUCLEUS_PJRT_PLUGIN NUCLEUS_PROGRAM_DIR NUCLEUS_LOG
export CGO_LDFLAGS="-L$NUCLEUS_HELPER_DIR -Wl,-rpath,$NUCLEUS_HELPER_DIR"

if [ "${1:-}" = bench ]; then
    exec go test -tags test_helper -run '^$' -bench . -benchtime 2s .
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

unformatted=$(gofmt -l .)
[ -z "$unformatted" ] || { echo "go: run gofmt -w on: $unformatted" >&2; exit 1; }
go vet -tags test_helper ./...
grep -q 'func ExampleSampler_Sample()' <<<"$(go doc -ex Sampler.Sample)" ||
    { echo "go: go doc does not show the example" >&2; exit 1; }

echo "go: tests with -race, GODEBUG=cgocheck=1"
GODEBUG=cgocheck=1 go test -race -tags test_helper ./...

# This experiment also checks that no Go pointer is stored in C memory. The calls on the plugin repeat the cgo code of
# the calls on the built-in backend, except for device calls.
echo "go: tests with GOEXPERIMENT=cgocheck2"
GOEXPERIMENT=cgocheck2 go test -tags test_helper -skip 'VectorsPlugin|CompileAhead|PrewarmOnPlugin' ./...

# block LANGUAGE: the first block of the README in this language.
block() { sed -n "/^\`\`\`$1\$/,/^\`\`\`\$/p" README.md | sed '/^```/d'; }

echo "go: the quick start in a module of its own, with the shared and the static library"
mkdir "$work/quickstart"
block go >"$work/quickstart/main.go"
[ -z "$(gofmt -l "$work/quickstart")" ] || { echo "go: gofmt changes the quick start" >&2; exit 1; }
block text >"$work/wanted"
package=$PWD
cd "$work/quickstart"
export GOFLAGS= CGO_LDFLAGS=
go mod init quickstart 2>/dev/null
go mod edit -require nucleus@v0.0.0 -replace "nucleus=$package"
go build -o shared
CGO_CFLAGS=-I$root/include CGO_LDFLAGS=-L$NUCLEUS_LIB_DIR go build -tags nucleus_static -o static
grep -q 'libnucleus\.so' <<<"$(ldd shared)" || { echo "go: the program does not use the shared library" >&2; exit 1; }
! grep -q libnucleus <<<"$(ldd static)" || { echo "go: the static program uses the shared library" >&2; exit 1; }
for program in shared static; do
    "./$program" | diff "$work/wanted" - || { echo "go: wrong output of the $program quick start" >&2; exit 1; }
done

echo "go: go vet reports copies of the objects"
mkdir "$work/copies"
cd "$work/copies"
go mod init copies 2>/dev/null
go mod edit -require nucleus@v0.0.0 -replace "nucleus=$package"
for name in Sampler Parameters Call Prewarming; do
    printf 'package copies\n\nimport "nucleus"\n\nfunc f(a, b *nucleus.%s) { *a = *b }\n' "$name" >copies.go
    if go vet . 2>vet; then echo "go: go vet accepts a copy of a $name" >&2; exit 1; fi
    grep -q "copies lock value to \*a: nucleus.$name " vet || { cat vet >&2; exit 1; }
done
echo "go: all tests passed"

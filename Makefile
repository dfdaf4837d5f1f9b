# All tasks of this repository. `make` lists the targets. Each target can be repeated, and works offline after its first
# run.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
BIN := $(TARGET)/examples
# The directory of the shared and the static library for C programs. $(TARGET)/release has Cargo's own libraries, which
# do not suit C programs (scripts/link_library.py).
LIB := $(TARGET)/lib
PLUGIN := .cache/plugins/lammps-jax-pjrt-cpu.so
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

PREFIX ?= /usr/local
DESTDIR ?=
LIBDIR ?= lib
CMAKEDIR ?=
RPATH ?= yes
RELOCATABLE ?= no
DEPS ?= yes
MUTANTS ?=

# Not empty if the libraries and the command were built. `make install` and the packages then use them as they are.
BUILT := $(and $(wildcard $(LIB)/libnucleus.a),$(wildcard $(TARGET)/release/nucleus))

WARNINGS := -Wall -Wextra -Wconversion -pedantic -Werror
LINK := -L$(LIB) -lnucleus -Wl,-rpath,$(LIB)

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

.PHONY: deps
deps: ## install the Debian packages that are missing; DEPS=no: install nothing
	@[ "$(DEPS)" = no ] || scripts/install-deps.sh

.PHONY: plugins
plugins: ## download the PJRT plugins for the tests and the demo
	@scripts/fetch-plugins.sh

.PHONY: interpreter
interpreter: ## create the Python environment of the interpreter for TPU and GPU programs
	@scripts/fetch-interpreter.sh

.PHONY: ptxas
ptxas: ## download ptxas, which assembles the GPU kernels without a GPU
	@scripts/fetch-ptxas.sh

.PHONY: build
build: deps $(LIB)/libnucleus.a $(TARGET)/man/nucleus.1 ## build the libraries in target/lib, and the command in target/release (libraries: Linux only)

# Cargo decides whether to compile. The libraries are linked again only if Cargo wrote a new static library.
.PHONY: cargo-build
cargo-build: | deps
	cargo build --release --locked --workspace

$(TARGET)/release/libnucleus.a: cargo-build
	@:

$(LIB)/libnucleus.a: $(TARGET)/release/libnucleus.a include/nucleus.h scripts/link_library.py scripts/header.py Cargo.toml
	scripts/link_library.py $(TARGET)/release $(LIB) $(VERSION)

$(TARGET)/man/nucleus.1: $(TARGET)/release/libnucleus.a
	@mkdir -p $(TARGET)/completions
	@for shell in bash zsh fish; do $(TARGET)/release/nucleus completions $$shell >$(TARGET)/completions/nucleus.$$shell; done
	@$(TARGET)/release/nucleus man $(TARGET)/man

.PHONY: examples
examples: build $(BIN)/quickstart $(BIN)/quickstart-cpp $(BIN)/generate ## build the C and C++ examples

$(BIN)/quickstart: examples/c/quickstart.c include/nucleus.h Makefile | build
	@mkdir -p $(@D)
	cc -std=c89 -O2 $(WARNINGS) -Iinclude $< -o $@ $(LINK)

$(BIN)/quickstart-cpp: examples/cpp/quickstart.cpp include/nucleus.hpp include/nucleus.h Makefile | build
	@mkdir -p $(@D)
	c++ -std=c++17 -O2 $(WARNINGS) -Iinclude $< -o $@ $(LINK)

$(BIN)/generate: examples/cpp/generate.cpp include/nucleus.hpp include/nucleus.h Makefile | build
	@mkdir -p $(@D)
	c++ -std=c++17 -O2 $(WARNINGS) -Iinclude $< -o $@ $(LINK)

.PHONY: demo
demo: deps build examples plugins ## generate text on two backends and compare it
	@echo; echo "=== built-in backend"; $(BIN)/generate --output $(BIN)/builtin.txt
	@echo; echo "=== PJRT plugin $(PLUGIN)"; $(BIN)/generate --plugin $(PLUGIN) --output $(BIN)/plugin.txt
	@$(BIN)/generate --slots 1 --output $(BIN)/alone.txt >/dev/null
	@echo; cmp $(BIN)/builtin.txt $(BIN)/plugin.txt && echo "built-in and plugin: identical"
	@cmp $(BIN)/builtin.txt $(BIN)/alone.txt && echo "in a shared batch and alone: identical"

.PHONY: python-wheel
python-wheel: build ## build the wheel of the Python package with the library, in target/python
	@scripts/fetch-python.sh
	@.cache/python/env/bin/python bindings/python/build_wheel.py $(LIB) $(TARGET)/python

.PHONY: model
model: deps ## download a small language model and export it for demo-llm
	@scripts/fetch-model.sh

# The header of the PJRT C API is in the sources of the crate pjrt-sys. GCC accepts it only with -fpermissive. This flag
# turns some errors into warnings. In our own code, -Werror turns these warnings into errors again.
PJRT_INCLUDE = $(shell scripts/pjrt-include.sh)

$(BIN)/serve: $(wildcard examples/serve/*.cpp examples/serve/*.hpp) include/nucleus.h Makefile | build
	@mkdir -p $(@D)
	c++ -std=c++17 -O2 $(WARNINGS) -fpermissive -Iinclude -isystem $(PJRT_INCLUDE) $(filter %.cpp,$^) -o $@ $(LINK) -ldl

.PHONY: demo-llm
demo-llm: deps build $(BIN)/serve plugins model ## serve a small language model on a PJRT plugin, sample on the device and on the host, compare the answers
	@echo; echo "=== sampled on the device of the PJRT plugin $(PLUGIN)"
	@$(BIN)/serve --plugin $(PLUGIN) --sampler device --out $(BIN)/serve-device.txt
	@echo; echo "=== sampled by the built-in backend, from logits on the host"
	@$(BIN)/serve --plugin $(PLUGIN) --sampler builtin --quiet --out $(BIN)/serve-builtin.txt
	@echo; cmp $(BIN)/serve-device.txt $(BIN)/serve-builtin.txt && echo "device and built-in: the same answers"

# -isystem turns off the warnings that GCC has for the headers of llama.cpp.
LLAMA := $(abspath .cache/llama)

.PHONY: llama
llama: ## download and build llama.cpp, and download a model, for demo-llama
	@scripts/install-deps.sh llama
	@scripts/fetch-llama.sh

$(BIN)/llama: $(wildcard examples/llama.cpp/*.cpp examples/llama.cpp/*.hpp) include/nucleus.h Makefile | build llama
	@mkdir -p $(@D)
	c++ -std=c++17 -O2 $(WARNINGS) -Iinclude -isystem $(LLAMA)/source/include -isystem $(LLAMA)/source/ggml/include \
	    $(filter %.cpp,$^) -o $@ $(LINK) -L$(LLAMA)/build/bin -lllama -lggml-base -Wl,-rpath,$(LLAMA)/build/bin

.PHONY: demo-llama
demo-llama: deps build llama $(BIN)/llama plugins ## generate text with llama.cpp and nucleus, compare the answers and the times with llama.cpp's samplers
	@$(BIN)/llama .cache/smollm2/smollm2 $(PLUGIN)

.PHONY: test
test: deps plugins interpreter ptxas ## build and run the tests: Rust, TPU and GPU kernels in the interpreter, C; prints the time of each part
	@scripts/run_tests.py

.PHONY: test-full
test-full: deps plugins interpreter ptxas ## run all cases of these tests, with debug assertions and overflow checks: about an hour
	@scripts/run_tests.py --full

.PHONY: test-no-pjrt
test-no-pjrt: deps ## build and test the crate without the feature pjrt, in target/no-pjrt; part of `make test`
	@scripts/test_without_pjrt.py

.PHONY: package-check
package-check: deps ## check the package that `cargo publish` would upload
	cargo publish --dry-run --locked --package nucleus-sampler

.PHONY: test-tpu-full
test-tpu-full: deps plugins interpreter ## compile and interpret every TPU program: three hours on two cores; PART=1/3: interpret only a part; NUCLEUS_UPDATE_DOCS=1 updates docs/tpu.md
	NUCLEUS_TPU_FULL='$(or $(PART),1)' cargo test --release --locked --workspace --test tpu grid:: -- --nocapture

.PHONY: test-mutants
test-mutants: deps interpreter ## run the mutants of the TPU kernels; MUTANTS=--listed: only the listed survivors, MUTANTS='--part 1/6': a part, MUTANTS=--update: write the list
	NUCLEUS_TPU_MUTANTS='$(MUTANTS)' cargo test --release --locked --workspace --test tpu mutants::all -- --nocapture

.PHONY: test-tsan
test-tsan: deps ## run the thread tests under ThreadSanitizer, with an instrumented standard library
	@scripts/test-tsan.sh

.PHONY: tpu-table
tpu-table: build plugins interpreter ## count the cycles of the TPU kernels for the table in docs/tpu.md: ten minutes
	cargo run --release --locked --example tpu_cases -- $(TARGET)/tpu-table
	python3 scripts/tpu_table.py $(TARGET)/release/nucleus .cache/plugins/libtpu.so $(TARGET)/tpu-table
	@rm -rf $(TARGET)/tpu-table

.PHONY: sparsecore
sparsecore: plugins model ## compile SparseCore kernels with libtpu and count their cycles (docs/tpu-sparsecore.md)
	@.cache/model/env/bin/python scripts/sparsecore.py .cache/plugins/libtpu.so

.PHONY: check-tpu
check-tpu: deps plugins interpreter ## run the checks that need a TPU, on a TPU host (docs/hardware-checklist.md)
	cargo test --release --locked --workspace --test hardware -- --nocapture --test-threads=1

.PHONY: bench
bench: deps plugins ## run the benchmarks; one JSON object per line, also in target/bench.jsonl; draws docs/bench.png
	cargo bench --locked --bench sampling --bench abi --bench device --bench start | tee $(TARGET)/bench.jsonl
	@$(MAKE) chart

$(BIN)/bench-cpp: benches/cpp.cpp include/nucleus.hpp include/nucleus.h Makefile | $(if $(BUILT),,build)
	@mkdir -p $(@D)
	c++ -std=c++17 -O2 $(WARNINGS) -Iinclude $< -o $@ $(LINK)

.PHONY: bench-cpp
bench-cpp: $(BIN)/bench-cpp ## measure the cost of a call through nucleus.hpp beside the call of nucleus.h
	@$(BIN)/bench-cpp

.PHONY: bench-gpu
bench-gpu: deps ## measure the GPU kernels on a GPU: NUCLEUS_PJRT_PLUGIN names the CUDA plugin; also the other samplers that are installed
	cargo bench --locked --bench gpu | tee $(TARGET)/bench-gpu.jsonl
	NUCLEUS_BENCH_CLIENT_OPTIONS=preallocate=false cargo bench --locked --bench device | tee -a $(TARGET)/bench-gpu.jsonl
	python3 benches/gpu/peers.py | tee -a $(TARGET)/bench-gpu.jsonl

.PHONY: gpu-peers
gpu-peers: ## build FlashInfer's and vLLM's samplers for bench-gpu on a machine without network
	@scripts/fetch-gpu-peers.sh

.PHONY: gpu-sanitize
gpu-sanitize: deps ## run the GPU kernels under compute-sanitizer, on a GPU: NUCLEUS_PJRT_PLUGIN names the CUDA plugin
	@scripts/gpu-sanitize.sh

.PHONY: chart
chart: chart-tools ## draw docs/bench.png from target/bench.jsonl
	@[ -f $(TARGET)/bench.jsonl ] || { echo "chart: no $(TARGET)/bench.jsonl; run make bench" >&2; exit 1; }
	@mkdir -p docs
	.cache/chart/bin/python scripts/chart.py $(TARGET)/bench.jsonl docs/bench.png

.PHONY: chart-gpu
chart-gpu: chart-tools ## draw docs/bench-gpu.png, and write the missed goals and the comparison with other samplers in docs/gpu.md, from docs/figures/gpu.jsonl
	.cache/chart/bin/python scripts/chart_gpu.py docs/figures/gpu.jsonl docs/bench-gpu.png docs/gpu.md

.PHONY: chart-tools
chart-tools:
	@[ -x .cache/chart/bin/python ] || python3 -m venv .cache/chart
	@.cache/chart/bin/python -c 'import matplotlib' 2>/dev/null || .cache/chart/bin/pip install --quiet matplotlib

.PHONY: header
header: deps ## regenerate include/nucleus.h and include/nucleus.layout.json from the Rust sources
	NUCLEUS_UPDATE_HEADER=1 cargo test --release --locked --workspace --test library header::

.PHONY: python-structs
python-structs: ## regenerate the structs of the Python package from include/nucleus.layout.json
	bindings/python/generate.py

.PHONY: vectors
vectors: deps ## compute the test vectors in tests/vectors with the sorted reference
	NUCLEUS_UPDATE_VECTORS=1 cargo test --release --locked --workspace --test library vectors::the_files_are_up_to_date

# These targets use the release profile, so that build scripts and procedural macros compile only once for lint, doc,
# check-aarch64 and test.
.PHONY: lint
lint: deps ## check the format, and run clippy with warnings as errors
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

.PHONY: doc
doc: deps ## build the documentation of the Rust crates with warnings as errors
	RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps

.PHONY: docs
docs: build ## build the documentation site in target/docs/site
	@scripts/python-env.sh .cache/docs 'mkdocs, matplotlib, playwright' scripts/requirements-docs.txt
	@.cache/docs/bin/python scripts/docs/build.py $(TARGET)/release/nucleus

.PHONY: docs-check
docs-check: docs ## open every page of the site at two widths in Chromium; check links, images and the console
	@scripts/install-deps.sh docs
	@.cache/docs/bin/python scripts/docs/check.py

.PHONY: deny
deny: ## check the licences, sources and versions of the dependencies (deny.toml)
	@scripts/fetch-cargo-deny.sh
	.cache/cargo-deny/cargo-deny --locked check --hide-inclusion-graph bans licenses sources

.PHONY: check-aarch64
check-aarch64: deps ## type-check the library and the command for 64-bit Arm
	@scripts/check-aarch64.sh

.PHONY: abi-check
abi-check: ## compare the binary interface of the header with the last release (tests/abi)
	@scripts/install-deps.sh abi
	@scripts/abi.py self-test
	@scripts/abi.py check

.PHONY: abi-baseline
abi-baseline: ## write the baseline in tests/abi: at a release, or with a change that docs/abi-policy.md allows
	@scripts/install-deps.sh abi
	@scripts/abi.py baseline

# If the library is already built, it is installed and not built again. So root needs no Rust toolchain. The shell
# receives each value in single quotes, so a value must not contain a single quote. make expands a `$` in a value that
# the user sets. So PREFIX_OF_USER is the value before the expansion.
PREFIX_OF_USER = $(if $(filter command environment,$(firstword $(origin PREFIX))),$(value PREFIX))
INSTALL_VALUES = $(PREFIX)$(DESTDIR)$(LIBDIR)$(CMAKEDIR)$(RPATH)$(RELOCATABLE)
INSTALL = $(if $(findstring ',$(INSTALL_VALUES)),$(error PREFIX, DESTDIR, LIBDIR, CMAKEDIR, RPATH and RELOCATABLE must not contain a single quote)) \
	$(if $(findstring $$,$(PREFIX_OF_USER)),$(error PREFIX is $(PREFIX_OF_USER); it must not contain $$)) \
	PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' LIBDIR='$(LIBDIR)' CMAKEDIR='$(CMAKEDIR)' RPATH='$(RPATH)' \
	RELOCATABLE='$(RELOCATABLE)' VERSION='$(VERSION)' scripts/install.sh

.PHONY: install
install: $(if $(BUILT),,build) ## install to $DESTDIR$PREFIX (PREFIX: /usr/local), builds first if nothing was built; RPATH=no: no rpath in the flags of pkg-config
	@$(INSTALL) install $(TARGET)

.PHONY: uninstall
uninstall: ## remove what `make install` installed to $DESTDIR$PREFIX
	@$(INSTALL) uninstall

.PHONY: tarball
tarball: $(if $(BUILT),,build) ## pack the installed files as target/nucleus-VERSION-SYSTEM.tar.gz, which works in any directory
	@scripts/tarball.sh $(TARGET) $(VERSION)

.PHONY: source-archive
source-archive: ## pack the committed sources as target/nucleus-VERSION.tar.gz, for packaging/
	@scripts/source-archive.sh $(TARGET) $(VERSION)

.PHONY: deb
deb: $(if $(BUILT),,build) ## build the Debian packages target/deb/*.deb: libnucleus1, libnucleus-dev and nucleus
	@scripts/install-deps.sh deb
	@scripts/deb.sh $(TARGET) $(VERSION)

.PHONY: test-conan
test-conan: deps source-archive ## build the Conan package from the committed sources and use it, static and shared: compiles the library twice
	@scripts/install-deps.sh consumers
	@scripts/test-conan.sh $(TARGET) $(VERSION)

.PHONY: test-deb
test-deb: deb ## check the Debian packages with lintian; install, use and remove them in a new Debian system (needs root)
	@scripts/install-deps.sh test-deb
	@tests/consumers/test-deb.sh $(TARGET)

.PHONY: clean
clean: ## remove the build output, but not the downloads in .cache
	cargo clean

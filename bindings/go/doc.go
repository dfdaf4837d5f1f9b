// Package nucleus chooses the next token of a language model. It calls the C library nucleus through cgo.
//
// A [Sampler] applies top-k, top-p, min-p and temperature to each row of a batch of logits, and draws one token per
// row. The same row, parameters and random numbers give the same token, bit for bit: on the built-in CPU backend, on
// every device with a PJRT plugin, alone or in a batch.
//
// # Link
//
// The package finds the library with pkg-config, under the name nucleus. `make install` of the library installs the
// file nucleus.pc. If its directory is not a default directory of pkg-config, name it:
//
//	PKG_CONFIG_PATH=$HOME/.local/lib/pkgconfig go build
//
// With the build tag nucleus_static, the package links libnucleus.a and does not use pkg-config. The program then
// needs no shared library of nucleus:
//
//	CGO_CFLAGS=-I$HOME/.local/include CGO_LDFLAGS=-L$HOME/.local/lib go build -tags nucleus_static
//
// # Goroutines
//
// Any number of goroutines may use the same object at the same time. A Close waits for the calls that use its object,
// and later calls return an error. All slices belong to the caller. A call reads or writes them, and keeps no reference
// to them. No goroutine may write them during the call. A slice may also refer to memory that C allocated.
//
// A call of C occupies a thread of the operating system, and nothing can interrupt it. The methods that can wait for
// a long time take a [context.Context]: [Call.Wait], [Prewarming.Wait] and [Sampler.Prewarm]. If the context can end,
// they wait in Go. A prewarm in the background occupies one thread.
//
// # Memory
//
// Close frees an object. If a program does not call Close, the object is freed some time after it becomes unreachable.
// Programs should not rely on this, because the garbage collector does not see the size of the C memory, and because
// it does not run when the process ends.
//
// # Errors
//
// Every error of the library is an [*Error] with a [Status], the argument and the row at fault. A slice of a wrong
// length is an error too, with [InvalidArgument]; the library is not called then.
//
// The manual of the C library is its header nucleus.h. Its comments define the meaning of every field in detail.
package nucleus

//go:build test_helper

// Package testhelper has PJRT buffers for the tests of nucleus, and the time of calls from C. Package nucleus itself
// does not need the header of PJRT. bindings/testing/build.sh compiles the C code.
package testhelper

// #cgo pkg-config: nucleus
// #cgo CFLAGS: -I${SRCDIR}/../../../testing
// #cgo LDFLAGS: -lnucleus_test_helper
// #include "helper.h"
import "C"

import (
	"fmt"
	"unsafe"
)

// Upload copies logits [rows, vocab] to the first device of a client, and returns the buffer.
func Upload(api, client, logits unsafe.Pointer, dtype int32, rows, vocab int) (unsafe.Pointer, error) {
	buffer := C.nucleus_test_upload(api, client, logits, C.nuc_dtype(dtype), C.int64_t(rows),
		C.int64_t(vocab))
	if buffer == nil {
		return nil, fmt.Errorf("the plugin could not create a buffer of %d x %d", rows, vocab)
	}
	return buffer, nil
}

// Download returns the contents of a buffer of 32-bit integers.
func Download(api, buffer unsafe.Pointer, length int) ([]int32, error) {
	values := make([]int32, length)
	if C.nucleus_test_download(api, buffer, unsafe.Pointer(&values[0]), C.size_t(4*length)) == 0 {
		return nil, fmt.Errorf("the plugin could not copy a buffer of %d integers", length)
	}
	return values, nil
}

// Destroy destroys a buffer.
func Destroy(api, buffer unsafe.Pointer) error {
	if C.nucleus_test_destroy(api, buffer) == 0 {
		return fmt.Errorf("the plugin could not destroy a buffer")
	}
	return nil
}

// CallTime returns the mean time of calls of nuc_sample_flat from C, in nanoseconds, for one row.
func CallTime(sampler unsafe.Pointer, logits []float32, calls int) (float64, error) {
	time := C.nucleus_test_call_time((*C.nuc_sampler)(sampler), (*C.float)(unsafe.Pointer(&logits[0])),
		C.size_t(len(logits)), C.int32_t(calls))
	if time < 0 {
		return 0, fmt.Errorf("nuc_sample_flat failed")
	}
	return float64(time), nil
}

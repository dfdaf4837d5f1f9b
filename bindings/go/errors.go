package nucleus

/*
#include <nucleus.h>
#include <stdlib.h>
*/
import "C"

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"unsafe"
)

// A Status is the kind of a failure. It is an error itself, so that it can be the target of errors.Is:
//
//	if errors.Is(err, nucleus.OutOfMemory) { ... }
type Status int32

const (
	// OK means success. No method returns an error with this status.
	OK Status = C.NUC_OK
	// InvalidArgument means that an argument is wrong. The same call would fail again.
	InvalidArgument Status = C.NUC_INVALID_ARGUMENT
	// PluginNotFound means that the plugin's file does not exist, or that no plugin is named although the call needs one.
	PluginNotFound Status = C.NUC_PLUGIN_NOT_FOUND
	// PluginInvalid means that the file is not a PJRT plugin, or that the system cannot load it.
	PluginInvalid Status = C.NUC_PLUGIN_INVALID
	// PluginVersion means that the plugin implements a version of the PJRT C API that the library does not support.
	PluginVersion Status = C.NUC_PLUGIN_VERSION
	// DeviceError means that the plugin or its device failed.
	DeviceError Status = C.NUC_DEVICE_ERROR
	// Internal means that the library has a defect, or that the plugin returned an impossible result.
	Internal Status = C.NUC_INTERNAL
	// OutOfMemory means that the host or the device ran out of a resource. The same call can succeed later.
	OutOfMemory Status = C.NUC_OUT_OF_MEMORY
	// IOError means that a file or directory could not be created, read or written.
	IOError Status = C.NUC_IO_ERROR
	// Timeout is the status NUC_TIMEOUT. The methods of this package return the error of their context instead.
	Timeout Status = C.NUC_TIMEOUT
	// Cancelled means that a prewarm was cancelled before all its programs were compiled.
	Cancelled Status = C.NUC_CANCELLED
)

// String returns the name of the status in C, for example "NUC_INVALID_ARGUMENT".
func (s Status) String() string { return C.GoString(C.nuc_status_string(C.nuc_status(s))) }

// Error returns the name of the status in C.
func (s Status) Error() string { return s.String() }

// An Error describes why a call failed. A call that fails writes no output.
type Error struct {
	// Status is the kind of the failure.
	Status Status
	// Argument is the name of the argument or struct at fault in C, for example "top_k"; empty if there is no single one.
	Argument string
	// Row is the index of the row at fault, counted from 0; -1 if there is no single one.
	Row int
	// Message states the reason. It can have several lines, for example if it quotes a compiler.
	Message string
}

// Error returns the message and the name of the status.
func (e *Error) Error() string { return fmt.Sprintf("nucleus: %s (%s)", e.Message, e.Status) }

// Is reports whether target is the status of the error.
func (e *Error) Is(target error) bool {
	status, ok := target.(Status)
	return ok && status == e.Status
}

func invalid(argument, format string, values ...any) error {
	return &Error{InvalidArgument, argument, -1, argument + " " + fmt.Sprintf(format, values...)}
}

func errClosed(object string) error {
	return &Error{InvalidArgument, object, -1, "the " + object + " is closed"}
}

const fullMessageSize = 16 << 10

// An errorBuffer owns a nuc_error and the buffer of its whole message. Both are C memory, because the nuc_error
// points to the buffer.
type errorBuffer struct {
	c    *C.nuc_error
	full *C.char
}

var errorBuffers = sync.Pool{New: func() any {
	// C.malloc of cgo does not return nil: it ends the process.
	memory := C.malloc(C.sizeof_nuc_error + fullMessageSize)
	c := (*C.nuc_error)(memory)
	*c = C.nuc_error{struct_size: C.sizeof_nuc_error}
	c.full_message = (*C.char)(unsafe.Add(memory, C.sizeof_nuc_error))
	c.full_message_size = fullMessageSize
	buffer := &errorBuffer{c, c.full_message}
	runtime.AddCleanup(buffer, func(memory unsafe.Pointer) { C.free(memory) }, memory)
	return buffer
}}

func newErrorBuffer() *errorBuffer { return errorBuffers.Get().(*errorBuffer) }

// result returns the error of a call, and gives the buffer back.
func (b *errorBuffer) result(status C.nuc_status) error {
	defer errorBuffers.Put(b)
	if status == C.NUC_OK {
		return nil
	}
	err := &Error{Status: Status(status), Row: int(b.c.row), Message: C.GoString(b.full)}
	if b.c.argument != nil {
		err.Argument = C.GoString(b.c.argument)
	}
	return err
}

// call runs a function of the library.
func call(function func(*C.nuc_error) C.nuc_status) error {
	buffer := newErrorBuffer()
	return buffer.result(function(buffer.c))
}

// An arena owns C memory for the strings and arrays of a struct of options. It remembers the first argument that cannot
// be passed to C.
type arena struct {
	memory []unsafe.Pointer
	err    error
}

func (a *arena) free() {
	for _, memory := range a.memory {
		C.free(memory)
	}
}

func (a *arena) fail(err error) {
	if a.err == nil {
		a.err = err
	}
}

// text copies a string. An empty string becomes null, which has the same meaning in every struct of the library.
func (a *arena) text(argument, value string) *C.char {
	if value == "" {
		return nil
	}
	if strings.IndexByte(value, 0) >= 0 {
		a.fail(invalid(argument, "contains a NUL character"))
		return nil
	}
	copied := C.CString(value)
	a.memory = append(a.memory, unsafe.Pointer(copied))
	return copied
}

func (a *arena) size(argument string, value int) C.size_t {
	if value < 0 {
		a.fail(invalid(argument, "is %d; it must not be negative", value))
		return 0
	}
	return C.size_t(value)
}

func (a *arena) sizes(argument string, values []int) *C.size_t {
	if len(values) == 0 {
		return nil
	}
	copied := array[C.size_t](a, len(values))
	for i, value := range values {
		copied[i] = a.size(argument, value)
	}
	return &copied[0]
}

// array returns C memory for a number of zeros.
func array[T any](a *arena, length int) []T {
	var zero T
	memory := C.malloc(C.size_t(length) * C.size_t(unsafe.Sizeof(zero)))
	a.memory = append(a.memory, memory)
	copied := unsafe.Slice((*T)(memory), length)
	clear(copied)
	return copied
}

// flag converts a bool to the int32_t of a C struct.
func flag(value bool) C.int32_t {
	if value {
		return 1
	}
	return 0
}

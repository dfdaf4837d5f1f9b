package nucleus

/*
#include <stdint.h>
*/
import "C"

import (
	"runtime/cgo"
	"sync/atomic"
)

// logFunction is the function of the last SetLog, or nil. A call of the library that began before SetLog can run the
// callback later. It then uses the new function.
var logFunction atomic.Pointer[func(LogLevel, string)]

//export nucleusGoLog
func nucleusGoLog(level C.int32_t, message *C.char) {
	if function := logFunction.Load(); function != nil {
		(*function)(LogLevel(level), C.GoString(message))
	}
}

//export nucleusGoDone
func nucleusGoDone(handle C.uintptr_t) {
	h := cgo.Handle(handle)
	close(h.Value().(chan struct{}))
	h.Delete()
}

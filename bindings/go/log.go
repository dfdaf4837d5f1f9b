package nucleus

/*
#include <nucleus.h>
#include "callbacks.h"
*/
import "C"

import "sync"

// A LogLevel is how much the library logs. Each level includes the levels before it.
type LogLevel int32

const (
	// LogOff logs nothing. It is the default.
	LogOff LogLevel = C.NUC_LOG_OFF
	// LogError logs failures that no return value can report.
	LogError LogLevel = C.NUC_LOG_ERROR
	// LogWarning logs problems after which the library continued.
	LogWarning LogLevel = C.NUC_LOG_WARNING
	// LogInfo logs the programs that CompileAhead compiles.
	LogInfo LogLevel = C.NUC_LOG_INFO
	// LogDebug logs every program that is loaded, compiled or written, and every call that fails.
	LogDebug LogLevel = C.NUC_LOG_DEBUG
)

var logMutex sync.Mutex

// SetLog sets the destination of the library's log for the whole process. Messages up to level go to function, or to
// standard error if function is nil. A later call replaces an earlier one.
//
// Several threads can call function at the same time. It must not panic. It may use the library, but must not close an
// object of this package or wait for a prewarm.
func SetLog(level LogLevel, function func(level LogLevel, message string)) error {
	logMutex.Lock()
	defer logMutex.Unlock()
	before := logFunction.Load()
	if function != nil {
		logFunction.Store(&function)
	}
	err := call(func(e *C.nuc_error) C.nuc_status {
		return C.nucleus_go_set_log(flag(function != nil), C.nuc_log_level(level), e)
	})
	if err != nil {
		logFunction.Store(before)
	}
	return err
}

/* Callbacks of the library that run functions of Go. */
#ifndef NUCLEUS_GO_CALLBACKS_H
#define NUCLEUS_GO_CALLBACKS_H

#include <nucleus.h>

/* nuc_call_on_done: closes the channel of a runtime/cgo.Handle, and deletes the handle. */
nuc_status nucleus_go_call_on_done(const nuc_call *call, uintptr_t handle, nuc_error *error);

/* nuc_set_log: sends the log to the function of SetLog, or to standard error. */
nuc_status nucleus_go_set_log(int32_t to_function, nuc_log_level level, nuc_error *error);

#endif

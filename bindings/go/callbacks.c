#include "_cgo_export.h"
#include "callbacks.h"

static void done(void *user) { nucleusGoDone((uintptr_t)user); }

static void log_message(void *user, nuc_log_level level, const char *message) {
    (void)user;
    nucleusGoLog(level, (char *)message);
}

nuc_status nucleus_go_call_on_done(const nuc_call *call, uintptr_t handle, nuc_error *error) {
    return nuc_call_on_done(call, done, (void *)handle, error);
}

nuc_status nucleus_go_set_log(int32_t to_function, nuc_log_level level, nuc_error *error) {
    return nuc_set_log(to_function ? log_message : NULL, NULL, level, error);
}

/*
 * The log: what NUCLEUS_LOG asks for, then what nuc_set_log does. Failed calls are logged as NUC_LOG_DEBUG on every
 * backend, and programs that cannot be loaded as NUC_LOG_WARNING on a plugin (test_ahead).
 */
#define _POSIX_C_SOURCE 200112L
#include "check.h"

#include <unistd.h>

typedef struct heard {
    int count;
    int32_t level;
    char message[600];
} heard;

static void hear(void *user, int32_t level, const char *message) {
    heard *ears = user;
    ears->count++;
    ears->level = level;
    snprintf(ears->message, sizeof ears->message, "%s", message);
}

/* A call that fails, in words that the log repeats. */
static void fail(void) {
    nuc_error error;
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_prewarm(NULL, NULL, &error));
}

/* Whether a failed call writes to standard error. */
static int standard_error_speaks(const char *folder) {
    char path[512], text[600];
    snprintf(path, sizeof path, "%s.stderr", folder);
    fflush(stderr);
    const int kept = dup(STDERR_FILENO);
    CHECK(kept >= 0 && freopen(path, "w", stderr) != NULL);
    fail();
    fflush(stderr);
    CHECK(dup2(kept, STDERR_FILENO) == STDERR_FILENO && close(kept) == 0);
    FILE *file = fopen(path, "r");
    if (!CHECK(file != NULL)) return -1;
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    remove(path);
    CHECK(text[0] == '\0' || strncmp(text, "nucleus: debug: NUC_INVALID_ARGUMENT: sampler is ", 49) == 0);
    return text[0] != '\0';
}

int main(int argc, char **argv) {
    nuc_error error;
    const char *place = argv[0];
    heard one = {0}, two = {0};
    const char *plugin = argc > 1 ? argv[1] : NULL;

    /* Nothing is logged before a sampler is made, nor without being asked for. */
    CHECK(unsetenv("NUCLEUS_LOG") == 0);
    nuc_sampler_destroy(make_sampler(plugin, 64), NULL);
    CHECK(standard_error_speaks(place) == 0);
    nuc_sampler *sampler = NULL;
    CHECK(setenv("NUCLEUS_LOG", "loud", 1) == 0);
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sampler_create(NULL, &sampler, &error));
    CHECK_NAMES(error, "NUCLEUS_LOG");
    CHECK_NAMES(error, "warning");
    CHECK(sampler == NULL);
    CHECK(setenv("NUCLEUS_LOG", "debug", 1) == 0);
    nuc_sampler_destroy(make_sampler(plugin, 64), NULL);
    CHECK(standard_error_speaks(place) == 1);

    CHECK_STATUS(NUC_OK, error, nuc_set_log(hear, &one, NUC_LOG_DEBUG, &error));
    CHECK(standard_error_speaks(place) == 0);
    CHECK(one.count == 1 && one.level == NUC_LOG_DEBUG);
    CHECK(strstr(one.message, "NUC_INVALID_ARGUMENT: sampler is ") == one.message && strchr(one.message, '\n') == NULL);

    /* The environment no longer counts. */
    CHECK_STATUS(NUC_OK, error, nuc_set_log(hear, &two, NUC_LOG_INFO, &error));
    nuc_sampler_destroy(make_sampler(plugin, 64), NULL);
    fail();
    CHECK(one.count == 1 && two.count == 0);
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_set_log(hear, &one, 5, &error));
    CHECK_NAMES(error, "level");
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_set_log(hear, &one, -1, &error));
    CHECK_STATUS(NUC_OK, error, nuc_set_log(hear, &two, NUC_LOG_DEBUG, &error));
    fail();
    CHECK(one.count == 1 && two.count == 1);
    CHECK_STATUS(NUC_OK, error, nuc_set_log(NULL, NULL, NUC_LOG_OFF, &error));
    CHECK(standard_error_speaks(place) == 0);
    CHECK(nuc_set_log(NULL, NULL, NUC_LOG_DEBUG, NULL) == NUC_OK);
    CHECK(standard_error_speaks(place) == 1);
    CHECK(one.count == 1 && two.count == 1);
    return report();
}

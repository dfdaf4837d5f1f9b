/*
 * A process with more privileges than its user ignores the environment variables of the library. tests/c/run.sh runs
 * this program as a user other than its owner, with the setuid bit and without it. Exit status 77 means that the test
 * cannot run here.
 *
 *   test_setuid raised|plain
 */
#define _DEFAULT_SOURCE
#include "check.h"

#include <sys/auxv.h>

int main(int argc, char **argv) {
    const int raised = argc > 1 && strcmp(argv[1], "raised") == 0;
    if (raised && getauxval(AT_SECURE) == 0) {
        printf("the system did not raise the rights of a setuid program (a nosuid mount or no_new_privs)\n");
        return 77;
    }
    CHECK(raised || getauxval(AT_SECURE) == 0);
    CHECK(getenv("NUCLEUS_PJRT_PLUGIN") != NULL && getenv("NUCLEUS_LOG") != NULL);

    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler *sampler = NULL;
    const nuc_status status = nuc_sampler_create(NULL, &sampler, &error);
    if (raised) { /* the built-in backend, as if no variable were set; run.sh checks that nothing is logged */
        if (!CHECK_STATUS(NUC_OK, error, status)) return report();
        nuc_sampler_info info = NUC_SAMPLER_INFO_INIT;
        CHECK_STATUS(NUC_OK, error, nuc_sampler_get_info(sampler, &info, &error));
        CHECK(strcmp(info.platform_name, "builtin") == 0);
        CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_prewarm(NULL, NULL, &error));
    } else {
        CHECK_STATUS(NUC_PLUGIN_NOT_FOUND, error, status);
        CHECK_NAMES(error, getenv("NUCLEUS_PJRT_PLUGIN"));
    }
    nuc_sampler_destroy(sampler, NULL);
    return report();
}

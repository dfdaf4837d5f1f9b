/* A program that is linked with -static: the built-in backend works, and a plugin is refused. */
#include "check.h"

int main(int argc, char **argv) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler_options options = options_for(argv[argc - 1]);
    nuc_sampler *sampler = NULL;

    CHECK(argc == 2);
    CHECK_STATUS(NUC_PLUGIN_INVALID, error, nuc_sampler_create(&options, &sampler, &error));
    CHECK_NAMES(error, "-static");
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(make_sampler(NULL, 8), &error));
    return report();
}

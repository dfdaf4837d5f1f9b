/* A program that is linked with -static: the built-in backend works, and a plugin is refused. */
#include "check.h"

#include <dlfcn.h>

static void refuses(const char *plugin) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler_options options = options_for(plugin);
    nuc_sampler *sampler = NULL;

    CHECK_STATUS(NUC_PLUGIN_INVALID, error, nuc_sampler_create(&options, &sampler, &error));
    CHECK_NAMES(error, "-static");
}

int main(int argc, char **argv) {
    nuc_error error = NUC_ERROR_INIT;

    CHECK(argc == 2);
    refuses(argv[argc - 1]);
    /* libc.so.6 has the segment PT_INTERP, like a program that is linked dynamically. The plugin is still refused. */
    CHECK(dlopen("libc.so.6", RTLD_NOW) != NULL);
    refuses(argv[argc - 1]);
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(make_sampler(NULL, 8), &error));
    return report();
}

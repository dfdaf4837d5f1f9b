/* Calls libnucleus.a and another Rust static library alternately. `readme_main` is the README's program. */
#include "check.h"

int readme_main(void);
int beside_work(void);

int main(void) {
    for (int round = 0; round < 2; round++) {
        CHECK(beside_work() == 42);
        CHECK(readme_main() == 0);
    }
    return report();
}

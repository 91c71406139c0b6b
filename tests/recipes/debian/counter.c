#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    for (int i = STEP; argc > 1 && i <= atoi(argv[1]); i += STEP) printf("%d\n", i);
    return 0;
}

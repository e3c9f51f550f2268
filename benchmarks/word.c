/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The least that a started process can do to show that it runs: it writes a byte into a pipe.
 *
 *     word FD
 */
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
    return argc == 2 && write(atoi(argv[1]), ".", 1) == 1 ? 0 : 1;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What the benchmarks in C share: the clock, and checks that end the program. */
#ifndef MACHIO_BENCHMARKS_CLOCK_H
#define MACHIO_BENCHMARKS_CLOCK_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define WARM_UP 1000

#define MUST(CONDITION)                                                                   \
    do {                                                                                  \
        if (!(CONDITION)) {                                                               \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #CONDITION); \
            exit(1);                                                                      \
        }                                                                                 \
    } while (0)

static inline int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int order(const void *a, const void *b) {
    int64_t first = *(const int64_t *)a, second = *(const int64_t *)b;
    return (first > second) - (first < second);
}

/* Prints the median of the times, which it sorts. */
static inline void report(int64_t *times, long count) {
    qsort(times, (size_t)count, sizeof *times, order);
    printf("%" PRId64 "\n", times[count / 2]);
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benchmarks in C share: a clock, a histogram of times, checks that end the program.
 *
 * The histogram takes the same memory however many times it holds; a time that it tells is less
 * than one part in 256 below the true one.
 */
#ifndef MACHIO_BENCHMARKS_TIMES_H
#define MACHIO_BENCHMARKS_TIMES_H

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

/* A row for each power of two, with so many columns; the first holds what is less as it is. */
enum { COLUMN_BITS = 8, COLUMNS = 1 << COLUMN_BITS, ROWS = 64 - COLUMN_BITS };

struct times {
    int64_t count;
    int64_t cells[ROWS][COLUMNS];
};

/* Several processes may note times in the same memory. */
static inline void note(struct times *times, int64_t time) {
    uint64_t value = time < 1 ? 1 : (uint64_t)time;
    int row = value < COLUMNS ? 0 : 64 - COLUMN_BITS - __builtin_clzll(value);
    uint64_t column = value >> (row == 0 ? 0 : row - 1) & (COLUMNS - 1);
    __atomic_fetch_add(&times->cells[row][column], 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&times->count, 1, __ATOMIC_RELAXED);
}

/* The time that a part of all times, 0.5 say, is below. */
static inline int64_t quantile(const struct times *times, double part) {
    int64_t left = (int64_t)(part * (double)times->count);
    for (int row = 0; row < ROWS; row++)
        for (int column = 0; column < COLUMNS; column++)
            if ((left -= times->cells[row][column]) < 0)
                return row == 0 ? column : (int64_t)(COLUMNS + column) << (row - 1);
    return 0;
}

/* Makes trips and notes their times, for so many seconds, and no more than `most`. */
static inline void measure(struct times *times, double seconds, long most, void (*trip)(void *),
                           void *way) {
    int64_t start = now(), end = start + (int64_t)(seconds * 1e9);
    for (; most > 0 && start < end; most--) {
        trip(way);
        int64_t after = now();
        note(times, after - start);
        start = after;
    }
}

/* The same after a warm-up, for programs with one process that measures: prints what they took. */
static inline void report(double seconds, long most, void (*trip)(void *), void *way) {
    static struct times warm_up, times;
    measure(&warm_up, 3600, WARM_UP, trip, way);
    measure(&times, seconds, most, trip, way);
    printf("{\"median\": %" PRId64 ", \"p99\": %" PRId64 ", \"p99.9\": %" PRId64 "}\n",
           quantile(&times, 0.5), quantile(&times, 0.99), quantile(&times, 0.999));
}

#endif

/*
 * check.h - the whole test framework of the C tests.
 *
 *     #include "check.h"
 *
 *     TEST(a_port_starts_with_no_messages) {
 *         int fds = check_fd_count();
 *         CHECK_EQ(allocate(&port), KERN_SUCCESS);
 *         CHECK(port != MACH_PORT_NULL);
 *         ...
 *         CHECK_FDS(fds);
 *     }
 *
 *     CHECK_MAIN()
 *
 * The program runs the tests named on its command line, or all of them in the order in which they
 * are written; `--list` prints their names. tests/test_c.py finds every TEST(name) at the start of
 * a line and runs each in a process of its own.
 *
 * A check that fails prints where and what and ends the process with status 1, also in a forked
 * child: the parent should CHECK_CHILD() it. Checks may be used in helpers and in threads.
 */
#ifndef MACHIO_TESTS_CHECK_H
#define MACHIO_TESTS_CHECK_H

#include <dirent.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

struct check_test {
    const char *name;
    void (*run)(void);
    struct check_test *next;
};

__attribute__((unused)) static struct check_test *check_first, **check_last = &check_first;

/* Defines one test; registered before main() runs, in the order of the file. */
#define TEST(NAME)                                                    \
    static void test_##NAME(void);                                    \
    __attribute__((constructor)) static void check_add_##NAME(void) { \
        static struct check_test test = {#NAME, test_##NAME, NULL};   \
        *check_last = &test;                                          \
        check_last = &test.next;                                      \
    }                                                                 \
    static void test_##NAME(void)

/* The main() of a test program. */
#define CHECK_MAIN()                   \
    int main(int argc, char **argv) {  \
        return check_main(argc, argv); \
    }

__attribute__((noreturn, unused)) static void check_die(void) {
    fflush(NULL);
    _exit(1);
}

/* Fails unless CONDITION holds. */
#define CHECK(CONDITION)                                                                  \
    do {                                                                                  \
        if (!(CONDITION)) {                                                               \
            fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #CONDITION); \
            check_die();                                                                  \
        }                                                                                 \
    } while (0)

/* Fails unless the two integers (or enums) are equal; each side is evaluated once. */
#define CHECK_EQ(GOT, EXPECTED) \
    check_eq(__FILE__, __LINE__, #GOT, (intmax_t)(GOT), #EXPECTED, (intmax_t)(EXPECTED))

/* Fails unless SIZE bytes at GOT and EXPECTED are equal; says which byte is the first to differ. */
#define CHECK_MEM(GOT, EXPECTED, SIZE) \
    check_mem(__FILE__, __LINE__, #GOT, (GOT), #EXPECTED, (EXPECTED), (SIZE))

/* Fails unless the process has EXPECTED open files; lists them if not. */
#define CHECK_FDS(EXPECTED) check_fds(__FILE__, __LINE__, (EXPECTED))

/* Waits for the child PID and fails unless it exited with status 0. */
#define CHECK_CHILD(PID) check_child(__FILE__, __LINE__, (PID))

__attribute__((unused)) static void check_eq(const char *file, int line, const char *got_text,
                                             intmax_t got, const char *expected_text,
                                             intmax_t expected) {
    if (got == expected)
        return;
    fprintf(stderr,
            "%s:%d: CHECK_EQ(%s, %s) failed:\n"
            "    got      %" PRIdMAX " (0x%" PRIxMAX ")\n"
            "    expected %" PRIdMAX " (0x%" PRIxMAX ")\n",
            file, line, got_text, expected_text, got, (uintmax_t)got, expected,
            (uintmax_t)expected);
    check_die();
}

__attribute__((unused)) static void check_mem(const char *file, int line, const char *got_text,
                                              const void *got, const char *expected_text,
                                              const void *expected, size_t size) {
    const unsigned char *a = got, *b = expected;

    for (size_t i = 0; i < size; i++) {
        if (a[i] == b[i])
            continue;
        fprintf(stderr,
                "%s:%d: CHECK_MEM(%s, %s) failed: byte %zu of %zu is 0x%02x, expected 0x%02x\n",
                file, line, got_text, expected_text, i, size, a[i], b[i]);
        check_die();
    }
}

/* Counts the open files of this process, and prints each to LISTING unless that is NULL. */
__attribute__((unused)) static int check_list_fds(FILE *listing) {
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    int count = 0;

    if (!dir) {
        fprintf(stderr, "cannot read /proc/self/fd\n");
        check_die();
    }
    while ((entry = readdir(dir))) {
        char target[256];
        ssize_t size;
        int fd = atoi(entry->d_name);

        if (entry->d_name[0] == '.' || fd == dirfd(dir))
            continue;
        count++;
        if (!listing)
            continue;
        size = readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1);
        target[size < 0 ? 0 : size] = '\0';
        fprintf(listing, "    fd %d -> %s\n", fd, target);
    }
    closedir(dir);
    return count;
}

__attribute__((unused)) static int check_fd_count(void) {
    return check_list_fds(NULL);
}

__attribute__((unused)) static void check_fds(const char *file, int line, int expected) {
    int got = check_fd_count();

    if (got == expected)
        return;
    fprintf(stderr, "%s:%d: %d files are open, expected %d:\n", file, line, got, expected);
    check_list_fds(stderr);
    check_die();
}

__attribute__((unused)) static void check_child(const char *file, int line, pid_t pid) {
    int status;

    if (waitpid(pid, &status, 0) != pid)
        fprintf(stderr, "%s:%d: cannot wait for child %d\n", file, line, (int)pid);
    else if (WIFSIGNALED(status))
        fprintf(stderr, "%s:%d: child killed by signal %d\n", file, line, WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0)
        fprintf(stderr, "%s:%d: child exited with %d\n", file, line, WEXITSTATUS(status));
    else
        return;
    check_die();
}

/* The usual 1,024 files are too few for some tests; one of a shortage sets a limit of its own. */
__attribute__((unused)) static void check_raise_file_limit(void) {
    struct rlimit limit;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

__attribute__((unused)) static int check_main(int argc, char **argv) {
    int run = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    check_raise_file_limit();
    for (struct check_test *test = check_first; test; test = test->next) {
        int wanted = argc < 2;

        if (argc == 2 && strcmp(argv[1], "--list") == 0) {
            puts(test->name);
            run++;
            continue;
        }
        for (int i = 1; i < argc; i++)
            wanted |= strcmp(argv[i], test->name) == 0;
        if (!wanted)
            continue;
        printf("%s ...\n", test->name);
        test->run();
        printf("%s ok\n", test->name);
        run++;
    }
    if (run == 0 || (argc > 2 && run != argc - 1)) {
        fprintf(stderr, "no such test; see --list\n");
        return 1;
    }
    return 0;
}

#endif

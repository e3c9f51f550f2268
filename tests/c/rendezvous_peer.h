/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * rendezvous_peer.h - a bootstrap directory of the test's own, and servers that are scripts.
 */
#ifndef MACHIO_TESTS_RENDEZVOUS_PEER_H
#define MACHIO_TESTS_RENDEZVOUS_PEER_H

#include "internal.h"
#include "rendezvous.h"
#include "shim.h" /* its declarations must be those of rendezvous.h */

#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <servers/bootstrap.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>

static char directory[64], path[512];

static inline const char *in_directory(const char *name) {
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

/* A bootstrap directory of the test's own, not made yet; what is in it goes with the process. */
static inline void remove_directory(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    CHECK_EQ(system(command), 0);
}

static inline void use_directory(void) {
    strcpy(directory, "/tmp/machio-c-XXXXXX");
    CHECK(mkdtemp(directory) != NULL);
    setenv("MACHIO_BOOTSTRAP", directory, 1);
    unsetenv("MACHIO_BOOTSTRAPD");
    atexit(remove_directory);
}

static inline int64_t soon(void) {
    return mio_rendezvous_clock() + 20000;
}

static inline kern_return_t try_to_connect(bool start) {
    bool started;
    int fd;
    kern_return_t result = mio_rendezvous_connect(start, soon(), &fd, &started);
    if (result == KERN_SUCCESS)
        close(fd);
    return result;
}

static inline void check_sentence(const char *part) {
    const char *sentence = machio_last_error();
    CHECK(sentence != NULL);
    if (strstr(sentence, part) == NULL) {
        fprintf(stderr, "\"%s\" is not in: %s\n", part, sentence);
        check_die();
    }
}

static inline void run_script(const char *script) {
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    CHECK_EQ(machio_set_bootstrap_command(argv), KERN_SUCCESS);
}

#endif

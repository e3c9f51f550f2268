/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * COUNT clients of one service, a process each, that call it again and again for SECONDS. Prints,
 * as JSON, the time over the number of calls ("median"), and how long their callers waited.
 *
 *     clients mach NAME COUNT SECONDS        the typed routine Echo.echo of ours.py
 *     clients packets PATH COUNT SECONDS     64 bytes there and back through a SOCK_SEQPACKET
 *     clients stream PATH COUNT SECONDS      through a SOCK_STREAM
 */
#include "times.h"

#include <limits.h>
#include <mach/mach.h>
#include <mach/mig_errors.h>
#include <mach/ndr.h>
#include <servers/bootstrap.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SIZE = 64, ECHO = 7000 };

mach_port_name_t mach_reply_port(void); /* current macOS SDKs do not declare it */

typedef struct {
    mach_msg_header_t Head;
    NDR_record_t NDR;
    kern_return_t RetCode;
    char data[SIZE];
} reply_t;

typedef struct {
    mach_msg_header_t Head;
    NDR_record_t NDR;
    char data[SIZE];
} request_t;

typedef union {
    mach_msg_header_t Head;
    request_t request;
    struct {
        reply_t reply;
        mach_msg_max_trailer_t trailer;
    } room;
} message_t;

static mach_port_t service, reply_port;
static int connection;

static void find(const char *name) {
    MUST(bootstrap_look_up(bootstrap_port, name, &service) == KERN_SUCCESS);
    reply_port = mach_reply_port();
}

static void call(void *way) {
    (void)way;
    message_t message = {
        .request = {.Head = {.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND,
                                                         MACH_MSG_TYPE_MAKE_SEND_ONCE),
                             .msgh_remote_port = service,
                             .msgh_local_port = reply_port,
                             .msgh_id = ECHO},
                    .NDR = NDR_record}};
    MUST(mach_msg(&message.Head, MACH_SEND_MSG | MACH_RCV_MSG, sizeof message.request,
                  sizeof message, reply_port, MACH_MSG_TIMEOUT_NONE,
                  MACH_PORT_NULL) == MACH_MSG_SUCCESS);
    MUST(message.Head.msgh_id == ECHO + 100 && message.room.reply.RetCode == KERN_SUCCESS);
}

static void reach(int type, const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    MUST(strlen(path) < sizeof address.sun_path);
    strcpy(address.sun_path, path);
    connection = socket(AF_UNIX, type, 0);
    MUST(connect(connection, (struct sockaddr *)&address, sizeof address) == 0);
}

static void exchange(void *way) {
    (void)way;
    char bytes[SIZE] = {0};
    MUST(send(connection, bytes, SIZE, MSG_NOSIGNAL) == SIZE);
    MUST(recv(connection, bytes, SIZE, MSG_WAITALL) == SIZE);
}

int main(int argc, char **argv) {
    MUST(argc == 5);
    const char *way = argv[1], *place = argv[2];
    int mach = strcmp(way, "mach") == 0;
    int type = strcmp(way, "packets") == 0 ? SOCK_SEQPACKET : SOCK_STREAM;
    long count = atol(argv[3]);
    double seconds = atof(argv[4]);
    int ready[2], go[2];
    char byte;
    struct {
        struct times times;
        int64_t ends[];
    } *all = mmap(NULL, sizeof *all + (size_t)count * sizeof *all->ends, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(all != MAP_FAILED && count > 0 && pipe(ready) == 0 && pipe(go) == 0);
    for (long i = 0; i < count; i++) {
        pid_t child = fork();
        MUST(child >= 0);
        if (child > 0)
            continue;
        close(go[1]);
        mach ? find(place) : reach(type, place);
        (mach ? call : exchange)(NULL); /* the first one makes what the others use */
        MUST(write(ready[1], ".", 1) == 1);
        MUST(read(go[0], &byte, 1) == 0); /* all are there */
        measure(&all->times, seconds, LONG_MAX, mach ? call : exchange, NULL);
        all->ends[i] = now();
        _exit(0);
    }
    for (long i = 0; i < count; i++)
        MUST(read(ready[0], &byte, 1) == 1);
    int64_t start = now(), end = start;
    close(go[1]);
    for (long i = 0; i < count; i++) {
        int status;
        MUST(wait(&status) > 0 && status == 0);
    }
    for (long i = 0; i < count; i++)
        end = all->ends[i] > end ? all->ends[i] : end;
    MUST(all->times.count > 0);
    printf("{\"median\": %" PRId64 ", \"p50\": %" PRId64 ", \"p99\": %" PRId64
           ", \"p99.9\": %" PRId64 "}\n",
           (end - start) / all->times.count, quantile(&all->times, 0.5),
           quantile(&all->times, 0.99), quantile(&all->times, 0.999));
    return 0;
}

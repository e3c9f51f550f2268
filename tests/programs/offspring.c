/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * A child for test_children.py that knows of machio.spawn what docs/children.md says, and Mach.
 * It checks a send right in with its parent, then waits for a message, whose id is its status.
 */
#include <mach/mach.h>
#include <servers/bootstrap.h>

#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define CHILD_PORT_CHECK_IN 10011
#define LONGEST_NAME 127

#pragma pack(push, 4)
struct check_in {
    mach_msg_header_t header;
    mach_msg_body_t body;
    mach_msg_port_descriptor_t port;
    NDR_record_t ndr;
    uint64_t token;
};
#pragma pack(pop)

static void read_all(int fd, void *to, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t n = read(fd, (char *)to + done, size - done);
        if (n <= 0)
            exit(100); /* the parent has gone */
        done += (size_t)n;
    }
}

int main(void) {
    const char *variable = getenv("MACHIO_PARENT_FD");
    int fd = atoi(variable != NULL ? variable : "-1");
    mach_port_t service, port;
    mach_port_options_t options = {.flags = 0};
    if (mach_port_construct(mach_task_self(), &options, 0, &port) != KERN_SUCCESS)
        return 101;

    uint64_t token;
    char name[LONGEST_NAME + 1] = "";
    do { /* an offer whose service is not there any more was withdrawn: the next one */
        uint32_t length;
        read_all(fd, &token, sizeof token);
        read_all(fd, &length, sizeof length);
        if (length < 1 || length > LONGEST_NAME)
            return 102;
        read_all(fd, name, length);
        name[length] = '\0';
    } while (bootstrap_look_up(bootstrap_port, name, &service) != KERN_SUCCESS);

    struct check_in message = {
        .header = {.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_MOVE_SEND, 0) | MACH_MSGH_BITS_COMPLEX,
                   .msgh_size = sizeof message,
                   .msgh_remote_port = service,
                   .msgh_id = CHILD_PORT_CHECK_IN},
        .body = {.msgh_descriptor_count = 1},
        .port = {.name = port,
                 .disposition = MACH_MSG_TYPE_MAKE_SEND,
                 .type = MACH_MSG_PORT_DESCRIPTOR},
        .ndr = NDR_record,
        .token = token,
    };
    if (mach_msg(&message.header, MACH_SEND_MSG, sizeof message, 0, 0, 0, 0) != MACH_MSG_SUCCESS)
        return 103;

    struct {
        mach_msg_header_t header;
        mach_msg_max_trailer_t trailer;
    } order;
    if (mach_msg(&order.header, MACH_RCV_MSG, 0, sizeof order, port, 0, 0) != MACH_MSG_SUCCESS)
        return 104;
    return order.header.msgh_id;
}

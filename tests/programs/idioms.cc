/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * C++ as programs for macOS are written, Crashpad among them: scopers with Mach's names for what
 * they own, a server that polls a port set and a pipe with one kqueue and reads the sender off the
 * audit trailer, buffers from vm_allocate(), replies as MIG fills them. A child checks in with its
 * parent; the exit status tells whether all was as it should be.
 */
#include <AvailabilityMacros.h>
#include <bsm/libbsm.h>
#include <mach/mach.h>
#include <pthread.h>
#include <servers/bootstrap.h>
#include <stdint.h>
#include <sys/event.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

void Check(bool holds, const char *what, kern_return_t kr = KERN_SUCCESS) {
    if (!holds) {
        fprintf(stderr, "%s: %s\n", what, mach_error_string(kr));
        exit(1);
    }
}

template <mach_port_right_t kRight> class Scoped {
  public:
    explicit Scoped(mach_port_t port = MACH_PORT_NULL) : port_(port) {
    }
    Scoped(const Scoped &) = delete;
    Scoped &operator=(const Scoped &) = delete;
    ~Scoped() {
        if (port_ == MACH_PORT_NULL)
            return;
        if constexpr (kRight == MACH_PORT_RIGHT_SEND)
            mach_port_deallocate(mach_task_self(), port_); /* whatever became of it */
        else
            mach_port_mod_refs(mach_task_self(), port_, kRight, -1);
    }
    mach_port_t get() const {
        return port_;
    }
    mach_port_t *out() {
        return &port_;
    }

  private:
    mach_port_t port_;
};
using ScopedReceive = Scoped<MACH_PORT_RIGHT_RECEIVE>;
using ScopedSend = Scoped<MACH_PORT_RIGHT_SEND>;
using ScopedSet = Scoped<MACH_PORT_RIGHT_PORT_SET>;

mach_port_t NewPort(mach_port_right_t right) {
    mach_port_t port = MACH_PORT_NULL;
    kern_return_t kr = mach_port_allocate(mach_task_self(), right, &port);
    Check(kr == KERN_SUCCESS, "mach_port_allocate", kr);
    return port;
}

/* What MIG would make of a routine. */
enum MessageID : mach_msg_id_t { kCheckIn = 5000 };

#pragma pack(push, 4)
struct Request {
    mach_msg_header_t Head;
    mach_msg_body_t msgh_body;
    mach_msg_port_descriptor_t port;
    NDR_record_t NDR;
    uint64_t token;
};
#pragma pack(pop)
static_assert(sizeof(Request) == 56);

constexpr uint64_t kToken = 0x0123456789abcdef;
constexpr mach_msg_option_t kAuditTrailer = MACH_RCV_TRAILER_TYPE(MACH_MSG_TRAILER_FORMAT_0) |
                                            MACH_RCV_TRAILER_ELEMENTS(MACH_RCV_TRAILER_AUDIT);

class Buffer {
  public:
    explicit Buffer(vm_size_t size) : address_(0), size_(round_page(size)) {
        kern_return_t kr = vm_allocate(mach_task_self(), &address_, size_,
                                       VM_FLAGS_ANYWHERE | VM_MAKE_TAG(VM_MEMORY_MACH_MSG));
        Check(kr == KERN_SUCCESS && address_ % PAGE_SIZE == 0, "vm_allocate", kr);
    }
    ~Buffer() {
        vm_deallocate(mach_task_self(), address_, size_);
    }
    mach_msg_header_t *Header() const {
        return reinterpret_cast<mach_msg_header_t *>(address_);
    }
    mach_msg_size_t size() const {
        return static_cast<mach_msg_size_t>(size_);
    }

  private:
    vm_address_t address_;
    vm_size_t size_;
};

pid_t Sender(const mach_msg_header_t *header) {
    auto trailer = reinterpret_cast<const mach_msg_audit_trailer_t *>(
        reinterpret_cast<vm_address_t>(header) + round_msg(header->msgh_size));
    if (trailer->msgh_trailer_size < REQUESTED_TRAILER_SIZE(kAuditTrailer))
        return -1;
#if MAC_OS_X_VERSION_MIN_REQUIRED < MAC_OS_X_VERSION_10_8
    pid_t pid;
    audit_token_to_au32(trailer->msgh_audit, nullptr, nullptr, nullptr, nullptr, nullptr, &pid,
                        nullptr, nullptr);
    return pid;
#else
    return audit_token_to_pid(trailer->msgh_audit);
#endif
}

/* Answers as a MIG server does; the port that was checked in. */
mach_port_t Serve(const mach_msg_header_t *in, pid_t client) {
    Check(in->msgh_id == kCheckIn && in->msgh_size == sizeof(Request), "the request");
    auto request = reinterpret_cast<const Request *>(in);
    Check(request->port.type == MACH_MSG_PORT_DESCRIPTOR && request->token == kToken, "its body");
    Check(request->port.disposition == MACH_MSG_TYPE_PORT_SEND, "its right");
    Check(Sender(in) == client, "its sender");
    mig_reply_error_t reply = {};
    reply.Head.msgh_bits = MACH_MSGH_BITS(MACH_MSGH_BITS_REMOTE(in->msgh_bits), 0);
    reply.Head.msgh_size = sizeof reply;
    reply.Head.msgh_remote_port = in->msgh_remote_port;
    reply.Head.msgh_reserved = 0;
    reply.Head.msgh_id = in->msgh_id + 100;
    reply.NDR = NDR_record;
    reply.RetCode = KERN_SUCCESS;
    mach_msg_return_t mr =
        mach_msg(&reply.Head, MACH_SEND_MSG | MACH_SEND_TIMEOUT, reply.Head.msgh_size, 0,
                 MACH_PORT_NULL, MACH_MSG_TIMEOUT_NONE, MACH_PORT_NULL);
    Check(mr == MACH_MSG_SUCCESS, "the reply", mr);
    return request->port.name;
}

/* The child: looks the server up, gives it a right to a port of its own, and hears from it. */
void Client(const std::string &name) {
    ScopedSend server;
    kern_return_t kr = bootstrap_look_up(bootstrap_port, name.c_str(), server.out());
    Check(kr == BOOTSTRAP_SUCCESS, bootstrap_strerror(kr), kr);
    ScopedReceive own(NewPort(MACH_PORT_RIGHT_RECEIVE));
    Request request = {};
    request.Head.msgh_bits = MACH_MSGH_BITS_COMPLEX |
                             MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, MACH_MSG_TYPE_MAKE_SEND_ONCE);
    request.Head.msgh_remote_port = server.get();
    request.Head.msgh_local_port = own.get();
    request.Head.msgh_id = kCheckIn;
    request.msgh_body.msgh_descriptor_count = 1;
    request.port.name = own.get();
    request.port.disposition = MACH_MSG_TYPE_MAKE_SEND;
    request.port.type = MACH_MSG_PORT_DESCRIPTOR;
    request.NDR = NDR_record;
    request.token = kToken;
    mach_msg_return_t mr = mach_msg(&request.Head, MACH_SEND_MSG, sizeof request, 0, MACH_PORT_NULL,
                                    MACH_MSG_TIMEOUT_NONE, MACH_PORT_NULL);
    Check(mr == MACH_MSG_SUCCESS, "the request is sent", mr);
    Buffer buffer(sizeof(mig_reply_error_t) + MAX_TRAILER_SIZE);
    mr = mach_msg(buffer.Header(), MACH_RCV_MSG, 0, buffer.size(), own.get(), MACH_MSG_TIMEOUT_NONE,
                  MACH_PORT_NULL);
    Check(mr == MACH_MSG_SUCCESS, "the reply is received", mr);
    auto reply = reinterpret_cast<mig_reply_error_t *>(buffer.Header());
    Check(reply->Head.msgh_id == kCheckIn + 100 && reply->RetCode == KERN_SUCCESS, "the reply");
}

} // namespace

int main() {
    uint64_t thread_id = 0;
    Check(pthread_threadid_np(pthread_self(), &thread_id) == 0, "pthread_threadid_np");
    const std::string name =
        "org.example.idioms." + std::to_string(getpid()) + "." + std::to_string(thread_id);
    constexpr exception_mask_t exceptions = EXC_MASK_ALL & ~(EXC_MASK_GUARD | EXC_MASK_RESOURCE);
    static_assert(exceptions != 0 && !(exceptions & EXC_MASK_CRASH));

    ScopedReceive server;
    kern_return_t kr = bootstrap_check_in(bootstrap_port, name.c_str(), server.out());
    Check(kr == BOOTSTRAP_SUCCESS, bootstrap_strerror(kr), kr);
    ScopedSet set(NewPort(MACH_PORT_RIGHT_PORT_SET));
    kr = mach_port_insert_member(mach_task_self(), server.get(), set.get());
    Check(kr == KERN_SUCCESS, "mach_port_insert_member", kr);

    int fds[2];
    Check(pipe(fds) == 0, "pipe");
    pid_t child = fork();
    if (child == 0) {
        close(fds[1]);
        Client(name);
        _exit(0); /* which closes the end of the pipe that is read */
    }
    close(fds[0]);

    int kq = kqueue();
    struct kevent changes[2], event;
    EV_SET(&changes[0], set.get(), EVFILT_MACHPORT, EV_ADD | EV_CLEAR, 0, 0, nullptr);
    EV_SET(&changes[1], fds[1], EVFILT_WRITE, EV_ADD | EV_CLEAR, 0, 0, nullptr);
    Check(kevent(kq, changes, 2, nullptr, 0, nullptr) == 0, "kevent");
    mach_port_t checked_in = MACH_PORT_NULL;
    for (bool ended = false; !ended || checked_in == MACH_PORT_NULL;) {
        const timespec nonblocking = {};
        Check(kevent(kq, nullptr, 0, &event, 1, ended ? &nonblocking : nullptr) == 1, "an event");
        Check(!(event.flags & EV_ERROR), "an event without error");
        if (event.filter == EVFILT_WRITE) {
            ended = ended || event.flags & EV_EOF;
            continue;
        }
        Check(event.ident == set.get(), "its set");
        Buffer buffer(round_msg(sizeof(Request)) + REQUESTED_TRAILER_SIZE(kAuditTrailer));
        mach_msg_return_t mr =
            mach_msg(buffer.Header(), MACH_RCV_MSG | MACH_RCV_TIMEOUT | kAuditTrailer, 0,
                     buffer.size(), set.get(), 0, MACH_PORT_NULL);
        if (mr == MACH_RCV_TIMED_OUT)
            continue;
        Check(mr == MACH_MSG_SUCCESS, "the request is received", mr);
        checked_in = Serve(buffer.Header(), child);
    }
    ScopedSend owner(checked_in);
    close(kq);
    close(fds[1]);
    int status;
    Check(waitpid(child, &status, 0) == child && status == 0, "the child");
    mach_port_type_t type;
    kr = mach_port_type(mach_task_self(), checked_in, &type);
    Check(kr == KERN_SUCCESS && type == MACH_PORT_TYPE_DEAD_NAME, "what is left of its port", kr);
    return 0;
}

/*
 * Finding, starting and leaving the bootstrap server: the private directory, the command, the
 * race, the welcome. The servers here are shell scripts and forked children; the real one is
 * tested by tests/test_bootstrapd.py.
 */
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

static const char *in_directory(const char *name) {
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

/* A bootstrap directory of the test's own, not made yet; what is in it goes with the process. */
static void remove_directory(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    CHECK_EQ(system(command), 0);
}

static void use_directory(void) {
    strcpy(directory, "/tmp/machio-c-XXXXXX");
    CHECK(mkdtemp(directory) != NULL);
    setenv("MACHIO_BOOTSTRAP", directory, 1);
    unsetenv("MACHIO_BOOTSTRAPD");
    atexit(remove_directory);
}

static int64_t soon(void) {
    return mio_rendezvous_clock() + 20000;
}

static kern_return_t try_to_connect(bool start) {
    bool started;
    int fd;
    kern_return_t result = mio_rendezvous_connect(start, soon(), &fd, &started);
    if (result == KERN_SUCCESS)
        close(fd);
    return result;
}

static void check_sentence(const char *part) {
    const char *sentence = machio_last_error();
    CHECK(sentence != NULL);
    if (strstr(sentence, part) == NULL) {
        fprintf(stderr, "\"%s\" is not in: %s\n", part, sentence);
        check_die();
    }
}

static void run_script(const char *script) {
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    CHECK_EQ(machio_set_bootstrap_command(argv), KERN_SUCCESS);
}

/* Reads what a script writes into the FIFO `report`, until all writers are gone. */
static char *read_report(int fifo, char *text, size_t size) {
    size_t used = 0;
    ssize_t got;
    while ((got = read(fifo, text + used, size - 1 - used)) > 0)
        used += (size_t)got;
    text[used] = '\0';
    close(fifo);
    return text;
}

/* ---- the directory ------------------------------------------------------------------------- */

TEST(the_directory_is_made_for_its_user_alone) {
    struct stat status;
    int fds = check_fd_count();
    use_directory();
    setenv("MACHIO_BOOTSTRAP", in_directory("new/"), 1);
    umask(0);
    CHECK_EQ(try_to_connect(false), KERN_FAILURE);
    check_sentence("no bootstrap server");
    CHECK_EQ(stat(in_directory("new"), &status), 0);
    CHECK_EQ(status.st_mode & 07777, 0700);
    CHECK_FDS(fds);
}

TEST(a_directory_open_to_others_is_refused) {
    int fds = check_fd_count();
    use_directory();
    CHECK_EQ(chmod(directory, 0710), 0);
    CHECK_EQ(try_to_connect(true), KERN_FAILURE);
    check_sentence("chmod 700");
    CHECK_FDS(fds);
}

TEST(a_symbolic_link_is_refused) {
    int fds = check_fd_count();
    use_directory();
    CHECK_EQ(mkdir(in_directory("real"), 0700), 0);
    CHECK_EQ(symlink("real", in_directory("link")), 0);
    setenv("MACHIO_BOOTSTRAP", path, 1);
    CHECK_EQ(try_to_connect(true), KERN_FAILURE);
    check_sentence("symbolic link");
    setenv("MACHIO_BOOTSTRAP", in_directory("link///"), 1);
    CHECK_EQ(try_to_connect(true), KERN_FAILURE);
    check_sentence("remove it, or set MACHIO_BOOTSTRAP");
    CHECK_FDS(fds);
}

TEST(the_directory_of_another_user_is_refused) {
    use_directory();
    if (geteuid() == 0)
        CHECK_EQ(chown(directory, 65534, 65534), 0);
    else
        setenv("MACHIO_BOOTSTRAP", "/", 1);
    CHECK_EQ(try_to_connect(true), KERN_FAILURE);
    check_sentence(geteuid() == 0 ? "belongs to uid 65534" : "belongs to uid 0");
    check_sentence("or set MACHIO_BOOTSTRAP");
}

TEST(what_is_no_directory_is_refused) {
    use_directory();
    close(open(in_directory("file"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    setenv("MACHIO_BOOTSTRAP", path, 1);
    CHECK_EQ(try_to_connect(true), KERN_FAILURE);
    check_sentence("not a directory");
    setenv("MACHIO_BOOTSTRAP", in_directory("not/there"), 1);
    CHECK_EQ(try_to_connect(true), KERN_FAILURE);
    check_sentence("cannot make the directory");
    setenv("MACHIO_BOOTSTRAP", "relative", 1);
    CHECK_EQ(try_to_connect(true), KERN_INVALID_ARGUMENT);
    check_sentence("absolute path");
}

TEST(the_runtime_directory_counts_if_it_is_mine) {
    char expected[128], got[128];
    use_directory();
    unsetenv("MACHIO_BOOTSTRAP");
    setenv("XDG_RUNTIME_DIR", directory, 1);
    CHECK_EQ(machio_bootstrap_directory(got, sizeof got), KERN_SUCCESS);
    CHECK(strcmp(got, in_directory("machio")) == 0);
    CHECK_EQ(machio_bootstrap_directory(got, 4), KERN_INSUFFICIENT_BUFFER_SIZE);

    snprintf(expected, sizeof expected, "/tmp/machio-%u", (unsigned)geteuid());
    setenv("XDG_RUNTIME_DIR", in_directory("gone"), 1);
    CHECK_EQ(machio_bootstrap_directory(got, sizeof got), KERN_SUCCESS);
    CHECK(strcmp(got, expected) == 0);
}

/* ---- listening and leaving ----------------------------------------------------------------- */

TEST(a_listener_is_found_even_behind_a_long_path) {
    char name[201] = {0};
    int fds = check_fd_count(), listener, second;
    struct stat status;
    use_directory();
    memset(name, 'x', sizeof name - 1);
    setenv("MACHIO_BOOTSTRAP", in_directory(name), 1);
    CHECK_EQ(machio_bootstrap_listen(&listener), KERN_SUCCESS);
    CHECK_EQ(try_to_connect(false), KERN_SUCCESS);
    strcat(path, "/socket");
    CHECK_EQ(stat(path, &status), 0);
    CHECK_EQ(status.st_mode & 07777, 0600);
    CHECK_EQ(machio_bootstrap_listen(&second), KERN_NAME_EXISTS);
    check_sentence("runs already");
    close(listener);
    CHECK_FDS(fds);
}

TEST(a_socket_that_nobody_listens_on_is_replaced) {
    int listener;
    use_directory();
    CHECK_EQ(machio_bootstrap_listen(&listener), KERN_SUCCESS);
    close(listener);
    CHECK_EQ(try_to_connect(false), KERN_FAILURE);
    CHECK_EQ(machio_bootstrap_listen(&listener), KERN_SUCCESS);
    CHECK_EQ(try_to_connect(false), KERN_SUCCESS);
    close(listener);
}

TEST(a_server_leaves_only_when_nobody_is_at_the_door) {
    int listener, crashed = 2, fd;
    bool started;
    struct stat status;
    use_directory();
    CHECK_EQ(machio_bootstrap_listen(&listener), KERN_SUCCESS);
    CHECK_EQ(machio_bootstrap_claim(&crashed), KERN_SUCCESS);
    CHECK_EQ(crashed, 0);
    CHECK_EQ(mio_rendezvous_connect(false, soon(), &fd, &started), KERN_SUCCESS);
    CHECK_EQ(machio_bootstrap_leave(listener, MACHIO_LEAVE_UNLINK), KERN_ABORTED);
    CHECK_EQ(stat(in_directory("socket"), &status), 0);
    close(accept(listener, NULL, NULL));
    close(fd);
    CHECK_EQ(machio_bootstrap_leave(listener, 0), KERN_SUCCESS);
    CHECK_EQ(stat(in_directory("socket"), &status), 0);
    CHECK_EQ(machio_bootstrap_leave(listener, MACHIO_LEAVE_UNLINK), KERN_SUCCESS);
    CHECK(stat(in_directory("socket"), &status) < 0);
    close(listener);
}

TEST(a_server_leaves_a_directory_that_was_removed) {
    int listener, crashed;
    use_directory();
    CHECK_EQ(machio_bootstrap_listen(&listener), KERN_SUCCESS);
    CHECK_EQ(machio_bootstrap_claim(&crashed), KERN_SUCCESS);
    remove_directory();
    CHECK_EQ(machio_bootstrap_leave(listener, MACHIO_LEAVE_UNLINK), KERN_SUCCESS);
    close(listener);
}

TEST(the_next_server_learns_that_the_last_one_crashed) {
    int crashed, listener;
    use_directory();
    CHECK_EQ(machio_bootstrap_claim(&crashed), KERN_SUCCESS);
    CHECK_EQ(crashed, 0);
    CHECK_EQ(machio_bootstrap_claim(&crashed), KERN_SUCCESS);
    CHECK_EQ(crashed, 1);
    CHECK_EQ(machio_bootstrap_listen(&listener), KERN_SUCCESS);
    CHECK_EQ(machio_bootstrap_leave(listener, MACHIO_LEAVE_NOW), KERN_SUCCESS);
    CHECK_EQ(machio_bootstrap_claim(&crashed), KERN_SUCCESS);
    CHECK_EQ(crashed, 0);
    close(listener);
}

/* ---- starting ------------------------------------------------------------------------------ */

static volatile sig_atomic_t children_ended;

static void on_child(int number) {
    (void)number;
    children_ended++;
}

TEST(a_started_server_shares_nothing_with_its_starter) {
    char text[4096], expected[256], *line;
    int listen_pid, pid, parent, session;
    int fds, unrelated[2];
    sigset_t blocked;

    use_directory();
    CHECK_EQ(mkfifo(in_directory("report"), 0600), 0);
    CHECK_EQ(pipe(unrelated), 0); /* not close-on-exec */
    signal(SIGCHLD, on_child);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    setenv("LISTEN_PID", "1", 1);
    setenv("LISTEN_FDNAMES", "other", 1);
    run_script("exec 5>report; read -r pid name state parent group session rest </proc/$$/stat;"
               " echo $LISTEN_PID $$ $parent $session >&5;"
               " echo $LISTEN_FDS $LISTEN_FDNAMES $MACHIO_BOOTSTRAP $(pwd -P) >&5;"
               " while read -r line; do case $line in Sig[BI]*) echo $line >&5; esac;"
               " done </proc/$$/status; umask >&5;"
               " fd=0; while [ $fd -lt 100 ]; do"
               " if [ -e /proc/$$/fd/$fd ]; then echo $fd >&5; fi; fd=$((fd + 1)); done");
    fds = check_fd_count();
    CHECK_EQ(try_to_connect(true), KERN_SUCCESS);
    CHECK_FDS(fds);
    read_report(open(in_directory("report"), O_RDONLY | O_CLOEXEC), text, sizeof text);

    CHECK_EQ(sscanf(text, "%d %d %d %d", &listen_pid, &pid, &parent, &session), 4);
    CHECK_EQ(listen_pid, pid);
    CHECK(parent != getpid());
    CHECK(session != getsid(0));
    line = strchr(text, '\n') + 1;
    snprintf(expected, sizeof expected, "1 machio-started %s %s\n", directory, directory);
    CHECK_MEM(line, expected, strlen(expected));
    /* Signals 32 and 33 are libc's own: make leaves them ignored, and no program can change that.
     */
    unsigned long long masked, ignored_signals;
    line = strstr(text, "SigBlk:");
    CHECK(line != NULL);
    CHECK_EQ(sscanf(line, "SigBlk: %llx\nSigIgn: %llx", &masked, &ignored_signals), 2);
    CHECK_EQ(masked, 0);
    CHECK_EQ(ignored_signals & ~0x180000000ull, 0);
    /* 5 is the script's own. */
    line = strstr(text, "0077\n");
    CHECK(line != NULL);
    CHECK(strcmp(line, "0077\n0\n1\n2\n3\n5\n") == 0);

    /* Not our child: nothing to wait for, no signal. */
    CHECK_EQ(children_ended, 0);
    CHECK_EQ(waitpid(-1, NULL, WNOHANG | __WALL), -1);
    CHECK_EQ(errno, ECHILD);
}

TEST(many_at_once_start_one_server) {
    enum { MANY = 24 };
    pid_t clients[MANY], server = 0;
    char text[4096];
    int go[2], lines = 0;

    use_directory();
    run_script("echo $$ >>started; exec sleep 60");
    CHECK_EQ(pipe(go), 0);
    for (int i = 0; i < MANY; i++) {
        clients[i] = fork();
        CHECK(clients[i] >= 0);
        if (clients[i] == 0) {
            struct pollfd fd = {.fd = go[0]};
            close(go[1]);
            poll(&fd, 1, -1); /* until the parent lets go */
            CHECK_EQ(try_to_connect(true), KERN_SUCCESS);
            _exit(0);
        }
    }
    close(go[0]);
    close(go[1]);
    for (int i = 0; i < MANY; i++)
        CHECK_CHILD(clients[i]);
    /* It has run until it wrote its pid; the connections were queued before. */
    while (server == 0) {
        FILE *file = fopen(in_directory("started"), "r");
        if (file == NULL)
            continue;
        while (fgets(text, sizeof text, file) != NULL && strchr(text, '\n') != NULL) {
            server = atoi(text);
            lines++;
        }
        fclose(file);
    }
    CHECK_EQ(lines, 1);
    kill(server, SIGKILL);
}

TEST(a_server_that_dies_at_once_is_a_clear_error) {
    int fds = check_fd_count();
    int64_t begin = mio_rendezvous_clock();
    mach_port_t port = 77;
    use_directory();
    run_script("echo all is well; echo the disk is on fire >&2; exit 1");
    CHECK_EQ(bootstrap_look_up(bootstrap_port, "service", &port), MACH_SEND_INVALID_DEST);
    check_sentence("ended before it answered, saying: the disk is on fire");
    CHECK_EQ(port, 77);
    CHECK(mio_rendezvous_clock() - begin < 10000);
    CHECK_EQ(waitpid(-1, NULL, WNOHANG | __WALL), -1);
    CHECK_FDS(fds);
}

TEST(a_command_that_is_not_there_is_a_clear_error) {
    struct stat status;
    use_directory();
    const char *const wrong[] = {"/nowhere/python", NULL};
    CHECK_EQ(machio_set_bootstrap_command(wrong), KERN_SUCCESS);
    CHECK_EQ(mio_bootstrap_ensure(true), KERN_FAILURE);
    check_sentence("/nowhere/python: No such file");
    setenv("MACHIO_BOOTSTRAPD", "no-such-program with words", 1);
    CHECK_EQ(mio_bootstrap_ensure(true), KERN_FAILURE);
    check_sentence("there is no program no-such-program; set MACHIO_BOOTSTRAPD");
    CHECK(stat(in_directory("socket"), &status) < 0);
}

TEST(nothing_is_started_unless_allowed) {
    use_directory();
    run_script("touch started");
    CHECK_EQ(mio_bootstrap_ensure(false), KERN_FAILURE);
    check_sentence("no bootstrap server");
    CHECK(access(in_directory("started"), F_OK) < 0);
}

/* ---- the welcome --------------------------------------------------------------------------- */

/* A server that welcomes whoever comes, until it is killed; ready when this returns. */
static pid_t fork_server(void) {
    int listener, crashed;
    CHECK_EQ(machio_bootstrap_listen(&listener), KERN_SUCCESS);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct pollfd waiting = {.fd = listener, .events = POLLIN};
        mach_port_name_t port;
        CHECK_EQ(machio_bootstrap_claim(&crashed), KERN_SUCCESS);
        CHECK_EQ(mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &port), 0);
        CHECK_EQ(mio_bootstrap_ensure(true), KERN_NOT_SUPPORTED);
        for (;;) {
            poll(&waiting, 1, -1);
            int client = accept(listener, NULL, NULL);
            CHECK_EQ(machio_bootstrap_welcome(client, port), KERN_SUCCESS);
            close(client);
        }
    }
    close(listener);
    return pid;
}

static void kill_server(pid_t pid) {
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static bool is_pending(void) {
    mio_lock();
    bool pending = mio_bootstrap_pending(bootstrap_port);
    mio_unlock();
    return pending;
}

TEST(the_bootstrap_port_keeps_its_name_over_servers) {
    mach_port_t name = bootstrap_port, same;
    mach_port_type_t type;
    mach_port_urefs_t urefs;
    int fds;

    use_directory();
    CHECK(MACH_PORT_VALID(name));
    CHECK(is_pending());
    for (int i = 0; i < 3; i++) {
        pid_t server = fork_server();
        fds = check_fd_count();
        CHECK_EQ(mio_bootstrap_ensure(true), KERN_SUCCESS);
        CHECK(!is_pending());
        CHECK_EQ(check_fd_count(), fds + 2); /* tx, cr */
        CHECK_EQ(mio_bootstrap_ensure(true), KERN_SUCCESS);
        CHECK_EQ(bootstrap_port, name);
        kill_server(server);
        CHECK(is_pending());
        CHECK_EQ(mach_port_type(mach_task_self(), name, &type), KERN_SUCCESS);
        CHECK_EQ(type, MACH_PORT_TYPE_SEND);
        CHECK_FDS(fds);
    }
    CHECK_EQ(task_get_special_port(mach_task_self(), TASK_BOOTSTRAP_PORT, &same), KERN_SUCCESS);
    CHECK_EQ(same, name);
    CHECK_EQ(mach_port_get_refs(mach_task_self(), name, MACH_PORT_RIGHT_SEND, &urefs), 0);
    CHECK_EQ(urefs, 2);
}

static void *ensure(void *result) {
    *(kern_return_t *)result = mio_bootstrap_ensure(true);
    return NULL;
}

TEST(threads_at_once_connect_once) {
    enum { MANY = 16 };
    pthread_t threads[MANY];
    kern_return_t results[MANY];
    int fds;

    use_directory();
    pid_t server = fork_server();
    fds = check_fd_count();
    for (int i = 0; i < MANY; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, ensure, &results[i]), 0);
    for (int i = 0; i < MANY; i++) {
        pthread_join(threads[i], NULL);
        CHECK_EQ(results[i], KERN_SUCCESS);
    }
    CHECK_FDS(fds + 2);
    kill_server(server);
}

/* A port to which another task sends its bootstrap port's right. */
struct carrier {
    mach_msg_header_t head;
    mach_msg_body_t body;
    mach_msg_port_descriptor_t right;
};

static void send_bootstrap_port(mach_port_t to) {
    struct carrier message = {
        .head = {.msgh_bits = MACH_MSGH_BITS_COMPLEX | MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, 0),
                 .msgh_remote_port = to,
                 .msgh_id = 5},
        .body = {.msgh_descriptor_count = 1},
        .right = {.name = bootstrap_port,
                  .disposition = MACH_MSG_TYPE_COPY_SEND,
                  .type = MACH_MSG_PORT_DESCRIPTOR},
    };
    CHECK_EQ(mach_msg(&message.head, MACH_SEND_MSG, sizeof message, 0, 0, 0, 0), 0);
}

TEST(anothers_bootstrap_port_is_ones_own) {
    mach_port_name_t port;
    mach_port_urefs_t urefs;
    mach_msg_type_name_t disposition;
    struct {
        struct carrier carrier;
        char trailer[128];
    } got;
    int pair[2];

    use_directory();
    pid_t server = fork_server();
    CHECK_EQ(mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &port), 0);
    (void)disposition;
    /* The child gets a right to the port over a connection of its own, in a welcome. */
    CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct mio_kmsg *kmsg = NULL;
        struct pollfd waiting = {.fd = pair[1], .events = POLLIN};
        unsigned kind, flags;
        mach_port_name_t to;
        mio_pair_receiver(pair[1]);
        CHECK_EQ(write(pair[1], "", 1), 1);
        poll(&waiting, 1, -1);
        mio_lock();
        CHECK_EQ(mio_wire_receive(pair[1], &kmsg, &kind, &flags), MIO_WIRE_OK);
        CHECK(kmsg != NULL);
        CHECK_EQ(mio_right_copyout(&kmsg->reply, &to), KERN_SUCCESS);
        mio_kmsg_destroy(kmsg);
        mio_unlock();
        send_bootstrap_port(to);
        _exit(0);
    }
    CHECK_EQ(read(pair[0], got.trailer, 1), 1);
    mio_lock();
    struct mio_kmsg *kmsg = mio_kmsg_new(sizeof(mach_msg_header_t), 0);
    CHECK_EQ(mio_right_copyin(port, MACH_MSG_TYPE_MAKE_SEND, &kmsg->reply), KERN_SUCCESS);
    CHECK_EQ(mio_wire_send(pair[0], kmsg, MIO_FRAME_NO_CREDIT), MIO_WIRE_OK);
    mio_kmsg_destroy(kmsg);
    mio_unlock();

    /* This task is not connected yet: the message on its way holds the port before. */
    CHECK(is_pending());
    CHECK_EQ(mach_msg(&got.carrier.head, MACH_RCV_MSG, 0, sizeof got, port, 0, 0), 0);
    CHECK_CHILD(child);
    CHECK_EQ(got.carrier.head.msgh_id, 5);
    CHECK_EQ(got.carrier.right.name, bootstrap_port);
    CHECK(!is_pending());
    CHECK_EQ(mach_port_get_refs(mach_task_self(), bootstrap_port, MACH_PORT_RIGHT_SEND, &urefs), 0);
    CHECK_EQ(urefs, 2);
    kill_server(server);
    CHECK(is_pending());
    close(pair[0]);
    close(pair[1]);
}

TEST(a_forked_child_connects_anew) {
    use_directory();
    pid_t server = fork_server();
    CHECK_EQ(mio_bootstrap_ensure(true), KERN_SUCCESS);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(is_pending());
        CHECK_EQ(mio_bootstrap_ensure(true), KERN_SUCCESS);
        CHECK(!is_pending());
        _exit(0);
    }
    CHECK_CHILD(child);
    CHECK(!is_pending());
    kill_server(server);
}

TEST(a_null_port_is_no_bootstrap_server) {
    mach_port_t port = 9;
    use_directory();
    CHECK_EQ(bootstrap_look_up(MACH_PORT_NULL, "name", &port), MACH_SEND_INVALID_DEST);
    CHECK_EQ(bootstrap_check_in(MACH_PORT_DEAD, "name", &port), MACH_SEND_INVALID_DEST);
    CHECK_EQ(port, 9);
    CHECK_EQ(bootstrap_register(bootstrap_port, "name", MACH_PORT_NULL), BOOTSTRAP_SUCCESS);
}

CHECK_MAIN()

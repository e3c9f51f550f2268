/*
 * Finding, starting and leaving the bootstrap server: the private directory, the command, the
 * race. The servers here are shell scripts and forked children; the real one is
 * tested by tests/test_bootstrapd.py.
 */
#include "rendezvous_peer.h"

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

CHECK_MAIN()

/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Starting the bootstrap server: which command, and a process that shares nothing with this one.
 *
 * The process may have threads, SIGCHLD handlers and children of its own, so neither fork() nor
 * posix_spawn() will do. fork() runs the handlers of pthread_atfork, this layer's among them, and
 * leaves SIGCHLD behind. A bare clone without an exit signal does neither: no handler runs, no
 * SIGCHLD is sent, and the child is seen only by a waitpid() that asks for it with __WALL. It
 * makes the grandchild and ends at once; the grandchild is init's and becomes the command.
 *
 * Between clone and exec only system calls are made. All signals are blocked there until every
 * handler is gone. Whether exec worked is told by a close-on-exec pipe: end of file, or an errno.
 *
 * The pid for LISTEN_PID is not known before, so the grandchild writes it into its own copy of
 * the environment.
 */
#include "internal.h"
#include "rendezvous.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ---- a process of its own ------------------------------------------------------------------ */

struct spawn {
    const char *const *argv; /* argv[0]: a path with a slash in it */
    char *const *envp;
    char *pid_digits; /* in one of envp's strings: room for the new process' pid in ten digits */
    int listener;     /* becomes fd 3 */
    int directory;    /* becomes the current directory */
    int log;          /* becomes stderr */
};

/* Descriptors below this one are given away in the new process. */
enum { LISTENER = 3, REPORT = 4, PLAIN = 16 };

/* fork() without handlers and, no flag being set, without an exit signal. */
static pid_t bare_fork(void) {
    return (pid_t)syscall(SYS_clone, 0ul, 0ul, 0ul, 0ul, 0ul);
}

static void default_signals(void) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &action, NULL);
}

static void write_pid(char *digits) {
    pid_t pid = getpid();
    char reversed[10];
    unsigned count = 0;
    do
        reversed[count++] = (char)('0' + pid % 10);
    while ((pid /= 10) > 0);
    while (count > 0)
        *digits++ = reversed[--count];
    *digits = '\0';
}

/* Puts every descriptor in its place and closes all others. False: errno says why. */
static bool arrange_files(const struct spawn *how, int report) {
    /* Out of the way first: any of them may sit where another has to go. */
    int listener = fcntl(how->listener, F_DUPFD, PLAIN);
    int log = fcntl(how->log, F_DUPFD, PLAIN);
    int directory = fcntl(how->directory, F_DUPFD, PLAIN);
    report = fcntl(report, F_DUPFD, PLAIN);
    int null = open("/dev/null", O_RDWR);
    if (listener < 0 || log < 0 || directory < 0 || report < 0 || null < 0)
        return false;
    null = fcntl(null, F_DUPFD, PLAIN);
    if (null < 0 || fchdir(directory) < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 ||
        dup2(log, 2) < 0 || dup2(listener, LISTENER) < 0 || dup3(report, REPORT, O_CLOEXEC) < 0)
        return false;
#ifdef SYS_close_range
    if (syscall(SYS_close_range, REPORT + 1u, ~0u, 0u) == 0)
        return true;
#endif
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur > 1u << 20)
        limit.rlim_cur = 1u << 20;
    for (int fd = REPORT + 1; fd < (int)limit.rlim_cur; fd++)
        close(fd);
    return true;
}

/* The grandchild. */
static _Noreturn void become(const struct spawn *how, int report) {
    sigset_t none;
    int failure;

    default_signals();
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    umask(077);
    write_pid(how->pid_digits);
    if (arrange_files(how, report)) {
        report = REPORT;
        execve(how->argv[0], (char *const *)(uintptr_t)how->argv, how->envp);
    }
    failure = errno;
    (void)!write(report, &failure, sizeof failure);
    _exit(127);
}

/*
 * Starts a process that is nobody's child, has no terminal, default signals and no file of ours
 * but those above. 0, or the errno of what failed, exec included.
 */
static int spawn(const struct spawn *how, int64_t deadline) {
    sigset_t all, before;
    int report[2], status = 0, failure = 0;
    ssize_t got;

    if (pipe2(report, O_CLOEXEC) < 0)
        return errno;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t child = bare_fork();
    if (child == 0) {
        setsid();
        pid_t grandchild = bare_fork();
        if (grandchild == 0)
            become(how, report[1]);
        _exit(grandchild < 0 ? errno : 0);
    }
    if (child < 0)
        failure = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(report[1]);
    if (child > 0) {
        while (waitpid(child, &status, __WALL) < 0 && errno == EINTR)
            continue;
        if (WIFEXITED(status))
            failure = WEXITSTATUS(status);
    }
    /* A program without close-on-exec hygiene may hold the pipe: hence the time limit. */
    struct pollfd fd = {.fd = report[0], .events = POLLIN};
    while (failure == 0) {
        int64_t left = deadline - mio_rendezvous_clock();
        int ready = poll(&fd, 1, left > 0 ? (int)left : 0);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready == 0)
            failure = ETIMEDOUT;
        break;
    }
    if (failure == 0) {
        do
            got = read(report[0], &failure, sizeof failure);
        while (got < 0 && errno == EINTR);
        if (got != sizeof failure)
            failure = 0;
    }
    close(report[0]);
    return failure;
}

/* ---- the command --------------------------------------------------------------------------- */

#define MOST_WORDS 31

static char *command[MOST_WORDS + 1]; /* as set; guarded by `starting` */

kern_return_t machio_set_bootstrap_command(const char *const argv[]) {
    char *words[MOST_WORDS + 1] = {NULL};
    unsigned count = 0;

    for (; argv != NULL && argv[count] != NULL; count++) {
        if (count == MOST_WORDS)
            break;
        words[count] = strdup(argv[count]);
        if (words[count] == NULL)
            break;
    }
    bool whole = argv == NULL || argv[count] == NULL;
    if (whole) {
        mio_starting_lock();
        for (unsigned i = 0; i <= MOST_WORDS; i++) {
            char *word = command[i];
            command[i] = words[i];
            words[i] = word;
        }
        mio_starting_unlock();
    }
    for (unsigned i = 0; i < MOST_WORDS; i++)
        free(words[i]);
    return whole ? KERN_SUCCESS : KERN_RESOURCE_SHORTAGE;
}

const char *mio_setting(const char *name) {
    const char *value = secure_getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

/*
 * The words of the command, `starting` held: the person's own MACHIO_BOOTSTRAPD, split at spaces
 * within `text`; else the one that was set; else python3's.
 */
static void choose_command(const char *words[MOST_WORDS + 1], char text[PATH_MAX]) {
    static const char *const standard[] = {"python3", "-m", "machio.bootstrapd"};
    const char *wish = mio_setting("MACHIO_BOOTSTRAPD");
    unsigned count = 0;

    if (wish != NULL && strlen(wish) < PATH_MAX) {
        char *rest = strcpy(text, wish), *word;
        while (count < MOST_WORDS && (word = strtok_r(rest, " ", &rest)) != NULL)
            words[count++] = word;
    }
    if (count == 0)
        for (; command[count] != NULL; count++)
            words[count] = command[count];
    if (count == 0)
        for (; count < 3; count++)
            words[count] = standard[count];
    words[count] = NULL;
}

void mio_start_command(char *line, size_t size) {
    const char *words[MOST_WORDS + 1];
    char text[PATH_MAX];
    size_t used = 0;

    mio_starting_lock();
    choose_command(words, text);
    line[0] = '\0';
    for (unsigned i = 0; words[i] != NULL && used < size; i++)
        used += (size_t)snprintf(line + used, size - used, i ? " %s" : "%s", words[i]);
    mio_starting_unlock();
}

/* Finds the program as execvp() would; nothing may be searched for between fork and exec. */
static bool find_program(const char *word, char path[PATH_MAX]) {
    const char *list = getenv("PATH");
    if (strchr(word, '/') != NULL)
        return snprintf(path, PATH_MAX, "%s", word) < PATH_MAX;
    if (list == NULL)
        list = "/usr/local/bin:/usr/bin:/bin";
    for (size_t span; *list != '\0'; list += span + (list[span] == ':')) {
        span = strcspn(list, ":");
        if (list[0] == '/' && /* not relative to where one happens to be */
            snprintf(path, PATH_MAX, "%.*s/%s", (int)span, list, word) < PATH_MAX &&
            access(path, X_OK) == 0)
            return true;
    }
    return false;
}

static bool is_ours(const char *variable) {
    return strncmp(variable, "LISTEN_PID=", 11) == 0 || strncmp(variable, "LISTEN_FDS=", 11) == 0 ||
           strncmp(variable, "LISTEN_FDNAMES=", 15) == 0 ||
           strncmp(variable, "MACHIO_BOOTSTRAP=", 17) == 0;
}

/* Runs the command with the listener as systemd would pass it. 0 or an errno. */
static int run_server(int place, const char *path, const char *const *argv, int listener,
                      int64_t deadline) {
    static char fds[] = "LISTEN_FDS=1", names[] = "LISTEN_FDNAMES=machio-started";
    char pid[] = "LISTEN_PID=0000000000", directory[PATH_MAX + 32];
    size_t count = 0, kept = 0;

    while (environ != NULL && environ[count] != NULL)
        count++;
    char **envp = calloc(count + 5, sizeof *envp);
    if (envp == NULL)
        return ENOMEM;
    for (size_t i = 0; i < count && environ[i] != NULL; i++)
        if (!is_ours(environ[i]))
            envp[kept++] = environ[i];
    snprintf(directory, sizeof directory, "MACHIO_BOOTSTRAP=%s", path);
    envp[kept++] = fds;
    envp[kept++] = names;
    envp[kept++] = pid;
    envp[kept++] = directory;
    int log = openat(place, "log", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW,
                     0600);
    int error = log < 0 ? errno : 0;
    if (error == 0) {
        struct spawn how = {
            .argv = argv,
            .envp = envp,
            .pid_digits = strchr(pid, '=') + 1,
            .listener = listener,
            .directory = place,
            .log = log,
        };
        error = spawn(&how, deadline);
        close(log);
    }
    free(envp);
    return error;
}

kern_return_t mio_start_server(int directory, const char *path, int listener, int64_t deadline) {
    const char *argv[MOST_WORDS + 1];
    char text[PATH_MAX], program[PATH_MAX];

    choose_command(argv, text);
    const char *name = argv[0];
    if (!find_program(name, program)) {
        mio_say("cannot start the bootstrap server: there is no program %s; set MACHIO_BOOTSTRAPD "
                "to the command that runs it",
                name);
        return KERN_FAILURE;
    }
    argv[0] = program;
    int error = run_server(directory, path, argv, listener, deadline);
    if (error == 0)
        return KERN_SUCCESS;
    mio_say("cannot start the bootstrap server with %s: %s; set MACHIO_BOOTSTRAPD to the command "
            "that runs it",
            name, strerror(error));
    return error == EAGAIN || error == ENOMEM || error == EMFILE ? KERN_RESOURCE_SHORTAGE
                                                                 : KERN_FAILURE;
}

/* outlive-runner: the parent of one module. It outlives the agent, keeps the module's log and records its end.
 *
 *     outlive-runner --state-dir DIR --log FILE --log-max-bytes N --log-keep K --cgroup DIR [--cgroup DIR]…
 *                    [--runner-cgroup DIR] [--user UID --group GID [--groups GID,GID]] [--cwd DIR]
 *                    [--rlimit NAME=SOFT:HARD]… [--env-file FILE] [--ready-fd N] -- PROGRAM [ARGUMENT]…
 *
 * The first --cgroup is the module's, of the unified hierarchy; it is cleared when the module's first process has
 * ended, or the runner, however that came about (mourner.h). Further ones are of older hierarchies, for limits.
 * The log is described in logfile.h. The ready descriptor gets `OK pid` once the program runs, or `ERR sentence`.
 *
 * In the state folder, each replaced as a whole:
 *     state.json  {"boot_id":…, "runner_pid":…, "runner_start_ticks":…, "child_pid":…, "child_start_ticks":…}
 *                 child_pid is 0 until the program runs
 *     exit.json   {"code":N | "signal":N, "boottime_ns":…, "emptied":true|false, "error":…}   once it has ended
 *     lock        held by the runner that lives, so that there is one; the next waits a moment for it
 *
 * SIGTERM is passed on to the module. Ends as the module ended; 1 failed, 2 usage, 3 another runner lives here,
 * 127 the program could not be run. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "capture.h"
#include "cgroup.h"
#include "launch.h"
#include "logfile.h"
#include "mourner.h"
#include "process.h"

enum {
    EXIT_NOT_RUN = 127,
    RUNNER_OOM_SCORE = -900,
    EMPTIED_WITHIN_MS = 1000,
    DRAINED_WITHIN_MS = 300,
    LOGGED_WITHIN_MS = 2000,
    RECORDED_WITHIN_MS = 2000,
    PREDECESSOR_ENDED_WITHIN_MS = 3000,
    RECORD_BYTES = 1024,
};

struct options {
    const char *state_dir;
    const char *runner_cgroup;
    struct logfile_options log;
    struct launch launch;
    int ready_fd;
};

static struct {
    struct options options;
    struct cgroup cgroup;
    struct capture out;
    struct capture err;
    int signal_fd;
    pid_t child;
    int status; /* of the child, once ended */
    bool ended;
} runner;

static _Noreturn void __attribute__((format(printf, 2, 3))) give_up(int status, const char *format, ...)
{
    char sentence[LAUNCH_SENTENCE_BYTES];
    int error = errno;
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    if (error != 0)
        ready_say(&runner.options.ready_fd, STDERR_FILENO, "ERR %s: %s", sentence, strerrordesc_np(error));
    else
        ready_say(&runner.options.ready_fd, STDERR_FILENO, "ERR %s", sentence);
    mourner_dismiss();
    exit(status);
}

static bool groups_parse(char *text, struct launch *launch)
{
    char *rest = NULL;
    uint64_t number;

    for (char *word = strtok_r(text, ",", &rest); word != NULL; word = strtok_r(NULL, ",", &rest)) {
        if (launch->group_count == MOST_GROUPS || !number_parse(word, UINT32_MAX - 1, &number))
            return false;
        launch->groups[launch->group_count++] = (gid_t)number;
    }
    return true;
}

static bool option_take(int option, char *value, struct options *options)
{
    struct launch *launch = &options->launch;
    uint64_t number = 0;

    switch (option) {
    case 's': options->state_dir = value; return true;
    case 'l': options->log.path = value; return true;
    case 'R': options->runner_cgroup = value; return true;
    case 'd': launch->folder = value; return true;
    case 'G': return groups_parse(value, launch);
    case 'r': return descriptor_parse(value, &options->ready_fd);
    case 'm':
        return number_parse(value, INT64_MAX, &options->log.most_bytes) && options->log.most_bytes > 0;
    case 'k':
        if (!number_parse(value, 1000, &number))
            return false;
        options->log.keep = (unsigned)number;
        return true;
    case 'c':
        if (launch->cgroups == MOST_CGROUPS)
            return false;
        launch->cgroup[launch->cgroups++] = value;
        return true;
    case 'u':
        launch->as_user = number_parse(value, UINT32_MAX - 1, &number);
        launch->user = (uid_t)number;
        return launch->as_user;
    case 'g':
        if (!number_parse(value, UINT32_MAX - 1, &number))
            return false;
        launch->group = (gid_t)number;
        return true;
    case 'L':
        return launch->limits < MOST_LIMITS && launch_limit_parse(value, &launch->limit[launch->limits++]);
    case 'e':
        launch->environment = launch_environment_read(value);
        if (launch->environment == NULL)
            give_up(EXIT_FAILED, "cannot read the environment from %s", value);
        return true;
    default: return false;
    }
}

static bool options_read(int count, char *words[], struct options *options)
{
    static const struct option known[] = {
        { "state-dir", required_argument, NULL, 's' },     { "log", required_argument, NULL, 'l' },
        { "log-max-bytes", required_argument, NULL, 'm' }, { "log-keep", required_argument, NULL, 'k' },
        { "cgroup", required_argument, NULL, 'c' },        { "runner-cgroup", required_argument, NULL, 'R' },
        { "user", required_argument, NULL, 'u' },          { "group", required_argument, NULL, 'g' },
        { "groups", required_argument, NULL, 'G' },        { "cwd", required_argument, NULL, 'd' },
        { "rlimit", required_argument, NULL, 'L' },        { "env-file", required_argument, NULL, 'e' },
        { "ready-fd", required_argument, NULL, 'r' },      { NULL, 0, NULL, 0 },
    };
    bool with_group = false;
    int option;

    *options = (struct options){ .ready_fd = -1, .log = { .most_bytes = 8 * 1024 * 1024, .keep = 3 } };
    while ((option = getopt_long(count, words, "+", known, NULL)) != -1) {
        with_group = with_group || option == 'g';
        if (!option_take(option, optarg, options)) {
            if (option != '?')
                fprintf(stderr, "outlive-runner: the value %s is not valid\n", optarg);
            return false;
        }
    }
    options->launch.words = words + optind;
    return options->state_dir != NULL && options->log.path != NULL && options->launch.cgroups > 0
        && options->launch.as_user == with_group && optind < count;
}

static void record_state(void)
{
    char text[RECORD_BYTES];
    char boot_id[BOOT_ID_BYTES + 1];

    if (!boot_id_read(boot_id))
        give_up(EXIT_FAILED, "cannot learn which boot this is");
    uint64_t child_ticks = runner.child > 0 ? start_ticks(runner.child) : 0;
    snprintf(text, sizeof text,
             "{\"boot_id\":\"%s\",\"runner_pid\":%d,\"runner_start_ticks\":%" PRIu64
             ",\"child_pid\":%d,\"child_start_ticks\":%" PRIu64 "}\n",
             boot_id, (int)getpid(), start_ticks(getpid()), (int)runner.child, child_ticks);
    if (!file_replace(runner.options.state_dir, "state.json", text)) {
        int error = errno;
        (void)mourner_clear(&runner.cgroup, EMPTIED_WITHIN_MS); /* what nobody could adopt must not run */
        errno = error;
        give_up(EXIT_FAILED, "cannot write state.json in %s", runner.options.state_dir);
    }
}

static void pause_a_moment(void)
{
    struct timespec pause = { .tv_nsec = 20 * NS_PER_MS };

    (void)nanosleep(&pause, NULL);
}

static void record_end(const char *text)
{
    int64_t until_ns = boottime_ns() + RECORDED_WITHIN_MS * NS_PER_MS;

    while (!file_replace(runner.options.state_dir, "exit.json", text) && boottime_ns() < until_ns)
        pause_a_moment();
}

/* Returns the lock, held for life. */
static int take_state_dir(void)
{
    const char *folder = runner.options.state_dir;
    int64_t until_ns = boottime_ns() + PREDECESSOR_ENDED_WITHIN_MS * NS_PER_MS;
    char path[PATH_MAX];

    if (snprintf(path, sizeof path, "%s/lock", folder) >= (int)sizeof path)
        give_up(EXIT_USAGE, "the state folder's name is too long");
    int lock = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (lock < 0)
        give_up(EXIT_FAILED, "cannot open %s", path);
    while (flock(lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK)
            give_up(EXIT_FAILED, "cannot lock %s", path);
        errno = 0;
        if (boottime_ns() >= until_ns)
            give_up(EXIT_REFUSED, "another runner lives in %s", folder);
        pause_a_moment(); /* one that is just ending, or its mourner */
    }
    snprintf(path, sizeof path, "%s/exit.json", folder);
    if (unlink(path) != 0 && errno != ENOENT)
        give_up(EXIT_FAILED, "cannot remove %s", path);
    return lock;
}

static void hold_signals(void)
{
    sigset_t held;

    if (signal(SIGCHLD, SIG_DFL) == SIG_ERR) /* ignored, it would take the module's status from us */
        give_up(EXIT_FAILED, "cannot be told of the module's end");
    sigemptyset(&held);
    sigaddset(&held, SIGCHLD);
    sigaddset(&held, SIGTERM);
    sigaddset(&held, SIGINT);
    sigaddset(&held, SIGHUP);
    sigaddset(&held, SIGQUIT);
    sigaddset(&held, SIGUSR1);
    sigaddset(&held, SIGUSR2);
    sigaddset(&held, SIGPIPE);
    sigaddset(&held, SIGXFSZ);
    if (sigprocmask(SIG_BLOCK, &held, NULL) != 0)
        give_up(EXIT_FAILED, "cannot hold signals back");
    runner.signal_fd = signalfd(-1, &held, SFD_CLOEXEC | SFD_NONBLOCK);
    if (runner.signal_fd < 0)
        give_up(EXIT_FAILED, "cannot read signals");
}

static void protect_itself(struct launch *launch)
{
    int score = 0;

    /* The module gets what the runner had, unless that was protection meant for the agent. */
    launch->oom_score = oom_score_read(&score) && score > 0 ? score : 0;
    (void)oom_score_write(RUNNER_OOM_SCORE); /* where it is not allowed, the runner is as safe as the agent */
}

/* Waits until the program runs; what the child says instead becomes the answer. */
static void hear_child(int from)
{
    char sentence[LAUNCH_SENTENCE_BYTES];
    char text[RECORD_BYTES];
    size_t heard = 0;
    ssize_t got;

    while ((got = read(from, sentence + heard, sizeof sentence - 1 - heard)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            break;
        heard += (size_t)got;
    }
    close(from);
    sentence[heard] = '\0';
    if (heard == 0)
        return;
    for (size_t i = 0; i < heard; i++)
        if (sentence[i] == '"' || sentence[i] == '\\' || (unsigned char)sentence[i] < ' ')
            sentence[i] = '\'';
    (void)mourner_clear(&runner.cgroup, EMPTIED_WITHIN_MS);
    snprintf(text, sizeof text, "{\"code\":%d,\"boottime_ns\":%" PRId64 ",\"emptied\":true,\"error\":\"%s\"}\n",
             EXIT_NOT_RUN, boottime_ns(), sentence);
    record_end(text);
    errno = 0;
    give_up(EXIT_NOT_RUN, "%s", sentence);
}

static void start_child(void)
{
    int out[2];
    int err[2];
    int tell[2];
    pid_t self = getpid();

    if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0 || pipe2(tell, O_CLOEXEC) != 0)
        give_up(EXIT_FAILED, "cannot make pipes");
    if (fcntl(out[0], F_SETFL, O_NONBLOCK) != 0 || fcntl(err[0], F_SETFL, O_NONBLOCK) != 0)
        give_up(EXIT_FAILED, "cannot read without waiting");
    runner.child = fork();
    if (runner.child < 0)
        give_up(EXIT_FAILED, "cannot fork");
    if (runner.child == 0)
        launch_become(&runner.options.launch, self, out[1], err[1], tell[1]);
    close(out[1]);
    close(err[1]);
    close(tell[1]);
    runner.out = (struct capture){ .fd = out[0], .stream = 'o' };
    runner.err = (struct capture){ .fd = err[0], .stream = 'e' };
    hear_child(tell[0]);
}

static void take_signals(void)
{
    struct signalfd_siginfo signal;

    while (read(runner.signal_fd, &signal, sizeof signal) == sizeof signal)
        if (signal.ssi_signo == SIGTERM && !runner.ended)
            (void)kill(runner.child, SIGTERM);
    if (!runner.ended && waitpid(runner.child, &runner.status, WNOHANG) == runner.child)
        runner.ended = true;
}

static int sooner(int one_ms, int other_ms)
{
    if (one_ms < 0 || other_ms < 0)
        return one_ms < 0 ? other_ms : one_ms;
    return one_ms < other_ms ? one_ms : other_ms;
}

/* Takes what the module writes, and signals, for one turn of at most `most_ms` (-1: until something comes). */
static void serve_once(int most_ms)
{
    struct pollfd polled[] = {
        { .fd = runner.signal_fd, .events = POLLIN },
        { .fd = runner.out.fd, .events = POLLIN },
        { .fd = runner.err.fd, .events = POLLIN },
    };
    int64_t now_ns = boottime_ns();
    int patience_ms = sooner(capture_patience_ms(&runner.out, now_ns), capture_patience_ms(&runner.err, now_ns));

    if (poll(polled, 3, sooner(patience_ms, most_ms)) > 0) {
        if (polled[1].revents != 0)
            capture_read(&runner.out);
        if (polled[2].revents != 0)
            capture_read(&runner.err);
        if (polled[0].revents != 0)
            take_signals();
    }
    now_ns = boottime_ns();
    capture_flush(&runner.out, now_ns, false);
    capture_flush(&runner.err, now_ns, false);
}

/* The module is its first process: with that gone, the rest goes, and its last words are taken. */
static bool clear_up(void)
{
    int64_t until_ns = boottime_ns() + EMPTIED_WITHIN_MS * NS_PER_MS;
    bool emptied;

    while (!(emptied = cgroup_state(&runner.cgroup) == CGROUP_EMPTY) && boottime_ns() < until_ns) {
        cgroup_kill(&runner.cgroup, false);
        serve_once(2);
    }
    until_ns = boottime_ns() + DRAINED_WITHIN_MS * NS_PER_MS;
    while ((runner.out.fd >= 0 || runner.err.fd >= 0) && boottime_ns() < until_ns)
        serve_once(DRAINED_WITHIN_MS);
    capture_flush(&runner.out, 0, true);
    capture_flush(&runner.err, 0, true);
    return emptied;
}

static _Noreturn void end_alike(int status)
{
    struct rlimit none = { 0, 0 };
    sigset_t all;

    if (WIFSIGNALED(status)) {
        (void)setrlimit(RLIMIT_CORE, &none); /* the module's own core is enough */
        (void)prctl(PR_SET_DUMPABLE, 0);
        (void)signal(WTERMSIG(status), SIG_DFL);
        sigfillset(&all);
        (void)sigprocmask(SIG_UNBLOCK, &all, NULL);
        (void)raise(WTERMSIG(status));
        _exit(128 + WTERMSIG(status));
    }
    _exit(WEXITSTATUS(status));
}

int main(int count, char *words[])
{
    char text[RECORD_BYTES];

    if (!options_read(count, words, &runner.options)) {
        fprintf(stderr, "usage: outlive-runner --state-dir DIR --log FILE --cgroup DIR [--log-max-bytes N] "
                        "[--log-keep K]\n       [--runner-cgroup DIR] [--user UID --group GID [--groups GID,…]] "
                        "[--cwd DIR]\n       [--rlimit NAME=SOFT:HARD]… [--env-file FILE] [--ready-fd N] -- "
                        "PROGRAM [ARGUMENT]…\n");
        return EXIT_USAGE;
    }
    descriptors_close(runner.options.ready_fd);
    (void)setsid(); /* fails only where it is one already */
    if (runner.options.runner_cgroup != NULL && !cgroup_enter(runner.options.runner_cgroup))
        give_up(EXIT_FAILED, "cannot enter the cgroup %s", runner.options.runner_cgroup);
    errno = 0;
    const char *refusal = cgroup_open(&runner.cgroup, runner.options.launch.cgroup[0]);
    if (refusal != NULL)
        give_up(EXIT_FAILED, "%s", refusal);
    int lock = take_state_dir();
    hold_signals();
    protect_itself(&runner.options.launch);
    if (!mourner_start(&runner.cgroup, lock))
        give_up(EXIT_FAILED, "cannot start the mourner");
    record_state();
    start_child();
    record_state();
    if (!logfile_start(runner.options.log)) {
        int error = errno;
        (void)mourner_clear(&runner.cgroup, EMPTIED_WITHIN_MS);
        errno = error;
        give_up(EXIT_FAILED, "cannot start the thread that writes the log");
    }
    ready_say(&runner.options.ready_fd, STDERR_FILENO, "OK %d", (int)runner.child);
    (void)streams_close(true); /* or else whoever reads them waits for the module's end */
    while (!runner.ended)
        serve_once(-1);
    bool emptied = clear_up();
    snprintf(text, sizeof text, "{\"%s\":%d,\"boottime_ns\":%" PRId64 ",\"emptied\":%s}\n",
             WIFSIGNALED(runner.status) ? "signal" : "code",
             WIFSIGNALED(runner.status) ? WTERMSIG(runner.status) : WEXITSTATUS(runner.status), boottime_ns(),
             emptied ? "true" : "false");
    record_end(text);
    logfile_finish(LOGGED_WITHIN_MS);
    mourner_dismiss();
    end_alike(runner.status);
}

/* outlive-guard: makes sure that this host stops acting when its claim ends, whatever becomes of the agent.
 *
 *     outlive-guard --socket PATH [--ready-fd N] [--priority 50] [--cgroup DIR] [--no-cgroup-kill]
 *                   [--watchdog DEVICE --watchdog-timeout S --watchdog-longest S]
 *
 * There is one guard on a host. It holds one deadline, on the boot clock, and a table of workloads (fence.h).
 * Once the deadline has passed it kills every workload's cgroup (its child `_runner`, which holds the run lock,
 * once all else is down) and takes its addresses away. Should it fail at that, or die, the host's hardware watchdog
 * resets the host, where there is one (watchdog.h). It lives in a session of its own, locked in memory, with real-time
 * priority where that is allowed; it allocates nothing once it has started, and never looks at the wall clock. It logs
 * to standard error (journal.h).
 *
 * Clients of the same user connect to PATH, a SOCK_SEQPACKET socket. One packet is one message, of printable
 * ASCII, words parted by single spaces. Each request has one answer; one request at a time from each client.
 *
 *     (on connecting)                      HELLO 1 pid=N memory=… priority=… oom=… watchdog=… [device=… asked=…]
 *                                          what could be had, else why not
 *     DEADLINE boottime_ns [over_ns]       OK deadline_ns   the one now in force: an older one changes nothing.
 *                                          over_ns: from when on others may act; by then the watchdog has fired.
 *                                          At most a minute after the deadline
 *     WHOLE                                OK   all that this host acts for is in the table now
 *     PROTECT workload generation cgroup address/prefix%interface…    OK
 *     RELEASE workload generation          OK   also when it was not there
 *     FENCE workload generation            OK   and FIRED follows
 *     STATUS                               STATE now_ns deadline_ns entries, ENTRY… (several packets), END
 *                                          ENTRY workload generation protected|firing|fired late_ns cgroup address…
 *     QUIT                                 OK   and the guard ends; only while nothing is in force
 *     anything else, or when refused       ERR word sentence
 *
 * To all clients, at any time: `FIRED workload generation late_ns` once the cgroup is empty and the addresses
 * are gone, `STUCK workload generation late_ns` when that takes longer than a second.
 *
 * A message that waited while the guard was stopped cannot put off a deadline that passed meanwhile: the clock
 * is read after each message was taken, and what is due is fired before the message is looked at.
 *
 * Ends with 0 after QUIT or a signal while nothing is in force, 1 failed, 2 usage, 3 another guard listens. */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "clients.h"
#include "fence.h"
#include "hardening.h"
#include "journal.h"
#include "listening.h"
#include "requests.h"
#include "watchdog.h"

enum { MOST_WATCHDOG_S = 3600 };

struct options {
    const char *socket;
    const char *cgroup;
    struct watchdog_wish watchdog;
    int ready_fd;
    int priority;
    bool no_cgroup_kill;
};

static struct {
    char hardness[160];
    char hello[512];
    char note_path[SOCKET_PATH_BYTES + 8];
    int listen_fd;
    int timer_fd;
    int signal_fd;
    int64_t timer_ns;
    int64_t accept_not_before_ns;
    bool over;
} guard;

static void timer_follow_deadline(void)
{
    int64_t deadline_ns = fence_deadline_ns();
    struct itimerspec at = {
        .it_value = { .tv_sec = deadline_ns / NS_PER_S, .tv_nsec = deadline_ns % NS_PER_S },
    };

    if (deadline_ns == guard.timer_ns)
        return;
    if (timerfd_settime(guard.timer_fd, TFD_TIMER_ABSTIME, &at, NULL) == 0)
        guard.timer_ns = deadline_ns;
    else
        journal_note("guard.timer_failed error=%s", strerrorname_np(errno));
}

static void signal_receive(void)
{
    struct signalfd_siginfo signal;

    if (read(guard.signal_fd, &signal, sizeof signal) != sizeof signal)
        return;
    if (signal.ssi_signo != SIGTERM && signal.ssi_signo != SIGINT && signal.ssi_signo != SIGHUP)
        return;
    if (fence_in_force() == 0 && !watchdog_doubts_table())
        guard.over = true;
    journal_note("guard.signalled signal=%u sender=%u in_force=%u", signal.ssi_signo, signal.ssi_pid,
                 fence_in_force());
}

/* The sooner of two waits, of which -1 is none. */
static int sooner(int one_ms, int other_ms)
{
    if (one_ms < 0 || other_ms < 0)
        return one_ms < 0 ? other_ms : one_ms;
    return one_ms < other_ms ? one_ms : other_ms;
}

/* How long nothing needs to be done unless something comes. */
static int patience_ms(void)
{
    int64_t now_ns = boottime_ns();
    int wait_ms = sooner(fence_patience_ms(), watchdog_patience_ms(now_ns, fence_in_force()));
    int64_t paused_ns = guard.accept_not_before_ns - now_ns;

    return paused_ns > 0 ? sooner(wait_ms, (int)(paused_ns / NS_PER_MS) + 1) : wait_ms;
}

/* Greets whoever connects with what could be had. */
static void hello_write(void)
{
    char dog[WATCHDOG_TEXT_BYTES];

    watchdog_describe(dog);
    snprintf(guard.hello, sizeof guard.hello, "HELLO 1 pid=%d %s %s", (int)getpid(), guard.hardness, dog);
}

static void work(void)
{
    fence_work(boottime_ns());
    watchdog_work(boottime_ns(), fence_in_force());
    if (watchdog_describes_anew())
        hello_write();
}

static void serve(void)
{
    enum { TIMER, SIGNAL, NEWS, LISTEN, FIRST_CLIENT };
    struct pollfd polled[FIRST_CLIENT + MOST_CLIENTS];
    uint64_t expirations;

    polled[TIMER] = (struct pollfd){ .fd = guard.timer_fd, .events = POLLIN };
    polled[SIGNAL] = (struct pollfd){ .fd = guard.signal_fd, .events = POLLIN };
    polled[NEWS] = (struct pollfd){ .fd = dropper_news_fd(), .events = POLLIN };
    polled[LISTEN] = (struct pollfd){ .fd = -1, .events = POLLIN };
    while (!guard.over && !request_quit()) {
        clients_poll(polled + FIRST_CLIENT);
        polled[LISTEN].fd = boottime_ns() >= guard.accept_not_before_ns ? guard.listen_fd : -1;
        int ready = poll(polled, FIRST_CLIENT + MOST_CLIENTS, patience_ms());
        work();
        if (ready <= 0)
            continue;
        if (polled[TIMER].revents != 0)
            (void)!read(guard.timer_fd, &expirations, sizeof expirations);
        if (polled[NEWS].revents != 0) {
            dropper_news_drain();
            fence_address_news();
        }
        if (polled[SIGNAL].revents != 0)
            signal_receive();
        clients_serve(polled + FIRST_CLIENT);
        timer_follow_deadline();
        if (polled[LISTEN].revents != 0)
            guard.accept_not_before_ns = clients_accept(guard.listen_fd);
    }
}

static bool seconds_parse(const char *text, unsigned *seconds)
{
    uint64_t number;

    if (!number_parse(text, MOST_WATCHDOG_S, &number) || number < 1)
        return false;
    *seconds = (unsigned)number;
    return true;
}

static bool options_read(int count, char *words[], struct options *options)
{
    static const struct option known[] = {
        { "socket", required_argument, NULL, 's' },           { "ready-fd", required_argument, NULL, 'r' },
        { "priority", required_argument, NULL, 'p' },         { "cgroup", required_argument, NULL, 'c' },
        { "no-cgroup-kill", no_argument, NULL, 'k' },         { "watchdog", required_argument, NULL, 'w' },
        { "watchdog-timeout", required_argument, NULL, 't' }, { "watchdog-longest", required_argument, NULL, 'l' },
        { NULL, 0, NULL, 0 },
    };
    uint64_t number;
    int option;

    *options = (struct options){ .ready_fd = -1, .priority = 50 };
    while ((option = getopt_long(count, words, "", known, NULL)) != -1) {
        if (option == 's')
            options->socket = optarg;
        else if (option == 'c')
            options->cgroup = optarg;
        else if (option == 'k')
            options->no_cgroup_kill = true;
        else if (option == 'w')
            options->watchdog.path = optarg;
        else if (option == 'r' && descriptor_parse(optarg, &options->ready_fd))
            continue;
        else if (option == 't' && seconds_parse(optarg, &options->watchdog.timeout_s))
            continue;
        else if (option == 'l' && seconds_parse(optarg, &options->watchdog.longest_s))
            continue;
        else if (option == 'p' && number_parse(optarg, 99, &number))
            options->priority = (int)number;
        else
            return false;
    }
    bool dogs = options->watchdog.timeout_s > 0 && options->watchdog.longest_s > 0;
    return options->socket != NULL && optind == count && (options->watchdog.path == NULL || dogs);
}

static int fail(struct options *options, int status, const char *sentence)
{
    if (errno != 0)
        ready_say(&options->ready_fd, STDERR_FILENO, "ERR %s: %s", sentence, strerror(errno));
    else
        ready_say(&options->ready_fd, STDERR_FILENO, "ERR %s", sentence);
    return status;
}

int main(int count, char *words[])
{
    struct options options;
    int status;

    if (!options_read(count, words, &options)) {
        fprintf(stderr, "usage: outlive-guard --socket PATH [--ready-fd N] [--priority 0-99] [--cgroup DIR] "
                        "[--no-cgroup-kill]\n       [--watchdog DEVICE --watchdog-timeout S --watchdog-longest S]\n");
        return EXIT_USAGE;
    }
    descriptors_close(options.ready_fd);
    (void)setsid(); /* fails only where it is one already */
    if (options.cgroup != NULL && !cgroup_enter(options.cgroup))
        return fail(&options, EXIT_FAILED, "the guard's cgroup cannot be entered");
    clients_start(guard.hello);
    guard.timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    if (guard.timer_fd < 0)
        return fail(&options, EXIT_FAILED, "no timer can be made");
    /* Before the socket and its lock, which a child would have too for a moment, also when this guard is dead. */
    if (!journal_start() || (guard.signal_fd = signals_hold()) < 0)
        return fail(&options, EXIT_FAILED, "the guard cannot set itself up");
    const char *refusal = listen_alone(options.socket, MOST_CLIENTS, &guard.listen_fd, &status);
    if (refusal != NULL)
        return fail(&options, status, refusal);
    snprintf(guard.note_path, sizeof guard.note_path, "%s.armed", options.socket);
    options.watchdog.note = guard.note_path;
    refusal = watchdog_open(&options.watchdog);
    if (refusal != NULL)
        return fail(&options, EXIT_FAILED, refusal);
    harden(options.priority, guard.hardness, sizeof guard.hardness);
    hello_write();
    if (!dropper_start()) {
        watchdog_close();
        return fail(&options, EXIT_FAILED, "no thread can be started to take addresses away");
    }
    fence_start((struct fence_listener){ .tell = clients_tell, .note = journal_note }, options.no_cgroup_kill);
    stack_touch();
    journal_note("guard.started %s", guard.hello + strlen("HELLO 1 "));
    ready_say(&options.ready_fd, STDERR_FILENO, "OK %d", (int)getpid());
    (void)streams_close(false); /* its starter's; errors go to the log */
    (void)!chdir("/");          /* nor does it hold on to its starter's folder */
    serve();
    watchdog_close();
    (void)unlink(options.socket);
    journal_note("guard.ended");
    return 0;
}

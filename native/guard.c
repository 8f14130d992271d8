/* outlive-guard: makes sure that this host stops acting when its claim ends, whatever becomes of the agent.
 *
 *     outlive-guard --socket PATH [--ready-fd N] [--priority 50] [--cgroup DIR] [--no-cgroup-kill]
 *
 * There is one guard on a host. It holds one deadline, on the boot clock, and a table of workloads (fence.h).
 * Once the deadline has passed it kills every workload's cgroup (its child `_runner`, which holds the run lock,
 * once all else is down) and takes its addresses away. It lives in
 * a session of its own, locked in memory, with real-time priority where that is allowed; it allocates nothing
 * once it has started, and never looks at the wall clock. It logs to standard error (journal.h).
 *
 * Clients of the same user connect to PATH, a SOCK_SEQPACKET socket. One packet is one message, of printable
 * ASCII, words parted by single spaces. Each request has one answer; one request at a time from each client.
 *
 *     (on connecting)                      HELLO 1 pid=N memory=… priority=… oom=…   what could be had, else why not
 *     DEADLINE boottime_ns                 OK deadline_ns   the one now in force: an older one changes nothing
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
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "fence.h"
#include "journal.h"

enum {
    MOST_CLIENTS = 16,
    MESSAGE_BYTES = 4096,
    MOST_WORDS = 4 + MOST_ADDRESSES,
    STACK_TOUCHED_BYTES = 128 * 1024,
    OOM_NEVER = -1000,
};

/* How long to leave a connection waiting that cannot be accepted for want of descriptors. */
#define ACCEPT_PAUSE_NS (200 * NS_PER_MS)

struct options {
    const char *socket;
    const char *cgroup;
    int ready_fd;
    int priority;
    bool no_cgroup_kill;
};

struct client {
    int fd; /* -1: free */
    int64_t heard_ns;
    int status_next; /* the next entry of a STATUS under way; -1: none is */
};

static struct {
    struct client client[MOST_CLIENTS];
    char hello[256];
    char socket_path[sizeof((struct sockaddr_un *)0)->sun_path];
    int listen_fd;
    int timer_fd;
    int signal_fd;
    int64_t timer_ns;
    int64_t accept_not_before_ns;
    bool over;
} guard;

static void client_close(struct client *client)
{
    close(client->fd);
    client->fd = -1;
    client->status_next = -1;
}

/* False when it has to wait for the client to read. A client that has gone is noticed when it is read from. */
static bool client_send(const struct client *client, const char *text)
{
    return send(client->fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 || errno != EAGAIN;
}

static void tell_all(const char *text)
{
    for (int i = 0; i < MOST_CLIENTS; i++)
        if (guard.client[i].fd >= 0)
            (void)client_send(&guard.client[i], text); /* who does not read will find it in STATUS */
}

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

static void send_status(struct client *client)
{
    static char text[ENTRY_TEXT_BYTES];

    while (client->status_next >= 0) {
        int next = fence_describe(client->status_next, text);
        if (!client_send(client, next < 0 ? "END" : text))
            return;
        client->status_next = next;
    }
}

static const char *handle_deadline(char *const words[], int count, int64_t now_ns, char *answer, size_t size)
{
    uint64_t deadline_ns;

    if (count != 2 || !number_parse(words[1], INT64_MAX, &deadline_ns))
        return "malformed DEADLINE takes nanoseconds on the boot clock";
    const char *refusal = fence_extend((int64_t)deadline_ns, now_ns);
    timer_follow_deadline();
    snprintf(answer, size, "OK %" PRId64, fence_deadline_ns());
    return refusal;
}

static const char *handle_workload(char *const words[], int count, int64_t now_ns)
{
    uint64_t generation;

    if (count < 3 || !name_valid(words[1]) || !number_parse(words[2], INT64_MAX, &generation))
        return "malformed a workload's name and its generation are missing or not valid";
    if (strcmp(words[0], "PROTECT") == 0) {
        if (count < 4)
            return "malformed PROTECT needs a cgroup";
        return fence_protect(words[1], generation, words[3], words + 4, (size_t)(count - 4), now_ns);
    }
    if (count != 3)
        return "malformed too many words";
    if (strcmp(words[0], "RELEASE") == 0)
        return fence_release(words[1], generation);
    return fence_one(words[1], generation, now_ns);
}

static const char *handle_quit(int count)
{
    if (count != 1)
        return "malformed too many words";
    if (fence_in_force() > 0)
        return "protecting workloads are protected, or not yet certainly down";
    guard.over = true;
    return NULL;
}

/* Parts `message` into words, in place; -1 when it is not what a message may be. */
static int split(char *message, size_t length, char *words[MOST_WORDS])
{
    int count = 0;
    bool in_word = false;

    for (size_t i = 0; i < length; i++) {
        if (message[i] < ' ' || message[i] > '~' || (message[i] == ' ' && !in_word))
            return -1;
        if (message[i] == ' ') {
            message[i] = '\0';
            in_word = false;
        } else if (!in_word) {
            if (count == MOST_WORDS)
                return -1;
            words[count++] = message + i;
            in_word = true;
        }
    }
    return in_word ? count : -1;
}

static void handle(struct client *client, char *message, size_t length, int64_t now_ns)
{
    char *words[MOST_WORDS];
    char answer[320] = "OK";
    const char *refusal = "malformed no such request";
    int count = split(message, length, words);

    if (count < 1)
        refusal = "malformed a message is printable ASCII, words parted by single spaces";
    else if (strcmp(words[0], "DEADLINE") == 0)
        refusal = handle_deadline(words, count, now_ns, answer, sizeof answer);
    else if (strcmp(words[0], "PROTECT") == 0 || strcmp(words[0], "RELEASE") == 0 || strcmp(words[0], "FENCE") == 0)
        refusal = handle_workload(words, count, now_ns);
    else if (strcmp(words[0], "QUIT") == 0)
        refusal = handle_quit(count);
    else if (strcmp(words[0], "STATUS") == 0 && count == 1) {
        refusal = NULL;
        client->status_next = 0;
        snprintf(answer, sizeof answer, "STATE %" PRId64 " %" PRId64 " %u", now_ns, fence_deadline_ns(),
                 fence_entries());
    }
    if (refusal != NULL)
        snprintf(answer, sizeof answer, "ERR %s", refusal);
    if (!client_send(client, answer))
        client_close(client); /* it asks without reading answers */
    else
        send_status(client);
}

static void client_receive(struct client *client)
{
    static char message[MESSAGE_BYTES];
    ssize_t got = recv(client->fd, message, sizeof message - 1, MSG_DONTWAIT | MSG_TRUNC);
    int64_t now_ns = boottime_ns();

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        client_close(client);
        return;
    }
    client->heard_ns = now_ns;
    fence_work(now_ns);
    if ((size_t)got > sizeof message - 1) {
        if (!client_send(client, "ERR malformed the message is longer than 4095 bytes"))
            client_close(client);
        return;
    }
    message[got] = '\0';
    handle(client, message, (size_t)got, now_ns);
}

/* A place for one more: a free one, or that of whoever was silent longest, since a new agent must get in. */
static struct client *client_place(void)
{
    struct client *oldest = &guard.client[0];

    for (int i = 0; i < MOST_CLIENTS; i++) {
        if (guard.client[i].fd < 0)
            return &guard.client[i];
        if (guard.client[i].heard_ns < oldest->heard_ns)
            oldest = &guard.client[i];
    }
    client_close(oldest);
    return oldest;
}

static void client_accept(void)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    int fd = accept4(guard.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            guard.accept_not_before_ns = boottime_ns() + ACCEPT_PAUSE_NS;
        return;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.uid != geteuid()) {
        close(fd);
        return;
    }
    struct client *client = client_place();
    *client = (struct client){ .fd = fd, .heard_ns = boottime_ns(), .status_next = -1 };
    (void)client_send(client, guard.hello);
}

static void signal_receive(void)
{
    struct signalfd_siginfo signal;

    if (read(guard.signal_fd, &signal, sizeof signal) != sizeof signal)
        return;
    if (signal.ssi_signo != SIGTERM && signal.ssi_signo != SIGINT && signal.ssi_signo != SIGHUP)
        return;
    if (fence_in_force() == 0)
        guard.over = true;
    journal_note("guard.signalled signal=%u sender=%u in_force=%u", signal.ssi_signo, signal.ssi_pid,
                 fence_in_force());
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
    while (!guard.over) {
        for (int i = 0; i < MOST_CLIENTS; i++)
            polled[FIRST_CLIENT + i] = (struct pollfd){
                .fd = guard.client[i].fd,
                .events = guard.client[i].status_next >= 0 ? POLLOUT : POLLIN,
            };
        int patience_ms = fence_patience_ms();
        bool accepting = boottime_ns() >= guard.accept_not_before_ns;
        polled[LISTEN].fd = accepting ? guard.listen_fd : -1;
        if (!accepting && (patience_ms < 0 || patience_ms > ACCEPT_PAUSE_NS / NS_PER_MS))
            patience_ms = ACCEPT_PAUSE_NS / NS_PER_MS;
        int ready = poll(polled, FIRST_CLIENT + MOST_CLIENTS, patience_ms);
        fence_work(boottime_ns());
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
        for (int i = 0; i < MOST_CLIENTS; i++) {
            struct client *client = &guard.client[i];
            if (client->fd < 0 || polled[FIRST_CLIENT + i].revents == 0)
                continue;
            if (client->status_next >= 0 && (polled[FIRST_CLIENT + i].revents & (POLLERR | POLLHUP)) == 0)
                send_status(client);
            else
                client_receive(client);
        }
        if (polled[LISTEN].revents != 0)
            client_accept();
    }
}

/* Everything that could end us or make us late, as far as the kernel lets us; what it does not, HELLO says. */
static void harden(const struct options *options)
{
    char memory[32] = "locked";
    char priority[48] = "normal";
    char oom[32] = "-1000";
    struct sched_param param = { .sched_priority = options->priority };
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files); /* the table is then smaller, which PROTECT tells */
    }
    if (!oom_score_write(OOM_NEVER))
        snprintf(oom, sizeof oom, "%s", strerrorname_np(errno));
    if (options->priority > 0 && sched_setscheduler(0, SCHED_FIFO, &param) != 0) {
        snprintf(priority, sizeof priority, "%s", strerrorname_np(errno));
        (void)setpriority(PRIO_PROCESS, 0, -20); /* second best; HELLO says that it is not the best */
    } else if (options->priority > 0) {
        snprintf(priority, sizeof priority, "fifo:%d", options->priority);
    }
    (void)prctl(PR_SET_TIMERSLACK, 1);
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
        snprintf(memory, sizeof memory, "%s", strerrorname_np(errno));
    snprintf(guard.hello, sizeof guard.hello, "HELLO 1 pid=%d memory=%s priority=%s oom=%s", (int)getpid(), memory,
             priority, oom);
}

/* So that no page of the stack has to be found at the moment of firing. */
static void __attribute__((noinline)) stack_touch(void)
{
    volatile char pages[STACK_TOUCHED_BYTES];

    for (size_t at = 0; at < sizeof pages; at += 1024)
        pages[at] = 0;
}

/* Null when the socket is ours; else why not. *status is then the exit code. */
static const char *listen_alone(const char *path, int *status)
{
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    char lock_path[sizeof name.sun_path + 8];

    errno = 0;
    *status = EXIT_FAILED;
    if (strlen(path) >= sizeof name.sun_path)
        return "the socket's path is longer than 107 bytes";
    if (path[0] != '/')
        return "the socket's path is not absolute";
    strcpy(name.sun_path, path);
    strcpy(guard.socket_path, path);
    snprintf(lock_path, sizeof lock_path, "%s.lock", path);
    umask(0177);
    int lock = open(lock_path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (lock < 0)
        return "the lock file beside the socket cannot be opened";
    if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK)
            return "the lock file beside the socket cannot be locked";
        errno = 0;
        *status = EXIT_REFUSED;
        return "another guard holds the lock file beside the socket";
    }
    /* Should someone have removed the lock file of a guard that lives, its socket still answers. */
    int probe = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0)
        return "no socket can be made";
    bool answers = connect(probe, (struct sockaddr *)&name, sizeof name) == 0 || errno == EAGAIN;
    close(probe);
    errno = 0;
    if (answers) {
        *status = EXIT_REFUSED;
        return "another guard listens on the socket";
    }
    if (unlink(path) != 0 && errno != ENOENT)
        return "the old socket cannot be removed";
    guard.listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (guard.listen_fd < 0 || bind(guard.listen_fd, (struct sockaddr *)&name, sizeof name) != 0
        || listen(guard.listen_fd, MOST_CLIENTS) != 0)
        return "the socket cannot be bound";
    return NULL;
}

/* Every signal that can be held back is read from a descriptor, and most of them are then ignored. */
static bool signals_hold(void)
{
    sigset_t held;

    sigfillset(&held);
    sigdelset(&held, SIGSEGV);
    sigdelset(&held, SIGBUS);
    sigdelset(&held, SIGFPE);
    sigdelset(&held, SIGILL);
    sigdelset(&held, SIGABRT);
    if (signal(SIGCHLD, SIG_IGN) == SIG_ERR || sigprocmask(SIG_SETMASK, &held, NULL) != 0)
        return false;
    guard.signal_fd = signalfd(-1, &held, SFD_CLOEXEC | SFD_NONBLOCK);
    return guard.signal_fd >= 0;
}

static bool options_read(int count, char *words[], struct options *options)
{
    static const struct option known[] = {
        { "socket", required_argument, NULL, 's' },   { "ready-fd", required_argument, NULL, 'r' },
        { "priority", required_argument, NULL, 'p' }, { "cgroup", required_argument, NULL, 'c' },
        { "no-cgroup-kill", no_argument, NULL, 'k' }, { NULL, 0, NULL, 0 },
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
        else if (option == 'r' && descriptor_parse(optarg, &options->ready_fd))
            continue;
        else if (option == 'p' && number_parse(optarg, 99, &number))
            options->priority = (int)number;
        else
            return false;
    }
    return options->socket != NULL && optind == count;
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
                        "[--no-cgroup-kill]\n");
        return EXIT_USAGE;
    }
    descriptors_close(options.ready_fd);
    (void)setsid(); /* fails only where it is one already */
    if (options.cgroup != NULL && !cgroup_enter(options.cgroup))
        return fail(&options, EXIT_FAILED, "the guard's cgroup cannot be entered");
    for (int i = 0; i < MOST_CLIENTS; i++)
        guard.client[i] = (struct client){ .fd = -1, .status_next = -1 };
    guard.timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    if (guard.timer_fd < 0)
        return fail(&options, EXIT_FAILED, "no timer can be made");
    const char *refusal = listen_alone(options.socket, &status);
    if (refusal != NULL)
        return fail(&options, status, refusal);
    if (!journal_start() || !signals_hold())
        return fail(&options, EXIT_FAILED, "the guard cannot set itself up");
    harden(&options);
    if (!dropper_start())
        return fail(&options, EXIT_FAILED, "no thread can be started to take addresses away");
    fence_start((struct fence_listener){ .tell = tell_all, .note = journal_note }, options.no_cgroup_kill);
    stack_touch();
    journal_note("guard.started %s", guard.hello + strlen("HELLO 1 "));
    ready_say(&options.ready_fd, STDERR_FILENO, "OK %d", (int)getpid());
    (void)streams_close(false); /* its starter's; errors go to the log */
    (void)!chdir("/");          /* nor does it hold on to its starter's folder */
    serve();
    (void)unlink(guard.socket_path);
    journal_note("guard.ended");
    return 0;
}

/* Clients that ask a guest's server one thing after another over connections that stay open, and record each answer:
 *
 *   outlive-guest-clients ADDRESS PORT CONNECTIONS SECONDS FIRST_ID THINK_MS AFTER_S RECONNECT REQUEST
 *
 * Each connection has an id of its own, from FIRST_ID on, and at most one request under way: REQUEST (inc, dw, echo)
 * with the id and a growing number; the next is sent THINK_MS after an answer. After SECONDS, or on SIGTERM, nothing
 * more is asked; what is under way may take AFTER_S more. With RECONNECT 1 a connection that broke is made anew and
 * goes on with the next number; with 0 it stays broken, which is what a client of a hot machine must never see.
 *
 * Standard output is the record, a line each, times in nanoseconds of the boot clock:
 *   c CONNECTION ID AT                    connected (once more after a break)
 *   s CONNECTION COUNT LAST AT            how many of this id's requests the server has done; the first and last thing
 *                                         that is asked on a connection
 *   r CONNECTION NUMBER SENT RECEIVED VALUE
 *   b CONNECTION AT ERRNO                 broken; 0: the other side ended it
 *   u CONNECTION NUMBER SENT              never answered
 *   e AT                                  the end: the record is whole */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 1000, LINE_BYTES = 256, FLUSH_MS = 50, CONNECT_MS = 250, RETRY_MS = 50 };
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)
#define NEVER UINT64_MAX

/* What a connection waits for. ASKING: the server's count before or after; THINKING: the time to ask again. */
enum phase { CONNECTING, ASKING_BEFORE, WAITING, THINKING, ASKING_AFTER, DONE, BROKEN };

struct client {
    int fd;
    enum phase phase;
    bool was_connected;
    uint64_t id, number, sent_ns;
    uint64_t due_ns; /* CONNECTING: give this try up; THINKING: ask; BROKEN: connect anew */
    size_t have;
    char line[LINE_BYTES];
};

static struct client clients[MOST_CONNECTIONS];
static struct sockaddr_in server = {.sin_family = AF_INET};
static unsigned count;
static uint64_t think_ns;
static bool reconnects, ending;
static const char *request;
static volatile sig_atomic_t told_to_end;

static void on_end(int number) {
    (void)number;
    told_to_end = 1;
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static unsigned number_of(const struct client *c) { return (unsigned)(c - clients); }

static void broken(struct client *c, int error) {
    uint64_t now = now_ns();
    close(c->fd);
    c->fd = -1;
    /* A first connection that was not made yet is no broken one. */
    if (c->phase != CONNECTING) printf("b %u %" PRIu64 " %d\n", number_of(c), now, error);
    if (c->phase == WAITING) printf("u %u %" PRIu64 " %" PRIu64 "\n", number_of(c), c->number, c->sent_ns);
    bool again = !ending && (reconnects || !c->was_connected);
    c->phase = BROKEN;
    c->due_ns = again ? now + RETRY_MS * NS_PER_MS : NEVER;
}

static void begin(struct client *c) {
    int one = 1;
    c->have = 0;
    c->phase = CONNECTING;
    c->due_ns = now_ns() + CONNECT_MS * NS_PER_MS;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        perror("socket");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS) broken(c, errno);
}

static void say(struct client *c, enum phase next, const char *line, int size) {
    c->phase = next;
    c->sent_ns = now_ns();
    /* One short line fits into an empty socket's buffer; if it did not, the connection is of no more use. */
    if (send(c->fd, line, (size_t)size, MSG_NOSIGNAL) != size) broken(c, errno);
}

static void ask_count(struct client *c, enum phase next) {
    char line[LINE_BYTES];
    say(c, next, line, snprintf(line, sizeof line, "seen %" PRIu64 "\n", c->id));
}

static void ask(struct client *c) {
    char line[LINE_BYTES];
    if (ending) {
        ask_count(c, ASKING_AFTER);
        return;
    }
    c->number++;
    say(c, WAITING, line, snprintf(line, sizeof line, "%s %" PRIu64 " %" PRIu64 "\n", request, c->id, c->number));
}

static void answered(struct client *c, uint64_t now) {
    uint64_t value = 0, number = 0;
    bool understood = sscanf(c->line, "%" SCNu64 " %" SCNu64, &value, &number) == 2;
    switch (c->phase) {
    case ASKING_BEFORE:
    case ASKING_AFTER:
        if (understood)
            printf("s %u %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", number_of(c), value, number, now);
        if (c->phase == ASKING_AFTER) c->phase = DONE;
        else ask(c);
        break;
    case WAITING:
        /* An answer to anything but what was asked last is a failure of the server's, and no answer. */
        if (!understood || number != c->number) {
            broken(c, EPROTO);
            break;
        }
        printf("r %u %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", number_of(c), c->number, c->sent_ns, now,
               value);
        if (think_ns > 0 && !ending) {
            c->phase = THINKING;
            c->due_ns = now + think_ns;
        } else ask(c);
        break;
    default:
        broken(c, EPROTO);
    }
}

static void readable(struct client *c) {
    ssize_t got = read(c->fd, c->line + c->have, sizeof c->line - 1 - c->have);
    uint64_t now = now_ns();
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) broken(c, got == 0 ? 0 : errno);
        return;
    }
    c->have += (size_t)got;
    char *end = memchr(c->line, '\n', c->have);
    if (end == NULL) {
        if (c->have == sizeof c->line - 1) broken(c, EPROTO);
        return;
    }
    *end = '\0';
    /* One request is under way at most, so whatever follows its answer was not asked for. */
    bool more = end + 1 != c->line + c->have;
    c->have = 0;
    if (more) broken(c, EPROTO);
    else answered(c, now);
}

static void connected(struct client *c) {
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error != 0) {
        broken(c, error);
        return;
    }
    printf("c %u %" PRIu64 " %" PRIu64 "\n", number_of(c), c->id, now_ns());
    if (c->was_connected) ask(c);
    else ask_count(c, ASKING_BEFORE);
    c->was_connected = true;
}

static void act_on_time(struct client *c, uint64_t now) {
    if (c->due_ns > now) return;
    if (c->phase == THINKING) ask(c);
    else if (c->phase == CONNECTING) broken(c, ETIMEDOUT);
    else if (c->phase == BROKEN && !ending) begin(c);
}

static bool all_done(void) {
    for (unsigned i = 0; i < count; i++)
        if (clients[i].phase != DONE && clients[i].phase != BROKEN) return false;
    return true;
}

/* When something is due even if nothing comes. */
static uint64_t next_due(uint64_t first) {
    for (unsigned i = 0; i < count; i++) {
        enum phase phase = clients[i].phase;
        if ((phase == THINKING || phase == CONNECTING || phase == BROKEN) && clients[i].due_ns < first)
            first = clients[i].due_ns;
    }
    return first;
}

static void turn(uint64_t until_ns) {
    static struct pollfd waited[MOST_CONNECTIONS];
    for (unsigned i = 0; i < count; i++) {
        short events = clients[i].phase == CONNECTING ? POLLOUT : POLLIN;
        waited[i] = (struct pollfd){.fd = clients[i].phase == DONE ? -1 : clients[i].fd, .events = events};
    }
    uint64_t now = now_ns(), due = next_due(until_ns), wait = due > now ? due - now : 0;
    struct timespec span = {.tv_sec = (time_t)(wait / NS_PER_S), .tv_nsec = (long)(wait % NS_PER_S)};
    if (ppoll(waited, count, &span, NULL) < 0) return;
    for (unsigned i = 0; i < count; i++) {
        if (waited[i].revents == 0) continue;
        if (clients[i].phase == CONNECTING) connected(&clients[i]);
        else readable(&clients[i]);
    }
    now = now_ns();
    for (unsigned i = 0; i < count; i++) act_on_time(&clients[i], now);
}

static void run(uint64_t end_ns, uint64_t after_ns) {
    uint64_t flushed_ns = now_ns();
    for (unsigned i = 0; i < count; i++) begin(&clients[i]);
    while (!ending || !all_done()) {
        uint64_t now = now_ns();
        if (!ending && (now >= end_ns || told_to_end)) {
            ending = true;
            end_ns = now + after_ns;
            for (unsigned i = 0; i < count; i++)
                if (clients[i].phase == THINKING) ask(&clients[i]);
            continue;
        }
        if (ending && now >= end_ns) break;
        /* The record can be followed while it grows. */
        if (now - flushed_ns >= FLUSH_MS * NS_PER_MS) {
            fflush(stdout);
            flushed_ns = now;
        }
        uint64_t flush_ns = flushed_ns + FLUSH_MS * NS_PER_MS;
        turn(end_ns < flush_ns ? end_ns : flush_ns);
    }
    for (unsigned i = 0; i < count; i++)
        if (clients[i].phase == WAITING)
            printf("u %u %" PRIu64 " %" PRIu64 "\n", i, clients[i].number, clients[i].sent_ns);
    printf("e %" PRIu64 "\n", now_ns());
}

static double number_or_end(const char *text, double most) {
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || errno != 0 || !(value >= 0 && value <= most)) {
        fprintf(stderr, "outlive-guest-clients: %s is no number up to %.0f\n", text, most);
        exit(2);
    }
    return value;
}

int main(int words, char **word) {
    if (words != 10 || inet_pton(AF_INET, word[1], &server.sin_addr) != 1) {
        fputs("usage: outlive-guest-clients ADDRESS PORT CONNECTIONS SECONDS FIRST_ID THINK_MS AFTER_S RECONNECT "
              "REQUEST\n", stderr);
        return 2;
    }
    server.sin_port = htons((uint16_t)number_or_end(word[2], UINT16_MAX));
    count = (unsigned)number_or_end(word[3], MOST_CONNECTIONS);
    double seconds = number_or_end(word[4], 1e6), after_s = number_or_end(word[7], 1e6);
    uint64_t first_id = (uint64_t)number_or_end(word[5], 1e6);
    think_ns = (uint64_t)(number_or_end(word[6], 1e6) * (double)NS_PER_MS);
    reconnects = number_or_end(word[8], 1) > 0;
    request = word[9];
    for (unsigned i = 0; i < count; i++) clients[i].id = first_id + i;

    struct sigaction action = {.sa_handler = on_end};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    run(now_ns() + (uint64_t)(seconds * (double)NS_PER_S), (uint64_t)(after_s * (double)NS_PER_S));
    return fflush(stdout) == 0 ? 0 : 1;
}

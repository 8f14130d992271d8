/* The server inside the tiny guest: it counts, dirties memory and writes to its first disk as it is asked to, so
 * that clients can tell afterwards whether anything was lost or done twice. TCP port 7000; a request is a line of
 * words, its answer a line. ID and SEQ are a client's number and its count of requests; the answer ends with SEQ.
 *
 *   inc ID SEQ          N SEQ       adds one to the counter, which lives in memory
 *   dw ID SEQ           N SEQ       writes the next number to the disk; answered once it is durable; 0: it failed
 *   echo ID SEQ         0 SEQ
 *   seen ID             COUNT LAST  how many inc and dw of this client were done, and the last SEQ among them
 *   get                 counter=N dirtied=N issued=N written=N disk=0|1 instance=HEX uptime_ms=N
 *   dirty RATE PAGES [BYTES]  ok    from now on dirties RATE pages a second out of PAGES, BYTES of each (64) anew
 *   bg RATE             ok          from now on writes RATE numbers a second to the disk, as dw does
 *   bulk in N           ok N        after it has read N bytes that follow the line
 *   bulk out N          ok N        and N bytes after that line
 *   panic | poweroff | reboot       no answer
 *
 * A number on the disk is a block of 4096 bytes that holds nothing but it, at (number modulo the slots); the
 * numbers go on where the disk's newest leaves off. The disk is not written to unless asked. The power button ends
 * the guest at once. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/input.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

enum {
    PORT = 7000,
    PAGE = 4096,
    CONNECTIONS = 256,
    CLIENTS = 1024,
    LINE_BYTES = 512,
    BULK_BYTES = 64 * 1024,
    SLOTS = 4096,
    MOST_DIRTY_PAGES = 65536,
    TICK_MS = 10,
    MOST_TICKS_BEHIND = 3,
    INPUTS = 8,
};

struct connection {
    int fd;
    size_t have;
    char line[LINE_BYTES];
    uint64_t bulk_in, bulk_in_all; /* bytes still to read, and how many it were to begin with */
    uint64_t bulk_out;
    char answer[LINE_BYTES]; /* what could not be written yet */
    size_t answer_bytes;
};

/* Kept in one place, so that whoever looks at the guest's memory from outside finds the ledger by its magic. */
struct ledger {
    char magic[32];
    _Atomic uint64_t counter, dirtied, issued, written;
};

static struct ledger ledger = {.magic = "OUTLIVE-GUEST-LEDGER"};
static struct {
    uint64_t count, last;
} seen[CLIENTS];
static _Atomic uint64_t dirty_rate, dirty_pages, dirty_bytes = 64, background_rate;
static struct connection connections[CONNECTIONS];
static nfds_t connected;
static char *memory, *block, bulk[BULK_BYTES];
static uint64_t memory_pages, slots, instance;
static int disk = -1;
static pthread_mutex_t disk_lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void sleep_ms(unsigned ms) {
    struct timespec span = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&span, NULL);
}

static void die(const char *what) {
    fprintf(stderr, "outlive-guest-server: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* --- the disk */

/* The number that a block holds, or 0 when it holds anything else: a torn block counts for nothing. */
static uint64_t number_in(const uint64_t *words) {
    for (size_t i = 1; i < PAGE / sizeof *words; i++)
        if (words[i] != words[0]) return 0;
    return words[0];
}

static uint64_t newest_number(void) {
    uint64_t newest = 0;
    for (uint64_t slot = 0; slot < slots; slot += BULK_BYTES / PAGE) {
        ssize_t got = pread(disk, memory, BULK_BYTES, (off_t)(slot * PAGE));
        for (ssize_t at = 0; at + PAGE <= got; at += PAGE) {
            uint64_t number = number_in((const uint64_t *)(memory + at));
            /* Anything else that lies on the disk must not be taken for a number. */
            if (number % slots == slot + (uint64_t)at / PAGE && number > newest) newest = number;
        }
    }
    return newest;
}

static void disk_open(void) {
    disk = open("/dev/vda", O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
    if (disk < 0) return;
    off_t size = lseek(disk, 0, SEEK_END);
    slots = size < 0 ? 0 : (uint64_t)size / PAGE;
    if (slots > SLOTS) slots = SLOTS;
    if (slots == 0) {
        close(disk);
        disk = -1;
        return;
    }
    ledger.issued = ledger.written = newest_number();
}

/* Writes the next number and returns it once it is durable; 0 when there is no disk or it fails. A number that
 * failed is not used again: nobody knows whether it is there. */
static uint64_t disk_write(void) {
    if (disk < 0) return 0;
    pthread_mutex_lock(&disk_lock);
    uint64_t number = ++ledger.issued;
    for (size_t i = 0; i < PAGE / sizeof number; i++) ((uint64_t *)block)[i] = number;
    bool durable = pwrite(disk, block, PAGE, (off_t)(number % slots * PAGE)) == PAGE;
    if (durable) ledger.written = number;
    pthread_mutex_unlock(&disk_lock);
    return durable ? number : 0;
}

/* --- what goes on in the background */

/* How much of `rate` a second is due since *last_ns. After a pause not everything is made up for. */
static uint64_t due(uint64_t rate, uint64_t *last_ns, double *rest) {
    uint64_t now = now_ns();
    double span_s = (double)(now - *last_ns) * 1e-9;
    if (span_s > MOST_TICKS_BEHIND * TICK_MS * 1e-3) span_s = MOST_TICKS_BEHIND * TICK_MS * 1e-3;
    *last_ns = now;
    *rest += (double)rate * span_s;
    uint64_t whole = (uint64_t)*rest;
    *rest -= (double)whole;
    return whole;
}

static void *dirty_always(void *unused) {
    uint64_t last_ns = now_ns(), at = 0, noise = instance | 1;
    double rest = 0;
    for (;;) {
        sleep_ms(TICK_MS);
        uint64_t pages = dirty_pages, bytes = dirty_bytes, count = due(dirty_rate, &last_ns, &rest);
        if (pages == 0) continue;
        for (uint64_t i = 0; i < count; i++, at++) {
            char *page = memory + at % pages * PAGE;
            for (uint64_t offset = 0; offset < bytes; offset += sizeof noise) {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                memcpy(page + offset, &noise, sizeof noise);
            }
        }
        ledger.dirtied += count;
    }
    return unused;
}

static void *write_always(void *unused) {
    uint64_t last_ns = now_ns();
    double rest = 0;
    for (;;) {
        sleep_ms(TICK_MS);
        for (uint64_t count = due(background_rate, &last_ns, &rest); count > 0; count--)
            if (disk_write() == 0) sleep_ms(100);
    }
    return unused;
}

static void end_guest(int how) {
    sync();
    reboot(how);
}

static void *await_power_button(void *unused) {
    struct pollfd inputs[INPUTS];
    nfds_t count = 0;
    for (int number = 0; number < INPUTS; number++) {
        char path[32];
        snprintf(path, sizeof path, "/dev/input/event%d", number);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) inputs[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    while (count > 0 && poll(inputs, count, -1) >= 0)
        for (nfds_t i = 0; i < count; i++) {
            struct input_event event;
            if (inputs[i].revents == 0) continue;
            if (read(inputs[i].fd, &event, sizeof event) != sizeof event) inputs[i].fd = -1;
            else if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1) end_guest(RB_POWER_OFF);
        }
    return unused;
}

static void start(void *(*run)(void *)) {
    pthread_t thread;
    errno = pthread_create(&thread, NULL, run, NULL);
    if (errno != 0) die("pthread_create");
}

/* --- requests */

static void panic(void) {
    int trigger = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
    if (trigger < 0 || write(trigger, "c", 1) != 1) fputs("outlive-guest-server: it cannot panic\n", stderr);
    if (trigger >= 0) close(trigger);
}

static uint64_t note(uint64_t id, uint64_t sequence, uint64_t value) {
    if (id < CLIENTS && value != 0) {
        seen[id].count++;
        seen[id].last = sequence;
    }
    return value;
}

static void answer_to(struct connection *c, char *answer, size_t size) {
    uint64_t a = 0, b = 0, d = 64;
    if (sscanf(c->line, "inc %" SCNu64 " %" SCNu64, &a, &b) == 2)
        snprintf(answer, size, "%" PRIu64 " %" PRIu64 "\n", note(a, b, ++ledger.counter), b);
    else if (sscanf(c->line, "dw %" SCNu64 " %" SCNu64, &a, &b) == 2)
        snprintf(answer, size, "%" PRIu64 " %" PRIu64 "\n", note(a, b, disk_write()), b);
    else if (sscanf(c->line, "echo %" SCNu64 " %" SCNu64, &a, &b) == 2)
        snprintf(answer, size, "0 %" PRIu64 "\n", b);
    else if (sscanf(c->line, "seen %" SCNu64, &a) == 1 && a < CLIENTS)
        snprintf(answer, size, "%" PRIu64 " %" PRIu64 "\n", seen[a].count, seen[a].last);
    else if (strcmp(c->line, "get") == 0)
        snprintf(answer, size,
                 "counter=%" PRIu64 " dirtied=%" PRIu64 " issued=%" PRIu64 " written=%" PRIu64
                 " disk=%d instance=%016" PRIx64 " uptime_ms=%" PRIu64 "\n",
                 ledger.counter, ledger.dirtied, ledger.issued, ledger.written, disk >= 0, instance,
                 now_ns() / 1000000);
    else if (sscanf(c->line, "dirty %" SCNu64 " %" SCNu64 " %" SCNu64, &a, &b, &d) >= 2) {
        dirty_pages = b < memory_pages ? b : memory_pages;
        dirty_bytes = d < PAGE ? d : PAGE;
        dirty_rate = a;
        snprintf(answer, size, "ok\n");
    } else if (sscanf(c->line, "bg %" SCNu64, &a) == 1) {
        background_rate = a;
        snprintf(answer, size, "ok\n");
    } else if (sscanf(c->line, "bulk in %" SCNu64, &a) == 1) {
        c->bulk_in = c->bulk_in_all = a;
        snprintf(answer, size, a == 0 ? "ok 0\n" : "");
    } else if (sscanf(c->line, "bulk out %" SCNu64, &a) == 1) {
        c->bulk_out = a;
        snprintf(answer, size, "ok %" PRIu64 "\n", a);
    } else if (strcmp(c->line, "panic") == 0) panic();
    else if (strcmp(c->line, "poweroff") == 0) end_guest(RB_POWER_OFF);
    else if (strcmp(c->line, "reboot") == 0) end_guest(RB_AUTOBOOT);
    else snprintf(answer, size, "unknown request\n");
}

/* --- connections */

/* Writes what is due as far as it goes; false when the connection has ended. */
static bool flush(struct connection *c) {
    while (c->answer_bytes > 0) {
        ssize_t wrote = write(c->fd, c->answer, c->answer_bytes);
        if (wrote < 0) return errno == EAGAIN;
        c->answer_bytes -= (size_t)wrote;
        memmove(c->answer, c->answer + wrote, c->answer_bytes);
    }
    while (c->bulk_out > 0) {
        ssize_t wrote = write(c->fd, bulk, c->bulk_out < BULK_BYTES ? c->bulk_out : BULK_BYTES);
        if (wrote < 0) return errno == EAGAIN;
        c->bulk_out -= (uint64_t)wrote;
    }
    return true;
}

static bool is_due(const struct connection *c) { return c->answer_bytes > 0 || c->bulk_out > 0; }

/* Takes `bytes` away from what is to be swallowed, and answers once all of it was. */
static void swallowed(struct connection *c, size_t bytes) {
    c->bulk_in -= bytes;
    if (c->bulk_in == 0) {
        int size = snprintf(c->answer, sizeof c->answer, "ok %" PRIu64 "\n", c->bulk_in_all);
        c->answer_bytes = (size_t)size;
    }
}

/* Answers every whole line there is, while what was answered before has left. */
static bool answer_lines(struct connection *c) {
    for (;;) {
        if (c->bulk_in > 0 && c->have > 0) {
            size_t bytes = c->have < c->bulk_in ? c->have : (size_t)c->bulk_in;
            c->have -= bytes;
            memmove(c->line, c->line + bytes, c->have);
            swallowed(c, bytes);
        }
        if (!flush(c)) return false;
        char *end = memchr(c->line, '\n', c->have);
        if (is_due(c) || c->bulk_in > 0) return true;
        if (end == NULL) return c->have < sizeof c->line;
        *end = '\0';
        c->answer[0] = '\0';
        answer_to(c, c->answer, sizeof c->answer);
        c->answer_bytes = strlen(c->answer);
        c->have -= (size_t)(end + 1 - c->line);
        memmove(c->line, end + 1, c->have);
    }
}

/* Reads what has come and answers it; false when the connection has ended. */
static bool serve(struct connection *c) {
    if (!answer_lines(c)) return false;
    if (is_due(c)) return true;
    if (c->bulk_in > 0) {
        static char sink[BULK_BYTES];
        ssize_t got = read(c->fd, sink, c->bulk_in < BULK_BYTES ? c->bulk_in : BULK_BYTES);
        if (got <= 0) return got < 0 && errno == EAGAIN;
        swallowed(c, (size_t)got);
        return flush(c);
    }
    ssize_t got = read(c->fd, c->line + c->have, sizeof c->line - c->have);
    if (got <= 0) return got < 0 && errno == EAGAIN;
    c->have += (size_t)got;
    return answer_lines(c);
}

static void take(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
    if (fd < 0) return;
    if (connected == CONNECTIONS) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct connection *c = &connections[connected++];
    memset(c, 0, sizeof *c);
    c->fd = fd;
}

static int listen_on(uint16_t port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
    if (listen(fd, CONNECTIONS) < 0) die("listen");
    return fd;
}

static void prepare(void) {
    struct sysinfo machine;
    if (sysinfo(&machine) < 0) die("sysinfo");
    memory_pages = machine.freeram * machine.mem_unit / 2 / PAGE;
    if (memory_pages > MOST_DIRTY_PAGES) memory_pages = MOST_DIRTY_PAGES;
    memory = mmap(NULL, memory_pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    block = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || block == MAP_FAILED) die("mmap");
    /* The kernel may have no good random numbers so early; to tell one start from another the clocks will do. */
    if (getrandom(&instance, sizeof instance, GRND_NONBLOCK) != sizeof instance) {
        struct timespec today;
        clock_gettime(CLOCK_REALTIME, &today);
        instance = now_ns() ^ (uint64_t)today.tv_sec << 32 ^ (uint64_t)today.tv_nsec;
    }
    signal(SIGPIPE, SIG_IGN);
    disk_open();
}

int main(int count, char **words) {
    /* Another port is for trying it without a guest. */
    uint16_t port = count > 1 ? (uint16_t)atoi(words[1]) : PORT;
    prepare();
    int listener = listen_on(port);
    start(dirty_always);
    start(write_always);
    if (port == PORT) start(await_power_button);
    printf("outlive guest ready\n");
    fflush(stdout);
    static struct pollfd waited[CONNECTIONS + 1];
    for (;;) {
        nfds_t there = connected;
        waited[there] = (struct pollfd){.fd = listener, .events = POLLIN};
        for (nfds_t i = 0; i < there; i++) {
            short events = is_due(&connections[i]) ? POLLOUT : POLLIN;
            waited[i] = (struct pollfd){.fd = connections[i].fd, .events = events};
        }
        if (poll(waited, there + 1, -1) < 0) die("poll");
        if (waited[there].revents != 0) take(listener);
        /* Backwards, since the last takes the place of one that has ended. */
        for (nfds_t i = there; i-- > 0;)
            if (waited[i].revents != 0 && !serve(&connections[i])) {
                close(connections[i].fd);
                connections[i] = connections[--connected];
            }
    }
}

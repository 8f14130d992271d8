#define _GNU_SOURCE
#include "framehold.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "frameparts.h"

uint64_t now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

void event_signal(int fd)
{
    const uint64_t one = 1;

    /* It can only fail with EAGAIN, when it is readable anyhow. */
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

void event_clear(int fd)
{
    uint64_t count;

    while (read(fd, &count, sizeof count) < 0 && errno == EINTR)
        ;
}

void end_failed(struct framehold *hold, size_t counter, int why)
{
    atomic_store_explicit(&hold->counted[counter], (uint64_t)why, memory_order_relaxed);
}

bool has_failed(struct framehold *hold, size_t counter)
{
    return atomic_load_explicit(&hold->counted[counter], memory_order_relaxed) != 0;
}

bool list_holds(const uint8_t *frames, uint64_t size)
{
    for (uint64_t at = 0; at < size;) {
        uint32_t length;
        if (size - at < LENGTH_BYTES)
            return false;
        memcpy(&length, frames + at, LENGTH_BYTES);
        if (length == 0 || length > FRAME_MOST || length > size - at - LENGTH_BYTES)
            return false;
        at += LENGTH_BYTES + length;
    }
    return true;
}

static void events_want(struct framehold *hold, int fd, uint32_t *wanted, uint32_t events, bool has_end_failed)
{
    struct epoll_event event = {.events = events, .data.fd = fd};

    if (has_end_failed) {
        if (*wanted != UINT32_MAX)
            (void)epoll_ctl(hold->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        *wanted = UINT32_MAX;
    } else if (*wanted != events && epoll_ctl(hold->epoll_fd, EPOLL_CTL_MOD, fd, &event) == 0) {
        *wanted = events;
    }
}

static void turn(struct framehold *hold)
{
    pthread_mutex_lock(&hold->taking);
    (void)guest_take(hold, AT_ONCE);
    pthread_mutex_unlock(&hold->taking);

    pthread_mutex_lock(&hold->sending);
    (void)tap_send(hold, AT_ONCE);
    bool is_tap_full = atomic_load(&hold->tap_full);
    uint64_t tail = atomic_load(&hold->out.tail), released = atomic_load(&hold->released);
    bool is_more = !is_tap_full && tail < released && tail < atomic_load(&hold->out.head);
    pthread_mutex_unlock(&hold->sending);

    pthread_mutex_lock(&hold->incoming);
    (void)tap_take(hold, AT_ONCE);
    guest_send(hold);
    bool is_guest_full = hold->guest_full;
    bool wants_tap = hold->collects || framering_has_room(&hold->in);
    pthread_mutex_unlock(&hold->incoming);

    /* Sending made room that reading lacked, or there is more to send: there will be no event for it. */
    if (is_more || (atomic_load(&hold->starved) && framering_has_room(&hold->out)))
        event_signal(hold->wake_fd);
    events_want(hold, hold->guest_fd, &hold->guest_events,
                (atomic_load(&hold->starved) ? 0 : EPOLLIN) | (is_guest_full ? EPOLLOUT : 0),
                has_failed(hold, COUNTER(guest_errno)));
    events_want(hold, hold->tap_fd, &hold->tap_events, (wants_tap ? EPOLLIN : 0) | (is_tap_full ? EPOLLOUT : 0),
                has_failed(hold, COUNTER(tap_errno)));
}

static void *frames_move(void *argument)
{
    struct framehold *hold = argument;
    struct epoll_event events[4];

    (void)prctl(PR_SET_NAME, "outlive-frames");
    while (!atomic_load(&hold->ends)) {
        int got = epoll_wait(hold->epoll_fd, events, sizeof events / sizeof *events, -1);
        for (int index = 0; index < got; index++)
            if (events[index].data.fd == hold->wake_fd)
                event_clear(hold->wake_fd);
        turn(hold);
    }
    return NULL;
}

static int non_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

static int watch(struct framehold *hold, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    return epoll_ctl(hold->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

/* Everything but the thread; -1 and errno, or 0. */
static int parts_open(struct framehold *hold)
{
    if ((hold->epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0 ||
        (hold->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0 ||
        (hold->waiting_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0 ||
        (hold->copied_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
        return -1;
    if (non_blocking(hold->tap_fd) < 0 || non_blocking(hold->guest_fd) < 0)
        return -1;
    if (watch(hold, hold->wake_fd) != 0 || watch(hold, hold->tap_fd) != 0 || watch(hold, hold->guest_fd) != 0)
        return -1;
    hold->tap_events = hold->guest_events = EPOLLIN;
    return 0;
}

static void parts_close(struct framehold *hold)
{
    const int fds[] = {hold->epoll_fd, hold->wake_fd, hold->waiting_fd, hold->copied_fd};

    for (size_t index = 0; index < sizeof fds / sizeof *fds; index++)
        if (fds[index] >= 0)
            (void)close(fds[index]);
    framering_close(&hold->out);
    framering_close(&hold->in);
    injected_free(hold);
    free(hold->copied);
    free(hold);
}

/* Signals are for the interpreter's own threads. */
static int thread_start(struct framehold *hold)
{
    sigset_t all, before;

    (void)sigfillset(&all);
    int failed = pthread_sigmask(SIG_SETMASK, &all, &before);
    if (failed == 0) {
        failed = pthread_create(&hold->thread, NULL, frames_move, hold);
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    return failed;
}

int64_t framehold_open(int tap_fd, int guest_fd, uint64_t held_bytes, uint64_t inbound_bytes, uint64_t copied_bytes,
                       int collect, struct framehold **opened)
{
    struct framehold *hold = calloc(1, sizeof *hold);
    int64_t result;

    if (hold == NULL)
        return -ENOMEM;
    hold->tap_fd = tap_fd;
    hold->guest_fd = guest_fd;
    hold->epoll_fd = hold->wake_fd = hold->waiting_fd = hold->copied_fd = -1;
    hold->injected_end = &hold->injected;
    hold->collects = collect != 0;
    hold->copied_room = copied_bytes;
    hold->copied = malloc(copied_bytes);
    atomic_store(&hold->released, ALL_RELEASED);
    (void)pthread_mutex_init(&hold->taking, NULL);
    (void)pthread_mutex_init(&hold->sending, NULL);
    (void)pthread_mutex_init(&hold->incoming, NULL);

    if (copied_bytes < RING_LEAST)
        result = -EINVAL;
    else if (hold->copied == NULL)
        result = -ENOMEM;
    else if ((result = framering_open(&hold->out, held_bytes)) == 0 &&
             (result = framering_open(&hold->in, inbound_bytes)) == 0)
        result = parts_open(hold) != 0 ? -errno : -thread_start(hold);
    if (result < 0) {
        parts_close(hold);
        return result;
    }
    *opened = hold;
    return 0;
}

void framehold_close(struct framehold *hold)
{
    atomic_store(&hold->ends, true);
    event_signal(hold->wake_fd);
    (void)pthread_join(hold->thread, NULL);
    (void)pthread_mutex_destroy(&hold->taking);
    (void)pthread_mutex_destroy(&hold->sending);
    (void)pthread_mutex_destroy(&hold->incoming);
    parts_close(hold);
}

int framehold_waiting_fd(const struct framehold *hold)
{
    return hold->waiting_fd;
}

int framehold_copied_fd(const struct framehold *hold)
{
    return hold->copied_fd;
}

void framehold_count(struct framehold *hold, struct framehold_counters *counters)
{
    uint64_t values[sizeof *counters / sizeof(uint64_t)];

    for (size_t index = 0; index < sizeof values / sizeof *values; index++)
        values[index] = atomic_load_explicit(&hold->counted[index], memory_order_relaxed);
    memcpy(counters, values, sizeof values);
    uint64_t tail = atomic_load(&hold->out.tail);
    counters->held_bytes = atomic_load(&hold->out.head) - tail;
}

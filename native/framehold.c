#define _GNU_SOURCE
#include "framehold.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "framering.h"

enum {
    AT_ONCE = 64,       /* frames moved before the other direction has its turn */
    AT_ONCE_CALLER = 16, /* frames that a caller sends itself; the thread does the rest */
    LENGTH_BYTES = 4,
};

#define ALL_RELEASED UINT64_MAX

struct injected {
    struct injected *next;
    uint64_t size, at;
    uint8_t frames[];
};

struct framehold {
    int tap_fd, guest_fd;
    int epoll_fd, wake_fd, waiting_fd, copied_fd;
    pthread_t thread;
    atomic_bool ends;

    /* Outgoing. The lock of the side that is touched is held: `taking` to read from the guest, `sending` to write to
     * the tap; both in this order where both are needed. */
    pthread_mutex_t taking, sending;
    struct framering out;
    _Atomic uint64_t released; /* the tap gets what is before it */
    atomic_bool starved;       /* the guest's frames wait for room */
    atomic_bool tap_full;      /* the tap has no room */
    bool told;                 /* waiting_fd is readable; under `taking` */

    /* Incoming, all under one lock. */
    pthread_mutex_t incoming;
    struct framering in;
    struct injected *injected, **injected_end;
    uint64_t injected_bytes;
    bool collects, guest_full;
    bool copies;
    uint8_t *copied;
    uint64_t copied_size, copied_room;

    /* Known to the thread alone. */
    uint32_t tap_events, guest_events;

    _Atomic uint64_t counted[sizeof(struct framehold_counters) / sizeof(uint64_t)];
};

#define COUNTER(name) (offsetof(struct framehold_counters, name) / sizeof(uint64_t))
#define COUNT(hold, name, more) \
    ((void)atomic_fetch_add_explicit(&(hold)->counted[COUNTER(name)], (uint64_t)(more), memory_order_relaxed))

static uint64_t now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void signal_event(int fd)
{
    const uint64_t one = 1;

    /* It can only fail with EAGAIN, when it is readable anyhow. */
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static void clear_event(int fd)
{
    uint64_t count;

    while (read(fd, &count, sizeof count) < 0 && errno == EINTR)
        ;
}

/* An end that failed for good is no longer read; the reason is told in the counters. */
static void end_failed(struct framehold *hold, size_t counter, int why)
{
    atomic_store_explicit(&hold->counted[counter], (uint64_t)why, memory_order_relaxed);
}

static bool has_failed(struct framehold *hold, size_t counter)
{
    return atomic_load_explicit(&hold->counted[counter], memory_order_relaxed) != 0;
}

/* --- guest → outside --- */

/* Reads from the guest; `taking` is held. Returns how many frames; less than `most`: no more wait, or no room. */
static int guest_take(struct framehold *hold, int most)
{
    int taken = 0;

    while (taken < most && !has_failed(hold, COUNTER(guest_errno))) {
        uint8_t *room = framering_room(&hold->out);
        if (room == NULL) {
            if (!atomic_exchange(&hold->starved, true))
                COUNT(hold, full_times, 1);
            /* The reader may have made room since: then nobody else would notice. */
            if ((room = framering_room(&hold->out)) == NULL)
                break;
        }
        atomic_store(&hold->starved, false);
        ssize_t got = recv(hold->guest_fd, room, FRAME_MOST, MSG_DONTWAIT | MSG_TRUNC);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            /* QEMU is not there yet, or went: it may come again. */
            if (errno != EAGAIN && errno != ECONNREFUSED && errno != ECONNRESET && errno != ENOTCONN)
                end_failed(hold, COUNTER(guest_errno), errno);
            break;
        }
        taken++;
        COUNT(hold, guest_frames, 1);
        COUNT(hold, guest_bytes, got);
        if (got == 0 || got > FRAME_MOST) {
            COUNT(hold, send_dropped, 1);
            continue;
        }
        COUNT(hold, held_frames, 1);
        framering_add(&hold->out, (uint32_t)got, now_ns());
        if (!hold->told && atomic_load(&hold->released) != ALL_RELEASED) {
            hold->told = true;
            signal_event(hold->waiting_fd);
        }
    }
    return taken;
}

/* False when the tap has no room now. Whatever else it says, the frame is done with: a network may lose frames. */
static bool tap_put(struct framehold *hold, const uint8_t *frame, uint32_t length)
{
    for (;;) {
        ssize_t put = write(hold->tap_fd, frame, length);
        if (put >= 0) {
            COUNT(hold, sent_frames, 1);
            COUNT(hold, sent_bytes, length);
            return true;
        }
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN)
            return false;
        COUNT(hold, send_dropped, 1);
        return true;
    }
}

/* Sends what is released; `sending` is held. False when some is left. */
static bool tap_send(struct framehold *hold, int most)
{
    for (;;) {
        uint64_t tail = atomic_load(&hold->out.tail), head = atomic_load(&hold->out.head);
        uint64_t released = atomic_load(&hold->released);
        if (tail >= (released < head ? released : head)) {
            atomic_store(&hold->tap_full, false);
            return true;
        }
        struct framering_frame frame = framering_at(&hold->out, tail);
        if (frame.length > 0) {
            if (most-- == 0)
                return false;
            bool has_room = tap_put(hold, frame.bytes, frame.length);
            atomic_store(&hold->tap_full, !has_room);
            if (!has_room)
                return false;
            COUNT(hold, held_frames, -1);
        }
        atomic_store(&hold->out.tail, frame.next);
    }
}

/* A caller sends the first frames itself, since waking the thread takes longer than that. */
static void send_soon(struct framehold *hold)
{
    pthread_mutex_lock(&hold->sending);
    bool done = tap_send(hold, AT_ONCE_CALLER);
    pthread_mutex_unlock(&hold->sending);
    if (!done || atomic_load(&hold->starved))
        signal_event(hold->wake_fd);
}

int64_t framehold_hold(struct framehold *hold)
{
    pthread_mutex_lock(&hold->taking);
    if (atomic_load(&hold->released) == ALL_RELEASED)
        atomic_store(&hold->released, atomic_load(&hold->out.head));
    pthread_mutex_unlock(&hold->taking);
    return 0;
}

int64_t framehold_free(struct framehold *hold)
{
    pthread_mutex_lock(&hold->taking);
    atomic_store(&hold->released, ALL_RELEASED);
    hold->told = false;
    clear_event(hold->waiting_fd);
    pthread_mutex_unlock(&hold->taking);
    send_soon(hold);
    return 0;
}

uint64_t framehold_cut(struct framehold *hold)
{
    pthread_mutex_lock(&hold->taking);
    /* The guest stands still, so this ends; were it not to, the ring is bounded. */
    while (guest_take(hold, AT_ONCE) == AT_ONCE)
        ;
    uint64_t mark = atomic_load(&hold->out.head);
    hold->told = false;
    clear_event(hold->waiting_fd);
    bool is_free = atomic_load(&hold->released) == ALL_RELEASED;
    pthread_mutex_unlock(&hold->taking);
    if (is_free)
        send_soon(hold);
    return mark;
}

int64_t framehold_release(struct framehold *hold, uint64_t mark)
{
    int64_t result = 0;

    pthread_mutex_lock(&hold->taking);
    uint64_t released = atomic_load(&hold->released);
    if (mark > atomic_load(&hold->out.head))
        result = -EINVAL;
    else if (released != ALL_RELEASED && mark > released)
        atomic_store(&hold->released, mark);
    pthread_mutex_unlock(&hold->taking);
    if (result == 0)
        send_soon(hold);
    return result;
}

int64_t framehold_discard(struct framehold *hold)
{
    pthread_mutex_lock(&hold->taking);
    pthread_mutex_lock(&hold->sending);
    (void)tap_send(hold, AT_ONCE);
    uint64_t head = atomic_load(&hold->out.head);
    if (atomic_load(&hold->released) != ALL_RELEASED)
        atomic_store(&hold->released, head);
    for (uint64_t at = atomic_load(&hold->out.tail); at < head;) {
        struct framering_frame frame = framering_at(&hold->out, at);
        if (frame.length > 0)
            COUNT(hold, held_frames, -1);
        at = frame.next;
    }
    atomic_store(&hold->out.tail, head);
    hold->told = false;
    clear_event(hold->waiting_fd);
    pthread_mutex_unlock(&hold->sending);
    pthread_mutex_unlock(&hold->taking);
    signal_event(hold->wake_fd);
    return 0;
}

int64_t framehold_output(struct framehold *hold, uint64_t after, uint64_t until, uint8_t *into, uint64_t room)
{
    uint64_t used = 0;
    int64_t result = 0;

    pthread_mutex_lock(&hold->sending);
    if (after > until || until > atomic_load(&hold->out.head))
        result = -EINVAL;
    else if (after < until && after < atomic_load(&hold->out.tail))
        result = -ESTALE;
    while (result == 0 && after < until) {
        struct framering_frame frame = framering_at(&hold->out, after);
        if (frame.length > 0) {
            if (room - used < LENGTH_BYTES + (uint64_t)frame.length) {
                result = -ENOSPC;
                break;
            }
            memcpy(into + used, &frame.length, LENGTH_BYTES);
            memcpy(into + used + LENGTH_BYTES, frame.bytes, frame.length);
            used += LENGTH_BYTES + frame.length;
        }
        after = frame.next;
    }
    pthread_mutex_unlock(&hold->sending);
    return result < 0 ? result : (int64_t)used;
}

/* --- outside → guest; `incoming` is held throughout --- */

static void frame_copy(struct framehold *hold, const uint8_t *frame, uint32_t length)
{
    if (hold->copied_room - hold->copied_size < LENGTH_BYTES + (uint64_t)length) {
        COUNT(hold, copy_dropped, 1);
        return;
    }
    memcpy(hold->copied + hold->copied_size, &length, LENGTH_BYTES);
    memcpy(hold->copied + hold->copied_size + LENGTH_BYTES, frame, length);
    if (hold->copied_size == 0)
        signal_event(hold->copied_fd);
    hold->copied_size += LENGTH_BYTES + length;
    COUNT(hold, copied_frames, 1);
}

/* Room for one more frame; a keeper forgets its oldest for that, since replies are wanted to what came last. */
static uint8_t *inbound_room(struct framehold *hold)
{
    uint8_t *room;

    while ((room = framering_room(&hold->in)) == NULL && hold->collects) {
        struct framering_frame oldest = framering_at(&hold->in, atomic_load(&hold->in.tail));
        if (oldest.length > 0)
            COUNT(hold, kept_dropped, 1);
        atomic_store(&hold->in.tail, oldest.next);
    }
    return room;
}

static int tap_take(struct framehold *hold, int most)
{
    int taken = 0;
    uint8_t *room;

    while (taken < most && !has_failed(hold, COUNTER(tap_errno)) && (room = inbound_room(hold)) != NULL) {
        ssize_t got = read(hold->tap_fd, room, FRAME_MOST);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN)
                end_failed(hold, COUNTER(tap_errno), errno);
            break;
        }
        /* A tap has no end but by failing; a socket in its place has. */
        if (got == 0) {
            end_failed(hold, COUNTER(tap_errno), ENODEV);
            break;
        }
        taken++;
        COUNT(hold, tap_frames, 1);
        COUNT(hold, tap_bytes, got);
        if (hold->copies)
            frame_copy(hold, room, (uint32_t)got);
        if (hold->collects)
            COUNT(hold, kept_frames, 1);
        framering_add(&hold->in, (uint32_t)got, now_ns());
    }
    return taken;
}

/* False when QEMU has no room now. */
static bool guest_put(struct framehold *hold, const uint8_t *frame, uint32_t length)
{
    for (;;) {
        if (send(hold->guest_fd, frame, length, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
            COUNT(hold, delivered_frames, 1);
            return true;
        }
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN)
            return false;
        COUNT(hold, deliver_dropped, 1);
        return true;
    }
}

/* False when QEMU has no room now. */
static bool injected_send(struct framehold *hold)
{
    while (hold->injected != NULL) {
        struct injected *first = hold->injected;
        while (first->at < first->size) {
            uint32_t length;
            memcpy(&length, first->frames + first->at, LENGTH_BYTES);
            if (!guest_put(hold, first->frames + first->at + LENGTH_BYTES, length))
                return false;
            first->at += LENGTH_BYTES + length;
        }
        hold->injected_bytes -= first->size;
        hold->injected = first->next;
        if (hold->injected == NULL)
            hold->injected_end = &hold->injected;
        free(first);
    }
    return true;
}

/* Gives the guest what waits for it, injected frames first. */
static void guest_send(struct framehold *hold)
{
    bool has_room = injected_send(hold);

    while (has_room && !hold->collects) {
        uint64_t tail = atomic_load(&hold->in.tail);
        if (tail == atomic_load(&hold->in.head))
            break;
        struct framering_frame frame = framering_at(&hold->in, tail);
        if (frame.length > 0 && !(has_room = guest_put(hold, frame.bytes, frame.length)))
            break;
        atomic_store(&hold->in.tail, frame.next);
    }
    hold->guest_full = !has_room;
}

int64_t framehold_collect(struct framehold *hold)
{
    pthread_mutex_lock(&hold->incoming);
    hold->collects = true;
    pthread_mutex_unlock(&hold->incoming);
    signal_event(hold->wake_fd);
    return 0;
}

int64_t framehold_deliver(struct framehold *hold, uint64_t most_age_ns)
{
    uint64_t now = now_ns(), oldest_ns = now > most_age_ns ? now - most_age_ns : 0;

    pthread_mutex_lock(&hold->incoming);
    while (hold->collects && atomic_load(&hold->in.tail) < atomic_load(&hold->in.head)) {
        struct framering_frame frame = framering_at(&hold->in, atomic_load(&hold->in.tail));
        if (frame.length > 0 && frame.came_ns >= oldest_ns)
            break;
        atomic_store(&hold->in.tail, frame.next);
    }
    hold->collects = false;
    guest_send(hold);
    pthread_mutex_unlock(&hold->incoming);
    signal_event(hold->wake_fd);
    return 0;
}

int64_t framehold_forget(struct framehold *hold)
{
    pthread_mutex_lock(&hold->incoming);
    if (hold->collects)
        atomic_store(&hold->in.tail, atomic_load(&hold->in.head));
    pthread_mutex_unlock(&hold->incoming);
    return 0;
}

int64_t framehold_copy_inbound(struct framehold *hold, int on)
{
    pthread_mutex_lock(&hold->incoming);
    hold->copies = on != 0;
    hold->copied_size = 0;
    clear_event(hold->copied_fd);
    pthread_mutex_unlock(&hold->incoming);
    return 0;
}

int64_t framehold_take_copied(struct framehold *hold, uint8_t *into, uint64_t room)
{
    int64_t result = -ENOSPC;

    pthread_mutex_lock(&hold->incoming);
    if (hold->copied_size <= room) {
        memcpy(into, hold->copied, hold->copied_size);
        result = (int64_t)hold->copied_size;
        hold->copied_size = 0;
        clear_event(hold->copied_fd);
    }
    pthread_mutex_unlock(&hold->incoming);
    return result;
}

static bool list_holds(const uint8_t *frames, uint64_t size)
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

int64_t framehold_inject(struct framehold *hold, const uint8_t *frames, uint64_t size)
{
    int64_t result = 0;

    if (!list_holds(frames, size))
        return -EBADMSG;
    if (size > INJECT_MOST)
        return -ENOBUFS;
    struct injected *added = malloc(sizeof *added + size);
    if (added == NULL)
        return -ENOMEM;
    *added = (struct injected){.size = size};
    memcpy(added->frames, frames, size);

    pthread_mutex_lock(&hold->incoming);
    if (hold->injected_bytes + size > INJECT_MOST) {
        result = -ENOBUFS;
    } else {
        *hold->injected_end = added;
        hold->injected_end = &added->next;
        hold->injected_bytes += size;
        added = NULL;
        guest_send(hold);
    }
    pthread_mutex_unlock(&hold->incoming);
    free(added);
    signal_event(hold->wake_fd);
    return result;
}

int64_t framehold_send_out(struct framehold *hold, const uint8_t *frames, uint64_t size)
{
    int64_t sent = 0;

    if (!list_holds(frames, size))
        return -EBADMSG;
    pthread_mutex_lock(&hold->sending);
    for (uint64_t at = 0; at < size;) {
        uint32_t length;
        memcpy(&length, frames + at, LENGTH_BYTES);
        ssize_t put = write(hold->tap_fd, frames + at + LENGTH_BYTES, length);
        if (put < 0 && errno == EINTR)
            continue;
        COUNT(hold, sent_frames, put >= 0);
        COUNT(hold, sent_bytes, put >= 0 ? put : 0);
        COUNT(hold, send_dropped, put < 0);
        sent += put >= 0;
        at += LENGTH_BYTES + length;
    }
    pthread_mutex_unlock(&hold->sending);
    return sent;
}

/* --- the thread --- */

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
        signal_event(hold->wake_fd);
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
                clear_event(hold->wake_fd);
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
    while (hold->injected != NULL) {
        struct injected *next = hold->injected->next;
        free(hold->injected);
        hold->injected = next;
    }
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
    signal_event(hold->wake_fd);
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

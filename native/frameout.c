#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "frameparts.h"

int guest_take(struct framehold *hold, int most)
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
            event_signal(hold->waiting_fd);
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

bool tap_send(struct framehold *hold, int most)
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
        event_signal(hold->wake_fd);
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
    event_clear(hold->waiting_fd);
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
    event_clear(hold->waiting_fd);
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
    uint64_t head = atomic_load(&hold->out.head), released = atomic_load(&hold->released);
    /* Released frames that the tap has no room for yet still go out; marks go on growing. */
    for (uint64_t at = released; at < head;) {
        struct framering_frame frame = framering_at(&hold->out, at);
        if (frame.length > 0)
            COUNT(hold, held_frames, -1);
        at = frame.next;
    }
    if (released < head) {
        framering_pass_over(&hold->out, released, head);
        atomic_store(&hold->released, head);
    }
    hold->told = false;
    event_clear(hold->waiting_fd);
    pthread_mutex_unlock(&hold->sending);
    pthread_mutex_unlock(&hold->taking);
    event_signal(hold->wake_fd);
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

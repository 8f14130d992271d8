#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "frameparts.h"

/* All of the incoming side is under the lock `incoming`. */

struct injected {
    struct injected *next;
    uint64_t size, at;
    uint8_t frames[];
};

static void frame_copy(struct framehold *hold, const uint8_t *frame, uint32_t length)
{
    if (hold->copied_room - hold->copied_size < LENGTH_BYTES + (uint64_t)length) {
        COUNT(hold, copy_dropped, 1);
        return;
    }
    memcpy(hold->copied + hold->copied_size, &length, LENGTH_BYTES);
    memcpy(hold->copied + hold->copied_size + LENGTH_BYTES, frame, length);
    if (hold->copied_size == 0)
        event_signal(hold->copied_fd);
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

int tap_take(struct framehold *hold, int most)
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

void guest_send(struct framehold *hold)
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
    event_signal(hold->wake_fd);
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
    event_signal(hold->wake_fd);
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
    event_clear(hold->copied_fd);
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
        event_clear(hold->copied_fd);
    }
    pthread_mutex_unlock(&hold->incoming);
    return result;
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
    event_signal(hold->wake_fd);
    return result;
}

void injected_free(struct framehold *hold)
{
    while (hold->injected != NULL) {
        struct injected *next = hold->injected->next;
        free(hold->injected);
        hold->injected = next;
    }
}

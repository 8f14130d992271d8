/* What the parts of the frame hold share: its state, and who may touch which of it. The outgoing side is in
 * frameout.c, the incoming one in framein.c, the thread that drives both in framehold.c. */
#ifndef OUTLIVE_FRAMEPARTS_H
#define OUTLIVE_FRAMEPARTS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "framehold.h"
#include "framering.h"

enum {
    AT_ONCE = 64,        /* frames moved before the other direction has its turn */
    AT_ONCE_CALLER = 16, /* frames that a caller sends itself; the thread does the rest */
    LENGTH_BYTES = 4,
};

#define ALL_RELEASED UINT64_MAX

struct injected;

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

uint64_t now_ns(void);
void event_signal(int fd);
void event_clear(int fd);

/* An end that failed for good is no longer read; the reason is told in the counters. */
void end_failed(struct framehold *hold, size_t counter, int why);
bool has_failed(struct framehold *hold, size_t counter);

/* Whether bytes are a list of frames. */
bool list_holds(const uint8_t *frames, uint64_t size);

/* Reads from the guest; `taking` is held. Returns how many frames; less than `most`: no more wait, or no room. */
int guest_take(struct framehold *hold, int most);

/* Sends what is released; `sending` is held. False when some is left. */
bool tap_send(struct framehold *hold, int most);

/* Reads from the tap; gives the guest what waits for it, injected frames first; `incoming` is held for both. */
int tap_take(struct framehold *hold, int most);
void guest_send(struct framehold *hold);

/* Frees what was injected and never sent. */
void injected_free(struct framehold *hold);

#endif

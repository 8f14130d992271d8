/* Heartbeats by the ten thousand: takes datagrams from a socket, and deals with those that repeat what their sender
 * said before. All others, wrong ones too, are left to the caller, who reads and judges them in the plain way
 * (`outlive.wire.receiver`) and notes here what was accepted.
 *
 * A datagram is a repetition when it differs from the heartbeat last accepted of its sender in sequence, load and tag
 * alone; its load is a finite number from 0, its sequence is higher than all before and above the floor, and its tag
 * holds. The plain way would accept just the same, and learn nothing but that the sender is alive.
 *
 * Nothing here allocates or keeps anything: all memory is the caller's, shared with it, and used on one thread. */
#ifndef OUTLIVE_HEARTBEATS_H
#define OUTLIVE_HEARTBEATS_H

#include <netinet/in.h>
#include <stdint.h>

#include "blake2s.h"

enum {
    DATAGRAM_MOST = 1200, /* MOST_BYTES of outlive.wire.record */
    NAME_MOST = 63,
    BATCH = 64,
};

/* What is remembered of one sender; `outlive.wire.senders` is its twin. The first five are those of the receiver. */
struct sender {
    uint64_t highest, seen, heartbeat, floor, next_floor;
    double at;
    uint16_t size; /* of the heartbeat last accepted; 0: none */
    uint8_t name_size; /* 0: the place is free */
    uint8_t name[NAME_MOST];
    uint8_t last[DATAGRAM_MOST];
};

/* One datagram that arrived. size: one more than DATAGRAM_MOST says that it was longer. */
struct arrived {
    struct sockaddr_in6 from; /* or a sockaddr_in, by its family */
    uint32_t size;
    uint8_t data[DATAGRAM_MOST + 4];
};

/* places: how many; index: `slots` numbers, a power of two and more than places: 0 or a place + 1. said and said_at:
 * for each place, sequence and time of the newest heartbeat. arrived, left: BATCH each. */
struct heartbeats {
    struct blake2s_key key;
    struct sender *senders;
    uint32_t *index;
    uint64_t *said;
    double *said_at;
    struct arrived *arrived;
    uint32_t *left;
    uint64_t slots;
    uint64_t places;
    uint64_t repeated;
};

#pragma GCC visibility push(default)

void heartbeats_key(struct heartbeats *all, const uint8_t *key, const uint8_t *person);

/* Has the senders that have a name found by it, after any of them changed. */
void heartbeats_index(struct heartbeats *all);

/* Has one sender more found by its name. */
void heartbeats_add(struct heartbeats *all, uint64_t place);

/* Takes what waits in the socket, at most about `most` datagrams, and counts repetitions in `repeated`. Stops at the
 * first batch with others: *left_count of them, whose numbers in `arrived` are in `left`. Returns how many it took;
 * *drained says whether none waits any more. now: seconds on the clock of the caller. */
int64_t heartbeats_take(struct heartbeats *all, int fd, uint64_t most, double now, uint32_t *left_count,
                        uint32_t *drained);

/* Whether one datagram is a repetition; then it is noted as heard. */
int heartbeats_repeats(struct heartbeats *all, const uint8_t *data, uint64_t size, double now);

/* Takes and drops what waits: the least that receiving can cost. Returns how many; *drained as above. */
int64_t heartbeats_drop(struct heartbeats *all, int fd, uint64_t most, uint32_t *drained);

#pragma GCC visibility pop

#endif

/* A ring of frames in one piece of memory. Places in it are counted from its beginning of time and only grow. A frame
 * never wraps around: where the rest of the memory is too short, a record without a frame passes it over. One side
 * writes, one side reads; each may do so in a thread of its own. */
#ifndef OUTLIVE_FRAMERING_H
#define OUTLIVE_FRAMERING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct framering {
    uint8_t *bytes;
    uint64_t capacity;
    _Atomic uint64_t head, tail; /* the writer's and the reader's place */
};

/* What a reader finds; `next` is the place behind it. `length` 0: a record without a frame. */
struct framering_frame {
    const uint8_t *bytes;
    uint32_t length;
    uint64_t came_ns, next;
};

int64_t framering_open(struct framering *ring, uint64_t capacity);
void framering_close(struct framering *ring);

/* Room for a frame of FRAME_MOST bytes, or NULL. */
uint8_t *framering_room(struct framering *ring);

/* Whether there is such room; for the reader's side, too. */
bool framering_has_room(const struct framering *ring);

/* Makes the frame written to that room part of the ring. */
void framering_add(struct framering *ring, uint32_t length, uint64_t came_ns);

/* Makes one record without a frame of all records between two places; neither side may be at work. */
void framering_pass_over(struct framering *ring, uint64_t from, uint64_t to);

/* The record at a place that is before the head. */
struct framering_frame framering_at(const struct framering *ring, uint64_t place);

#endif

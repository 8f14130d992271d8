#include "framering.h"

#include <errno.h>
#include <string.h>

#include "framehold.h"
#include "pages.h"

enum { RECORD_BYTES = 16 };

struct record {
    uint32_t length; /* of the frame; 0: passes over `skipped` bytes, itself counted */
    uint32_t skipped;
    uint64_t came_ns;
};

_Static_assert(sizeof(struct record) == RECORD_BYTES, "records keep frames aligned");
_Static_assert(FRAME_MOST % RECORD_BYTES == 0 && PAGE_BYTES % RECORD_BYTES == 0, "places are multiples of a record");

int64_t framering_open(struct framering *ring, uint64_t capacity)
{
    void *bytes;

    capacity = (capacity + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    if (capacity < RING_LEAST || capacity > UINT32_MAX)
        return -EINVAL;
    int64_t result = pages_map(-1, capacity, 1, &bytes);
    if (result < 0)
        return result;
    ring->bytes = bytes;
    ring->capacity = capacity;
    atomic_init(&ring->head, 0);
    atomic_init(&ring->tail, 0);
    return 0;
}

void framering_close(struct framering *ring)
{
    if (ring->bytes != NULL)
        (void)pages_unmap(ring->bytes, ring->capacity, 1);
    ring->bytes = NULL;
}

static void record_write(struct framering *ring, uint64_t place, struct record record)
{
    memcpy(ring->bytes + place % ring->capacity, &record, sizeof record);
}

/* The bytes to pass over first, because a frame would not fit before the end of the memory. */
static uint64_t rest_too_short(const struct framering *ring, uint64_t head)
{
    uint64_t rest = ring->capacity - head % ring->capacity;

    return rest < RECORD_BYTES + FRAME_MOST ? rest : 0;
}

bool framering_has_room(const struct framering *ring)
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);

    return ring->capacity - (head - tail) >= rest_too_short(ring, head) + RECORD_BYTES + FRAME_MOST;
}

uint8_t *framering_room(struct framering *ring)
{
    if (!framering_has_room(ring))
        return NULL;
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint64_t skipped = rest_too_short(ring, head);
    if (skipped > 0) {
        record_write(ring, head, (struct record){.skipped = (uint32_t)skipped});
        head += skipped;
        atomic_store_explicit(&ring->head, head, memory_order_release);
    }
    return ring->bytes + head % ring->capacity + RECORD_BYTES;
}

void framering_add(struct framering *ring, uint32_t length, uint64_t came_ns)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

    record_write(ring, head, (struct record){.length = length, .came_ns = came_ns});
    head += RECORD_BYTES + (length + RECORD_BYTES - 1) / RECORD_BYTES * RECORD_BYTES;
    atomic_store_explicit(&ring->head, head, memory_order_release);
}

void framering_pass_over(struct framering *ring, uint64_t from, uint64_t to)
{
    record_write(ring, from, (struct record){.skipped = (uint32_t)(to - from)});
}

struct framering_frame framering_at(const struct framering *ring, uint64_t place)
{
    const uint8_t *at = ring->bytes + place % ring->capacity;
    struct record record;

    memcpy(&record, at, sizeof record);
    if (record.length == 0)
        return (struct framering_frame){.next = place + record.skipped};
    return (struct framering_frame){
        .bytes = at + RECORD_BYTES,
        .length = record.length,
        .came_ns = record.came_ns,
        .next = place + RECORD_BYTES + (record.length + RECORD_BYTES - 1) / RECORD_BYTES * RECORD_BYTES,
    };
}

#define _GNU_SOURCE
#include "heartbeats.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

/* The envelope and the body's beginning, as in outlive.wire.record and outlive.wire.heartbeat. */
enum {
    AT_KIND = 3,
    AT_NAME_SIZE = 6,
    AT_SEQUENCE = 32,
    HEADER = 40,
    FLAGS_BYTES = 1,
    LOAD_BYTES = 8,
    BODY_LEAST = FLAGS_BYTES + LOAD_BYTES + 8 + 8 + 2,
    KIND_HEARTBEAT = 1,
    CACHE_LINE = 64,
    WINDOW = 64,
};

static uint64_t big64(const uint8_t *bytes)
{
    uint64_t word = 0;
    for (int byte = 0; byte < 8; byte++)
        word = word << 8 | bytes[byte];
    return word;
}

/* FNV-1a; only holders of the key get a place, so nobody else can make names meet. */
static uint64_t slot_of(const struct heartbeats *all, const uint8_t *name, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t byte = 0; byte < size; byte++)
        hash = (hash ^ name[byte]) * 0x100000001b3;
    return (hash ^ hash >> 32) & (all->slots - 1);
}

static uint32_t find(const struct heartbeats *all, const uint8_t *name, size_t size)
{
    uint64_t slot = slot_of(all, name, size);
    for (; all->index[slot]; slot = (slot + 1) & (all->slots - 1)) {
        const struct sender *sender = &all->senders[all->index[slot] - 1];
        if (sender->name_size == size && !memcmp(sender->name, name, size))
            return all->index[slot];
    }
    return 0;
}

void heartbeats_key(struct heartbeats *all, const uint8_t *key, const uint8_t *person)
{
    blake2s_begin(&all->key, key, person);
}

void heartbeats_add(struct heartbeats *all, uint64_t place)
{
    const struct sender *sender = &all->senders[place];
    uint64_t slot = slot_of(all, sender->name, sender->name_size);
    while (all->index[slot])
        slot = (slot + 1) & (all->slots - 1);
    all->index[slot] = (uint32_t)place + 1;
}

void heartbeats_index(struct heartbeats *all)
{
    memset(all->index, 0, all->slots * sizeof *all->index);
    for (uint64_t place = 0; place < all->places; place++)
        if (all->senders[place].name_size)
            heartbeats_add(all, place);
}

/* Whether the two differ in sequence, load and tag alone. Both have `size` bytes and the name's end at `name_end`. */
static int says_the_same(const uint8_t *data, const uint8_t *last, size_t size, size_t name_end)
{
    size_t flags_end = name_end + FLAGS_BYTES, load_end = flags_end + LOAD_BYTES;
    return !memcmp(data, last, AT_SEQUENCE) && !memcmp(data + HEADER, last + HEADER, flags_end - HEADER)
           && !memcmp(data + load_end, last + load_end, size - BLAKE2S_TAG - load_end);
}

/* In time that does not depend on where they differ. */
static int tags_differ(const uint8_t *one, const uint8_t *other)
{
    uint8_t differ = 0;
    for (int byte = 0; byte < BLAKE2S_TAG; byte++)
        differ |= one[byte] ^ other[byte];
    return differ;
}

int heartbeats_repeats(struct heartbeats *all, const uint8_t *data, uint64_t size, double now)
{
    if (size < HEADER + 1 + BODY_LEAST + BLAKE2S_TAG || size > DATAGRAM_MOST || data[AT_KIND] != KIND_HEARTBEAT)
        return 0;
    size_t name_end = HEADER + (size_t)data[AT_NAME_SIZE];
    if (data[AT_NAME_SIZE] > NAME_MOST || name_end + BODY_LEAST + BLAKE2S_TAG > size)
        return 0;
    uint32_t found = find(all, data + HEADER, data[AT_NAME_SIZE]);
    if (!found)
        return 0;
    struct sender *sender = &all->senders[found - 1];
    uint64_t sequence = big64(data + AT_SEQUENCE), load_bits = big64(data + name_end + FLAGS_BYTES);
    double load;
    memcpy(&load, &load_bits, sizeof load);
    if (sender->size != size || !says_the_same(data, sender->last, size, name_end) || !isfinite(load) || load < 0)
        return 0;
    if (sequence > INT64_MAX || sequence <= sender->highest || sequence <= sender->floor)
        return 0;
    uint8_t tag[BLAKE2S_TAG];
    blake2s_tag(&all->key, data, size - BLAKE2S_TAG, tag);
    if (tags_differ(tag, data + size - BLAKE2S_TAG))
        return 0;
    uint64_t ahead = sequence - sender->highest;
    sender->seen = ahead < WINDOW ? sender->seen << ahead | 1 : 1;
    sender->highest = sender->heartbeat = all->said[found - 1] = sequence;
    sender->at = all->said_at[found - 1] = now;
    all->repeated++;
    return 1;
}

/* One recvmmsg; how many datagrams, or 0 with *drained when none waits. An error of something that was sent before
 * (ICMP) is passed over; each is told only once. */
static unsigned receive(struct heartbeats *all, int fd, uint32_t *drained)
{
    struct mmsghdr messages[BATCH];
    struct iovec rooms[BATCH];
    memset(messages, 0, sizeof messages);
    for (unsigned each = 0; each < BATCH; each++) {
        struct arrived *arrived = &all->arrived[each];
        rooms[each] = (struct iovec){arrived->data, DATAGRAM_MOST + 1};
        messages[each].msg_hdr.msg_iov = &rooms[each];
        messages[each].msg_hdr.msg_iovlen = 1;
        messages[each].msg_hdr.msg_name = &arrived->from;
        messages[each].msg_hdr.msg_namelen = sizeof arrived->from;
    }
    int got = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    if (got < 0) {
        *drained = errno == EAGAIN || errno == EWOULDBLOCK;
        return 0;
    }
    for (int each = 0; each < got; each++)
        all->arrived[each].size = messages[each].msg_len;
    return (unsigned)got;
}

/* Has the processor fetch what it will need of the senders of a batch, all at once: with thousands of them nearly none is
 * in its caches, and to wait for each in turn costs more than all the rest. Always inline: a call of what only prefetches
 * is left out by GCC, as having no effect. */
static inline __attribute__((always_inline)) void look_ahead(const struct heartbeats *all, unsigned got)
{
    uint64_t slots[BATCH];
    for (unsigned each = 0; each < got; each++) {
        const uint8_t *data = all->arrived[each].data;
        size_t size = data[AT_NAME_SIZE] > NAME_MOST ? NAME_MOST : data[AT_NAME_SIZE];
        slots[each] = slot_of(all, data + HEADER, size);
        __builtin_prefetch(&all->index[slots[each]]);
    }
    for (unsigned each = 0; each < got; each++) {
        uint32_t found = all->index[slots[each]];
        const char *sender = (const char *)&all->senders[found ? found - 1 : 0];
        size_t said = offsetof(struct sender, last) + all->arrived[each].size;
        for (size_t line = 0; found && line < said && line < sizeof(struct sender); line += CACHE_LINE)
            __builtin_prefetch(sender + line, 1);
    }
}

int64_t heartbeats_take(struct heartbeats *all, int fd, uint64_t most, double now, uint32_t *left_count,
                        uint32_t *drained)
{
    uint64_t taken = 0;
    *left_count = *drained = 0;
    for (uint64_t turn = 0; taken < most && turn < most && !*left_count && !*drained; turn++) {
        unsigned got = receive(all, fd, drained);
        look_ahead(all, got);
        for (unsigned each = 0; each < got; each++)
            if (!heartbeats_repeats(all, all->arrived[each].data, all->arrived[each].size, now))
                all->left[(*left_count)++] = each;
        taken += got;
    }
    return (int64_t)taken;
}

int64_t heartbeats_drop(struct heartbeats *all, int fd, uint64_t most, uint32_t *drained)
{
    uint64_t taken = 0;
    *drained = 0;
    for (uint64_t turn = 0; taken < most && turn < most && !*drained; turn++)
        taken += receive(all, fd, drained);
    return (int64_t)taken;
}

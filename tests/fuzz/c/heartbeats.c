/* Datagrams that may repeat what their sender said before. An input is two: two bytes with the length of the first, the
 * first, which was accepted, and the second, which comes; then the second once more with the tag that it should have. */
#include "heartbeats.h"
#include "target.h"

enum { AT_NAME_SIZE = 6, HEADER = 40, PLACES = 2, SLOTS = 8 };

static struct sender senders[PLACES];
static uint32_t slots[SLOTS];
static uint64_t said[PLACES];
static double said_at[PLACES];
static struct heartbeats all = {
    .senders = senders, .index = slots, .said = said, .said_at = said_at, .slots = SLOTS, .places = PLACES,
};

static void remember(const uint8_t *data, size_t size)
{
    struct sender *sender = &senders[0];
    memset(senders, 0, sizeof senders);
    if (size > HEADER && size <= DATAGRAM_MOST && data[AT_NAME_SIZE] > 0 && data[AT_NAME_SIZE] <= NAME_MOST
        && HEADER + (size_t)data[AT_NAME_SIZE] < size) {
        sender->name_size = data[AT_NAME_SIZE];
        memcpy(sender->name, data + HEADER, sender->name_size);
        memcpy(sender->last, data, size);
        sender->size = (uint16_t)size;
    }
    heartbeats_index(&all);
}

static void offer(const uint8_t *data, size_t size, const uint8_t *last, size_t last_size)
{
    uint8_t *copy = copied(data, size);
    remember(last, last_size);
    heartbeats_repeats(&all, copy, size, 1.0);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[BLAKE2S_KEY] = "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk", person[BLAKE2S_PERSON] = "datagram";

    if (size < 2)
        return 0;
    heartbeats_key(&all, key, person);
    size_t first = (size_t)data[0] << 8 | data[1];
    first = first < size - 2 ? first : size - 2;
    const uint8_t *last = data + 2, *next = last + first;
    size_t left = size - 2 - first;
    offer(next, left, last, first);
    if (left > BLAKE2S_TAG) {
        uint8_t *tagged = copied(next, left);
        blake2s_tag(&all.key, tagged, left - BLAKE2S_TAG, tagged + left - BLAKE2S_TAG);
        offer(tagged, left, last, first);
        free(tagged);
    }
    return 0;
}

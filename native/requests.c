#define _GNU_SOURCE
#include "requests.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fence.h"
#include "process.h"
#include "watchdog.h"

enum { MOST_WORDS = 4 + MOST_ADDRESSES };

/* So long after its deadline at most a host may count on others to wait for its watchdog. */
#define MOST_LATE_NS (60 * NS_PER_S)

static bool quit_agreed;

static const char *handle_deadline(char *const words[], int count, int64_t now_ns, char *answer, size_t size)
{
    uint64_t deadline_ns;
    uint64_t over_ns = 0;

    if ((count != 2 && count != 3) || !number_parse(words[1], INT64_MAX, &deadline_ns)
        || (count == 3 && !number_parse(words[2], INT64_MAX, &over_ns)))
        return "malformed DEADLINE takes nanoseconds on the boot clock";
    if (over_ns > deadline_ns && over_ns - deadline_ns > (uint64_t)MOST_LATE_NS)
        return "malformed others may act within a minute after the deadline";
    const char *refusal = fence_extend((int64_t)deadline_ns, now_ns);
    if (refusal == NULL && (int64_t)deadline_ns >= fence_deadline_ns())
        watchdog_extend((int64_t)(over_ns > deadline_ns ? over_ns : deadline_ns));
    snprintf(answer, size, "OK %" PRId64, fence_deadline_ns());
    return refusal;
}

static const char *handle_workload(char *const words[], int count, int64_t now_ns)
{
    uint64_t generation;

    if (count < 3 || !name_valid(words[1]) || !number_parse(words[2], INT64_MAX, &generation))
        return "malformed a workload's name and its generation are missing or not valid";
    if (strcmp(words[0], "PROTECT") == 0) {
        if (count < 4)
            return "malformed PROTECT needs a cgroup";
        if (!watchdog_remember())
            return "watchdog it is not to be had, or that it is needed cannot be noted";
        return fence_protect(words[1], generation, words[3], words + 4, (size_t)(count - 4), now_ns);
    }
    if (count != 3)
        return "malformed too many words";
    if (strcmp(words[0], "RELEASE") == 0)
        return fence_release(words[1], generation);
    return fence_one(words[1], generation, now_ns);
}

static const char *handle_plain(char *const words[], int count)
{
    if (count != 1)
        return "malformed too many words";
    if (strcmp(words[0], "WHOLE") == 0) {
        watchdog_trust_table();
        return NULL;
    }
    if (fence_in_force() > 0)
        return "protecting workloads are protected, or not yet certainly down";
    if (watchdog_doubts_table())
        return "protecting what the guard before this one protected may still run";
    quit_agreed = true;
    return NULL;
}

/* Parts `message` into words, in place; -1 when it is not what a message may be. */
static int split(char *message, size_t length, char *words[MOST_WORDS])
{
    int count = 0;
    bool in_word = false;

    for (size_t i = 0; i < length; i++) {
        if (message[i] < ' ' || message[i] > '~' || (message[i] == ' ' && !in_word))
            return -1;
        if (message[i] == ' ') {
            message[i] = '\0';
            in_word = false;
        } else if (!in_word) {
            if (count == MOST_WORDS)
                return -1;
            words[count++] = message + i;
            in_word = true;
        }
    }
    return in_word ? count : -1;
}

bool request_handle(char *message, size_t length, int64_t now_ns, char answer[ANSWER_BYTES])
{
    char *words[MOST_WORDS];
    const char *refusal = "malformed no such request";
    int count = split(message, length, words);
    bool status = false;

    snprintf(answer, ANSWER_BYTES, "OK");
    if (count < 1)
        refusal = "malformed a message is printable ASCII, words parted by single spaces";
    else if (strcmp(words[0], "DEADLINE") == 0)
        refusal = handle_deadline(words, count, now_ns, answer, ANSWER_BYTES);
    else if (strcmp(words[0], "PROTECT") == 0 || strcmp(words[0], "RELEASE") == 0 || strcmp(words[0], "FENCE") == 0)
        refusal = handle_workload(words, count, now_ns);
    else if (strcmp(words[0], "QUIT") == 0 || strcmp(words[0], "WHOLE") == 0)
        refusal = handle_plain(words, count);
    else if (strcmp(words[0], "STATUS") == 0 && count == 1) {
        refusal = NULL;
        status = true;
        snprintf(answer, ANSWER_BYTES, "STATE %" PRId64 " %" PRId64 " %u", now_ns, fence_deadline_ns(),
                 fence_entries());
    }
    if (refusal != NULL)
        snprintf(answer, ANSWER_BYTES, "ERR %s", refusal);
    return status;
}

bool request_quit(void)
{
    return quit_agreed;
}

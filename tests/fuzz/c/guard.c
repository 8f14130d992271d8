/* What a guard is asked: its words and addresses. What they would do to a host is left out: fence and watchdog are
 * stand-ins, the first of which still reads the addresses. */
#include "requests.h"

#include "address.h"
#include "fence.h"
#include "target.h"
#include "watchdog.h"

static volatile size_t seen;

const char *fence_protect(const char *workload, uint64_t generation, const char *cgroup, char *const addresses[],
                          size_t count, int64_t now_ns)
{
    struct address address;
    char text[ADDRESS_TEXT_BYTES];
    (void)generation, (void)now_ns;
    seen += strlen(workload) + strlen(cgroup);
    for (size_t each = 0; each < count; each++)
        if (address_parse(addresses[each], &address) == NULL)
            address_print(&address, text);
    return NULL;
}

const char *fence_release(const char *workload, uint64_t generation)
{
    (void)generation;
    seen += strlen(workload);
    return NULL;
}

const char *fence_one(const char *workload, uint64_t generation, int64_t now_ns)
{
    (void)now_ns;
    return fence_release(workload, generation);
}

int64_t fence_deadline_ns(void) { return 0; }
const char *fence_extend(int64_t deadline_ns, int64_t now_ns) { return deadline_ns < now_ns ? "past it is over" : NULL; }
unsigned fence_in_force(void) { return 0; }
unsigned fence_entries(void) { return 0; }
void watchdog_extend(int64_t over_ns) { seen += (size_t)over_ns & 1; }
bool watchdog_remember(void) { return true; }
void watchdog_trust_table(void) {}
bool watchdog_doubts_table(void) { return false; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 4095)
        return 0;
    char *message = malloc(size + 1), *answer = malloc(ANSWER_BYTES);
    if (message == NULL || answer == NULL)
        abort();
    memcpy(message, data, size);
    message[size] = '\0'; /* as clients.c ends it */
    request_handle(message, size, 1000, answer);
    seen += strlen(answer);
    free(message);
    free(answer);
    return 0;
}

#define _GNU_SOURCE
#include "fence.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    FIRING_EVERY_MS = 2,
    ENFORCING_EVERY_MS = 20,
    /* A look at the clock, should the kernel's timer ever fail us. */
    PROTECTED_EVERY_MS = 500,
};

#define STUCK_AFTER_NS (1 * NS_PER_S)
#define ADDRESSES_EVERY_NS (1 * NS_PER_S)
/* Further ahead is a mistake of units, not a claim. */
#define FURTHEST_NS (INT64_C(3600) * NS_PER_S)

enum state { FREE, PROTECTED, FIRING, FIRED };

static const char *const state_names[] = { "free", "protected", "firing", "fired" };

struct entry {
    enum state state;
    char workload[NAME_MAX_BYTES + 1];
    uint64_t generation;
    struct cgroup cgroup;
    unsigned addresses;
    struct address address[MOST_ADDRESSES];
    const char *because;
    int64_t due_ns;
    int64_t kill_late_ns;
    int64_t done_late_ns;
    bool only_last_left;
    bool noted_stuck;
};

static struct {
    struct entry entry[MOST_ENTRIES];
    struct fence_listener listener;
    int64_t deadline_ns;
    int64_t addresses_checked_ns;
    bool addresses_news;
    bool one_by_one;
} table;

void fence_start(struct fence_listener listener, bool one_by_one)
{
    table.listener = listener;
    table.one_by_one = one_by_one;
    for (int i = 0; i < MOST_ENTRIES; i++)
        table.entry[i].cgroup.kill_fd = table.entry[i].cgroup.events_fd = -1;
}

void fence_address_news(void)
{
    table.addresses_news = true;
}

int64_t fence_deadline_ns(void)
{
    return table.deadline_ns;
}

static unsigned count_in(enum state first, enum state last)
{
    unsigned count = 0;

    for (int i = 0; i < MOST_ENTRIES; i++)
        count += table.entry[i].state >= first && table.entry[i].state <= last;
    return count;
}

unsigned fence_in_force(void)
{
    return count_in(PROTECTED, FIRING);
}

unsigned fence_entries(void)
{
    return count_in(PROTECTED, FIRED);
}

static struct entry *entry_of(const char *workload)
{
    for (int i = 0; i < MOST_ENTRIES; i++)
        if (table.entry[i].state != FREE && strcmp(table.entry[i].workload, workload) == 0)
            return &table.entry[i];
    return NULL;
}

static int slot_of(const struct entry *entry)
{
    return (int)(entry - table.entry);
}

static struct entry *entry_free(void)
{
    for (int i = 0; i < MOST_ENTRIES; i++)
        if (table.entry[i].state == FREE)
            return &table.entry[i];
    return NULL;
}

const char *fence_extend(int64_t deadline_ns, int64_t now_ns)
{
    if (deadline_ns > now_ns && deadline_ns - now_ns > FURTHEST_NS)
        return "malformed the deadline is more than an hour ahead";
    if (deadline_ns > table.deadline_ns)
        table.deadline_ns = deadline_ns;
    return NULL;
}

static const char *protect_refusal(struct entry *old, uint64_t generation, const char *cgroup, int64_t now_ns)
{
    if (table.deadline_ns == 0)
        return "expired no deadline is in force";
    if (now_ns >= table.deadline_ns)
        return "expired the deadline has passed";
    if (old == NULL)
        return entry_free() == NULL ? "full the table has no free entry" : NULL;
    if (old->state != PROTECTED)
        return "fired the workload was fenced here and has not been released";
    if (old->generation > generation)
        return "generation a newer generation is protected";
    if (strcmp(old->cgroup.path, cgroup) != 0 && cgroup_state(&old->cgroup) != CGROUP_EMPTY)
        return "populated the cgroup protected so far is not empty";
    return NULL;
}

const char *fence_protect(const char *workload, uint64_t generation, const char *cgroup, char *const addresses[],
                          size_t count, int64_t now_ns)
{
    static struct entry fresh;
    static char reason[256];
    struct entry *old = entry_of(workload);
    const char *refusal = protect_refusal(old, generation, cgroup, now_ns);

    if (refusal != NULL)
        return refusal;
    memset(&fresh, 0, sizeof fresh);
    fresh.state = PROTECTED;
    fresh.generation = generation;
    memcpy(fresh.workload, workload, strlen(workload) + 1);
    for (size_t i = 0; i < count; i++) {
        refusal = address_parse(addresses[i], &fresh.address[i]);
        if (refusal != NULL) {
            snprintf(reason, sizeof reason, "malformed %s", refusal);
            return reason;
        }
    }
    fresh.addresses = (unsigned)count;
    refusal = cgroup_open(&fresh.cgroup, cgroup);
    if (refusal == NULL && cgroup_holds(&fresh.cgroup, getpid())) {
        cgroup_close(&fresh.cgroup);
        refusal = "the guard itself is in the cgroup, or that cannot be told";
    }
    if (refusal != NULL) {
        snprintf(reason, sizeof reason, "cgroup %s", refusal);
        return reason;
    }
    if (old != NULL)
        cgroup_close(&old->cgroup);
    else
        old = entry_free();
    *old = fresh;
    table.listener.note("guard.protected workload=%s generation=%" PRIu64 " cgroup=%s addresses=%u", workload,
                        generation, cgroup, fresh.addresses);
    return NULL;
}

const char *fence_release(const char *workload, uint64_t generation)
{
    struct entry *entry = entry_of(workload);

    if (entry == NULL)
        return NULL; /* asked a second time, by an agent that missed the answer */
    if (entry->generation != generation)
        return "generation another generation is protected";
    if (entry->state == FIRING || dropper_answer(slot_of(entry)) == DROP_ASKED)
        return "firing the workload is not yet certainly down";
    if (cgroup_state(&entry->cgroup) != CGROUP_EMPTY)
        return "populated the cgroup is not empty, or that cannot be told";
    table.listener.note("guard.released workload=%s generation=%" PRIu64, workload, generation);
    cgroup_close(&entry->cgroup);
    dropper_forget(slot_of(entry));
    entry->state = FREE;
    return NULL;
}

static void fire(struct entry *entry, const char *because, int64_t due_ns)
{
    entry->state = FIRING;
    entry->because = because;
    entry->due_ns = due_ns;
    entry->kill_late_ns = -1;
    entry->only_last_left = false;
    entry->noted_stuck = false;
}

const char *fence_one(const char *workload, uint64_t generation, int64_t now_ns)
{
    struct entry *entry = entry_of(workload);

    if (entry == NULL)
        return "unknown no such workload is protected";
    if (entry->generation != generation)
        return "generation another generation is protected";
    if (entry->state == PROTECTED)
        fire(entry, "request", now_ns);
    return NULL;
}

static void mark_due(int64_t now_ns)
{
    if (table.deadline_ns == 0 || now_ns < table.deadline_ns)
        return;
    for (int i = 0; i < MOST_ENTRIES; i++)
        if (table.entry[i].state == PROTECTED)
            fire(&table.entry[i], "deadline", table.deadline_ns);
}

static void kill_each(void)
{
    for (int i = 0; i < MOST_ENTRIES; i++) {
        struct entry *entry = &table.entry[i];
        if (entry->state == FIRED && cgroup_state(&entry->cgroup) == CGROUP_POPULATED) {
            cgroup_kill(&entry->cgroup, table.one_by_one);
            table.listener.note("guard.fenced_again workload=%s generation=%" PRIu64 " because=populated",
                                entry->workload, entry->generation);
        }
        if (entry->state != FIRING)
            continue;
        if (!entry->only_last_left)
            entry->only_last_left = cgroup_kill_sparing(&entry->cgroup, FENCE_LAST, table.one_by_one);
        if (entry->only_last_left)
            cgroup_kill(&entry->cgroup, table.one_by_one);
        if (entry->kill_late_ns < 0)
            entry->kill_late_ns = boottime_ns() - entry->due_ns;
    }
}

static void drop_each(int64_t now_ns)
{
    bool again = table.addresses_news || now_ns - table.addresses_checked_ns >= ADDRESSES_EVERY_NS;

    if (again) {
        table.addresses_news = false;
        table.addresses_checked_ns = now_ns;
    }
    for (int i = 0; i < MOST_ENTRIES; i++) {
        const struct entry *entry = &table.entry[i];
        if (entry->state < FIRING || entry->addresses == 0)
            continue;
        enum drop dropped = dropper_answer(i);
        if (dropped == DROP_ASKED)
            table.addresses_news = table.addresses_news || again; /* what it lists may be older than the news */
        else if (dropped != DROP_GONE || again)
            dropper_ask(i, entry->address, entry->addresses);
    }
}

static void tell_if_done(struct entry *entry)
{
    char text[NAME_MAX_BYTES + 80];
    enum cgroup_state left = cgroup_state(&entry->cgroup);
    bool addresses_gone = entry->addresses == 0 || dropper_answer(slot_of(entry)) == DROP_GONE;
    int64_t late_ns = boottime_ns() - entry->due_ns;

    if (left == CGROUP_EMPTY && addresses_gone) {
        entry->state = FIRED;
        entry->done_late_ns = late_ns;
        snprintf(text, sizeof text, "FIRED %s %" PRIu64 " %" PRId64, entry->workload, entry->generation, late_ns);
        table.listener.tell(text);
        table.listener.note("guard.fired workload=%s generation=%" PRIu64 " because=%s kill_late_ns=%" PRId64
                            " late_ns=%" PRId64 " addresses=%u",
                            entry->workload, entry->generation, entry->because, entry->kill_late_ns, late_ns,
                            entry->addresses);
        return;
    }
    if (entry->noted_stuck || late_ns - entry->kill_late_ns < STUCK_AFTER_NS)
        return;
    entry->noted_stuck = true;
    snprintf(text, sizeof text, "STUCK %s %" PRIu64 " %" PRId64, entry->workload, entry->generation, late_ns);
    table.listener.tell(text);
    table.listener.note("guard.stuck workload=%s generation=%" PRIu64 " late_ns=%" PRId64 " cgroup_empty=%s "
                        "addresses_gone=%s",
                        entry->workload, entry->generation, late_ns, left == CGROUP_EMPTY ? "yes" : "no",
                        addresses_gone ? "yes" : "no");
}

void fence_work(int64_t now_ns)
{
    mark_due(now_ns);
    if (count_in(FIRING, FIRED) == 0)
        return;
    kill_each();
    drop_each(now_ns);
    for (int i = 0; i < MOST_ENTRIES; i++)
        if (table.entry[i].state == FIRING)
            tell_if_done(&table.entry[i]);
}

int fence_patience_ms(void)
{
    int patience_ms = -1;

    for (int i = 0; i < MOST_ENTRIES; i++) {
        const struct entry *entry = &table.entry[i];
        if (entry->state == FIRING && !entry->noted_stuck)
            return FIRING_EVERY_MS;
        if (entry->state >= FIRING)
            patience_ms = ENFORCING_EVERY_MS;
        else if (entry->state == PROTECTED && patience_ms < 0)
            patience_ms = PROTECTED_EVERY_MS;
    }
    return patience_ms;
}

int fence_describe(int index, char text[ENTRY_TEXT_BYTES])
{
    while (index < MOST_ENTRIES && table.entry[index].state == FREE)
        index++;
    if (index >= MOST_ENTRIES)
        return -1;
    const struct entry *entry = &table.entry[index];
    bool fired = entry->state == FIRED;
    int length = snprintf(text, ENTRY_TEXT_BYTES, "ENTRY %s %" PRIu64 " %s %" PRId64 " %s", entry->workload,
                          entry->generation, state_names[entry->state], fired ? entry->done_late_ns : 0,
                          entry->cgroup.path);
    for (unsigned i = 0; i < entry->addresses; i++) {
        char address[ADDRESS_TEXT_BYTES];
        address_print(&entry->address[i], address);
        length += snprintf(text + length, ENTRY_TEXT_BYTES - (size_t)length, " %s", address);
    }
    return index + 1;
}

#define _GNU_SOURCE
#include "dropper.h"

#include <assert.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST_PASSES = 4, STACK_BYTES = 256 * 1024, LISTING_BYTES = 32 * 1024 };

struct slot {
    _Atomic int phase; /* enum drop: whoever it names as the next to act owns the rest */
    unsigned count;
    struct address address[DROPPER_ADDRESSES];
    bool listing; /* was asked before the present listing began */
    bool seen;    /* in the present listing */
};

static struct {
    struct slot slot[DROPPER_SLOTS];
    sem_t asked;
    int list_fd;
    int delete_fd;
    int news_fd;
} dropper;

struct request {
    struct nlmsghdr header;
    struct ifaddrmsg address;
    struct rtattr attribute;
    uint8_t bytes[16];
};

static int netlink_socket(int flags, unsigned groups)
{
    struct sockaddr_nl name = { .nl_family = AF_NETLINK, .nl_groups = groups };
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, NETLINK_ROUTE);

    if (fd >= 0 && bind(fd, (struct sockaddr *)&name, sizeof name) != 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

struct setting {
    struct nlmsghdr header;
    struct ifinfomsg link;
    struct rtattr families;
    struct rtattr family;
    struct rtattr settings;
    struct rtattr setting;
    uint32_t value;
};

static bool request_send(int fd, const struct nlmsghdr *request)
{
    while (send(fd, request, request->nlmsg_len, 0) < 0)
        if (errno != EINTR)
            return false;
    return true;
}

/* Requests are served within send, so the answer waits already; it is taken off, and the next listing tells. */
static void change(const struct nlmsghdr *request)
{
    char answer[512];

    if (request_send(dropper.delete_fd, request))
        while (recv(dropper.delete_fd, answer, sizeof answer, MSG_DONTWAIT) > 0)
            continue;
}

/* Without this the kernel takes with the first IPv4 address of a subnet all its others: the host's own, or those
 * of another workload. */
static void spare_other_addresses(int index)
{
    struct setting setting = {
        .header = {
            .nlmsg_len = sizeof setting,
            .nlmsg_type = RTM_SETLINK,
            .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
        },
        .link = { .ifi_family = AF_UNSPEC, .ifi_index = index },
        .families = { .rta_len = sizeof setting - offsetof(struct setting, families), .rta_type = IFLA_AF_SPEC },
        .family = { .rta_len = sizeof setting - offsetof(struct setting, family), .rta_type = AF_INET },
        .settings = { .rta_len = sizeof setting - offsetof(struct setting, settings), .rta_type = IFLA_INET_CONF },
        .setting = {
            .rta_len = sizeof setting - offsetof(struct setting, setting),
            .rta_type = IPV4_DEVCONF_PROMOTE_SECONDARIES,
        },
        .value = 1,
    };

    change(&setting.header);
}

static void delete_listed(const struct address *address, int index, uint8_t prefix)
{
    size_t bytes = address_size(address);
    struct request request = {
        .header = {
            .nlmsg_len = (uint32_t)(offsetof(struct request, bytes) + bytes),
            .nlmsg_type = RTM_DELADDR,
            .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
        },
        .address = { .ifa_family = address->family, .ifa_prefixlen = prefix, .ifa_index = (unsigned)index },
        .attribute = { .rta_len = (uint16_t)RTA_LENGTH(bytes), .rta_type = IFA_LOCAL },
    };

    if (address->family == AF_INET && prefix < 32)
        spare_other_addresses(index);
    memcpy(request.bytes, address->bytes, bytes);
    change(&request.header);
}

/* The interface's number; 0 when it cannot be had, which then matches no listed address. */
static int index_of(const char *interface)
{
    struct ifreq request;

    memset(&request, 0, sizeof request);
    memcpy(request.ifr_name, interface, strlen(interface) + 1);
    return ioctl(dropper.delete_fd, SIOCGIFINDEX, &request) == 0 ? request.ifr_ifindex : 0;
}

static bool same(const struct address *address, uint8_t family, const void *bytes, int index)
{
    return address->family == family && memcmp(address->bytes, bytes, address_size(address)) == 0
        && (!address_is_local_to_link(address) || index_of(address->interface) == index);
}

static void compare_listed(const struct ifaddrmsg *listed, const void *bytes)
{
    for (int i = 0; i < DROPPER_SLOTS; i++) {
        struct slot *slot = &dropper.slot[i];
        if (!slot->listing)
            continue;
        for (unsigned j = 0; j < slot->count; j++) {
            if (!same(&slot->address[j], listed->ifa_family, bytes, (int)listed->ifa_index))
                continue;
            slot->seen = true;
            delete_listed(&slot->address[j], (int)listed->ifa_index, listed->ifa_prefixlen);
        }
    }
}

static void read_listed(const struct nlmsghdr *header)
{
    const struct ifaddrmsg *listed = NLMSG_DATA(header);
    size_t bytes = listed->ifa_family == AF_INET ? 4 : listed->ifa_family == AF_INET6 ? 16 : 0;
    const struct rtattr *own = NULL;
    int left = (int)header->nlmsg_len - (int)NLMSG_LENGTH(sizeof *listed);

    /* IFA_LOCAL is the host's own end; IPv6 gives it only where there is another end. */
    for (const struct rtattr *at = IFA_RTA(listed); left > 0 && RTA_OK(at, left); at = RTA_NEXT(at, left))
        if (RTA_PAYLOAD(at) == bytes && (at->rta_type == IFA_LOCAL || (at->rta_type == IFA_ADDRESS && own == NULL)))
            own = at;
    if (bytes > 0 && own != NULL)
        compare_listed(listed, RTA_DATA(own));
}

/* One listing of all addresses, each compared with what is asked; false when it was not whole. */
static bool list_once(void)
{
    static _Alignas(struct nlmsghdr) char answer[LISTING_BYTES];
    static uint32_t sequence;
    bool whole = true;
    struct request request = {
        .header = {
            .nlmsg_len = NLMSG_LENGTH(sizeof(struct ifaddrmsg)),
            .nlmsg_type = RTM_GETADDR,
            .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
            .nlmsg_seq = ++sequence,
        },
    };

    if (!request_send(dropper.list_fd, &request.header))
        return false;
    for (;;) {
        ssize_t got = recv(dropper.list_fd, answer, sizeof answer, MSG_TRUNC);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 || got > (ssize_t)sizeof answer)
            return false;
        unsigned left = (unsigned)got;
        for (const struct nlmsghdr *header = (const void *)answer; NLMSG_OK(header, left);
             header = NLMSG_NEXT(header, left)) {
            if (header->nlmsg_seq != sequence)
                continue;
            whole = whole && (header->nlmsg_flags & NLM_F_DUMP_INTR) == 0;
            if (header->nlmsg_type == NLMSG_ERROR)
                return false;
            if (header->nlmsg_type == NLMSG_DONE)
                return whole;
            if (header->nlmsg_type == RTM_NEWADDR && header->nlmsg_len >= NLMSG_LENGTH(sizeof(struct ifaddrmsg)))
                read_listed(header);
        }
    }
}

/* Takes up what is asked by now: what is asked later, a listing under way may have passed by already. */
static int take_up(void)
{
    int taken = 0;

    for (int i = 0; i < DROPPER_SLOTS; i++) {
        struct slot *slot = &dropper.slot[i];
        slot->seen = false;
        slot->listing = atomic_load_explicit(&slot->phase, memory_order_acquire) == DROP_ASKED;
        taken += slot->listing;
    }
    return taken;
}

/* Answers every slot that a whole listing did not show, and on the last pass the others too. */
static void answer(bool whole, bool last)
{
    for (int i = 0; i < DROPPER_SLOTS; i++) {
        struct slot *slot = &dropper.slot[i];
        if (slot->listing && whole && !slot->seen)
            atomic_store_explicit(&slot->phase, DROP_GONE, memory_order_release);
        else if (slot->listing && last)
            atomic_store_explicit(&slot->phase, DROP_LEFT, memory_order_release);
    }
}

static void *work(void *unused)
{
    (void)unused;
    for (;;) {
        while (sem_wait(&dropper.asked) != 0)
            continue;
        for (int pass = 1; take_up() > 0; pass++)
            answer(list_once(), pass >= MOST_PASSES);
    }
    return NULL;
}

bool dropper_start(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int error;

    dropper.list_fd = netlink_socket(0, 0);
    dropper.delete_fd = netlink_socket(0, 0);
    dropper.news_fd = netlink_socket(SOCK_NONBLOCK, RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR);
    if (dropper.list_fd < 0 || dropper.delete_fd < 0 || dropper.news_fd < 0)
        return false;
    if (sem_init(&dropper.asked, 0, 0) != 0)
        return false;
    error = pthread_attr_init(&attributes);
    if (error == 0)
        error = pthread_attr_setstacksize(&attributes, STACK_BYTES);
    if (error == 0)
        error = pthread_create(&thread, &attributes, work, NULL);
    errno = error;
    return error == 0;
}

void dropper_ask(int slot, const struct address addresses[], unsigned count)
{
    struct slot *asked = &dropper.slot[slot];

    assert(slot >= 0 && slot < DROPPER_SLOTS && count <= DROPPER_ADDRESSES);
    assert(dropper_answer(slot) != DROP_ASKED);
    memcpy(asked->address, addresses, count * sizeof addresses[0]);
    asked->count = count;
    atomic_store_explicit(&asked->phase, DROP_ASKED, memory_order_release);
    /* It can only fail by counting too far, and then the thread is awake. */
    (void)sem_post(&dropper.asked);
}

enum drop dropper_answer(int slot)
{
    return (enum drop)atomic_load_explicit(&dropper.slot[slot].phase, memory_order_acquire);
}

void dropper_forget(int slot)
{
    assert(dropper_answer(slot) != DROP_ASKED);
    atomic_store_explicit(&dropper.slot[slot].phase, DROP_IDLE, memory_order_relaxed);
}

int dropper_news_fd(void)
{
    return dropper.news_fd;
}

void dropper_news_drain(void)
{
    char message[256];

    /* ENOBUFS says that some were lost; whoever drains looks at everything anyway. */
    for (int messages = 0; messages < 1000; messages++)
        if (recv(dropper.news_fd, message, sizeof message, MSG_DONTWAIT) < 0 && errno != EINTR && errno != ENOBUFS)
            return;
}

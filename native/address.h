/* One IP address that a workload uses on one interface: its written form, and whether it is the one that the
 * kernel lists. Nothing here talks to the kernel. */
#ifndef OUTLIVE_ADDRESS_H
#define OUTLIVE_ADDRESS_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct address {
    uint8_t family; /* AF_INET or AF_INET6 */
    uint8_t prefix;
    uint8_t bytes[16];
    char interface[IF_NAMESIZE];
};

enum { ADDRESS_TEXT_BYTES = 80 };

/* Reads ADDRESS/PREFIX%INTERFACE, spoiling `text`. Null when it is valid; else the reason why not. */
const char *address_parse(char *text, struct address *address);
void address_print(const struct address *address, char text[ADDRESS_TEXT_BYTES]);

/* 4 or 16 */
size_t address_size(const struct address *address);

/* An address that means something on its own interface alone: fe80::/10 and 169.254.0.0/16. */
bool address_is_local_to_link(const struct address *address);

#endif

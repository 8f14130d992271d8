#include "address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "process.h"

const char *address_parse(char *text, struct address *address)
{
    char *interface = strchr(text, '%');
    char *prefix = strchr(text, '/');
    uint64_t length;

    memset(address, 0, sizeof *address);
    if (interface == NULL || prefix == NULL || prefix > interface)
        return "an address is written ADDRESS/PREFIX%INTERFACE";
    *prefix++ = '\0';
    *interface++ = '\0';
    if (inet_pton(AF_INET, text, address->bytes) == 1)
        address->family = AF_INET;
    else if (inet_pton(AF_INET6, text, address->bytes) == 1)
        address->family = AF_INET6;
    else
        return "the address is neither IPv4 nor IPv6";
    if (!number_parse(prefix, address->family == AF_INET ? 32 : 128, &length))
        return "the prefix length is no number that fits";
    address->prefix = (uint8_t)length;
    size_t named = strlen(interface);
    if (named < 1 || named >= IF_NAMESIZE || strpbrk(interface, "/%:") != NULL)
        return "the interface's name is not valid";
    for (size_t i = 0; i < named; i++)
        if (interface[i] <= ' ' || interface[i] > '~')
            return "the interface's name is not valid";
    memcpy(address->interface, interface, named + 1);
    return NULL;
}

void address_print(const struct address *address, char text[ADDRESS_TEXT_BYTES])
{
    char plain[INET6_ADDRSTRLEN];

    if (inet_ntop(address->family, address->bytes, plain, sizeof plain) == NULL)
        plain[0] = '\0';
    snprintf(text, ADDRESS_TEXT_BYTES, "%s/%u%%%s", plain, address->prefix, address->interface);
}

size_t address_size(const struct address *address)
{
    return address->family == AF_INET ? 4 : 16;
}

bool address_is_local_to_link(const struct address *address)
{
    if (address->family == AF_INET)
        return address->bytes[0] == 169 && address->bytes[1] == 254;
    return address->bytes[0] == 0xfe && (address->bytes[1] & 0xc0) == 0x80;
}

#define _GNU_SOURCE
#include "armed.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "process.h"

/* A boot id, 19 digits, 10 digits, parted by spaces, and a newline. */
enum { OVER_AT = BOOT_ID_BYTES + 1, TIMEOUT_AT = OVER_AT + 19 + 1, LINE_BYTES = TIMEOUT_AT + 10 + 1 };

/* Of this start of the kernel; null when it does not tell. */
static const char *own_boot_id(void)
{
    static char id[BOOT_ID_BYTES + 1];

    return id[0] != '\0' || boot_id_read(id) ? id : NULL;
}

bool armed_read(const char *path, struct armed *armed)
{
    char line[LINE_BYTES + 2];
    const char *boot_id = own_boot_id();
    uint64_t over_ns, timeout_s;

    *armed = (struct armed){ 0 };
    ssize_t size = file_read(AT_FDCWD, path, line, sizeof line);
    if (size < 0)
        return errno != ENOENT;
    if (size != LINE_BYTES || boot_id == NULL)
        return true;
    line[OVER_AT - 1] = line[TIMEOUT_AT - 1] = line[LINE_BYTES - 1] = '\0';
    if (strlen(line) != BOOT_ID_BYTES)
        return true;
    if (strcmp(line, boot_id) != 0)
        return false;
    if (number_parse(line + OVER_AT, INT64_MAX, &over_ns) && number_parse(line + TIMEOUT_AT, INT_MAX, &timeout_s)) {
        armed->over_ns = (int64_t)over_ns;
        armed->timeout_s = (int)timeout_s;
    }
    return true;
}

bool armed_write(const char *path, struct armed armed)
{
    char line[LINE_BYTES + 1];
    const char *boot_id = own_boot_id();

    if (boot_id == NULL)
        return false;
    snprintf(line, sizeof line, "%s %019lld %010d\n", boot_id, (long long)armed.over_ns, armed.timeout_s);
    int fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    bool whole = pwrite(fd, line, LINE_BYTES, 0) == LINE_BYTES && ftruncate(fd, LINE_BYTES) == 0;
    close(fd);
    return whole;
}

bool armed_remove(const char *path)
{
    return unlink(path) == 0 || errno == ENOENT;
}

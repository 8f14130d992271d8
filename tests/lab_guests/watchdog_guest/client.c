/* Speaks with a guard in a guest that has little else: client SOCKET MESSAGE… Each message is sent and its answer
 * printed, after the greeting; a word +N in one stands for N milliseconds from now on the boot clock, in nanoseconds. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void hear(int guard)
{
    char text[8192];
    ssize_t size = recv(guard, text, sizeof text - 1, 0);

    if (size <= 0)
        exit(1);
    text[size] = '\0';
    puts(text);
}

static void say(int guard, const char *message)
{
    char text[4096] = "";
    char word[1024];
    int64_t from_ns = now_ns();

    for (int used; sscanf(message, " %1023s%n", word, &used) == 1; message += used) {
        size_t at = strlen(text);
        const char *gap = at > 0 ? " " : "";
        if (word[0] == '+')
            snprintf(text + at, sizeof text - at, "%s%lld", gap, (long long)(from_ns + atoll(word + 1) * 1000000));
        else
            snprintf(text + at, sizeof text - at, "%s%s", gap, word);
    }
    printf("asked %s\n", text);
    if (send(guard, text, strlen(text), 0) < 0)
        exit(1);
    hear(guard);
}

int main(int count, char *words[])
{
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    int guard = socket(AF_UNIX, SOCK_SEQPACKET, 0);

    if (count < 2 || guard < 0)
        return 2;
    strncpy(name.sun_path, words[1], sizeof name.sun_path - 1);
    for (int tries = 0; connect(guard, (struct sockaddr *)&name, sizeof name) != 0; tries++) {
        if (tries == 1000)
            return 1;
        usleep(10000);
    }
    hear(guard);
    for (int i = 2; i < count; i++)
        say(guard, words[i]);
    return 0;
}

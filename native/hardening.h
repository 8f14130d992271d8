/* Everything that could end a guard or make it late, as far as the kernel lets us keep it away. */
#ifndef OUTLIVE_HARDENING_H
#define OUTLIVE_HARDENING_H

#include <stdbool.h>
#include <stddef.h>

/* What the kernel did not let us have is said in `told`: memory=… priority=… oom=… */
void harden(int priority, char *told, size_t size);

/* So that no page of the stack has to be found at the moment of firing. */
void stack_touch(void);

/* Every signal that can be held back is read from this descriptor, and most of them are then ignored; -1: failed. */
int signals_hold(void);

#endif

"""One host's agent: the only place where decisions meet the world.

`agent` feeds the two machines of `cluster` one event at a time; `observe` turns what happens into those
events and `perform` turns the commands that come back into deeds. Nothing is decided in this room: what
should happen is said by the machines alone, and what is in force on this host is known by the guard, the
runners and the kernel.
"""

"""The cluster's decisions in a simulated world: virtual time, seeded chance, faults on a schedule, and checkers.

`world` runs the very machines of `outlive.cluster`, unchanged, for any number of hosts. Each other part of a world is
a small file: agenda, clock, network, store, datastore, guard, runtime, agent, host. What goes wrong and when are
values (`faults`), drawn from the seed (`chance`) or read from a file (`scenario`); what must hold is in
`checkers`. Nothing here reads a real clock but `campaign`, which only measures how fast simulations are; one seed gives
one run, byte for byte, in any process.
"""

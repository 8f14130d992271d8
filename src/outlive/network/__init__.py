"""The network room: the addresses that move with workloads, machines' cards, and what the links under them do.

`virtual_ip` is the door for addresses, `tap` for machines' cards, `overlay` for virtual networks, `link_watch` for
links; the other files are their parts. Nothing here decides which host holds an address or runs a machine: that is
the claim's, and the caller's.
"""

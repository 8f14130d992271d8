"""The network room: the addresses that move with workloads, and what the links under them do.

`virtual_ip` is the door for addresses, `link_watch` for links; the other files are their parts. Nothing here
decides which host holds an address: that is the claim's, and the caller's.
"""

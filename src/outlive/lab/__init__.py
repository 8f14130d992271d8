"""A cluster of hosts on this one machine, and ways to break them.

Each host is a network namespace with its own agent, data folder, address and control group; bridges join them, a
shared folder is their datastore, and one more namespace is where clients are. Everything is real: the same agents,
guards and programs as on machines of their own, killed and cut off for real. Nothing here decides anything for
a cluster; it only prepares, breaks and clears up.
"""

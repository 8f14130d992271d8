"""Starting, watching and stopping what runs: one workload at one generation on this host.

`base` says what any runtime does; `runner` and `cgroup` are the ground that runtimes stand on: a parent for each
module that outlives the agent, and a place in which nothing of it can hide. What should run is decided elsewhere.
"""

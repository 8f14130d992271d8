"""Datastores: folders on storage that several hosts share.

A datastore holds each host's heartbeat slot and module table, the list of protected workloads, run locks and the
workloads' data folders. `datastore` is what the agent uses: it never blocks, since every file operation happens
in a `worker` process that can be abandoned when the storage hangs. `folder` is the only place that touches the
files, by way of `opening`; `slots`, `tables` and `protected` are what stands in them; `locks` keeps run locks.
"""

"""The cluster's small consistent memory: keys with revisions, leases and watches.

`base` says what any store promises, in terms that etcd v3 can keep; `sqlite` is the default on one machine,
one file shared by every agent there. What the keys mean is `cluster.records`; no decision is made here.
"""

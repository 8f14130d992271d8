"""Virtual machines: QEMU as the one module of a workload, from its command line to its last event."""

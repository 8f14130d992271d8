"""Configuration files: what a user writes, as values, and every mistake in them with its line and its fix.

`workload_file` and `agent_file` are what others use. Each file's keys are told once, in `workload_shape` and
`agent_shape`: what reads a file, its JSON Schema and its reference in docs/ are all made from that. Nothing here
looks at the machine, except for opening the file that it is asked to read.
"""

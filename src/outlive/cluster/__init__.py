"""The nouns of a cluster and every decision made about them.

Nothing in this room opens a socket or file, reads a clock, starts a thread or draws a random number:
time and randomness come in as arguments, and what should happen goes out as commands. The agent, the
simulator, dry runs and tests all run these same functions. Importing anything of the project from
outside this room (but for `outlive.errors`) is an error that the linter finds.
"""

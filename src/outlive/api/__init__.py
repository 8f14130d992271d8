"""The HTTP API of one agent: what the command line and other agents talk to.

It shows what the agent's picture of the store says and hands wishes in as records of the store; it decides nothing and
performs nothing itself. Local users reach it by a Unix socket, other agents by TLS with certificates both ways.
"""

"""Guests for labs, made from Debian packages on this machine and kept: a tiny one that boots in seconds, a real one.

Also the programs that ask them something over connections that stay open, and what those programs' records prove.
Nothing here starts a virtual machine, and nothing is installed on the host: packages are taken apart in a folder.
"""

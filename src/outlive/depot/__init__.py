"""Where one host keeps configuration packages: components by their hash, packages made of them, and what is installed.

Everything here blocks and is to be called in threads. Nothing here decides which package belongs where, and nothing
here talks to another host: `shelf` says what is missing and takes it in, piece by piece, from whoever brings it.
"""

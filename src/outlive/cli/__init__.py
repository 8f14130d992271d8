"""The command line: one file a command, each with a click command named `command`.

What a command does lives elsewhere; here its words are read, the work is asked for, and its result
is shown. Nothing is imported here, and `main` imports a command's file only when that command was
named: every command starts as quickly as the lightest.
"""

"""Making sure that a host no longer acts.

`guard` speaks to the small program on each host that fences its own host when its claim ends. Which claim that is,
and until when, is decided elsewhere; the fencing itself is done by the program, with or without us.
"""

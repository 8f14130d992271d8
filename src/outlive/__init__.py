"""Outlive keeps Linux workloads running when the machine under them dies.

Only the version lives here, and it agrees with pyproject.toml: importing the package must stay
free of cost, since every command pays for it.
"""

__version__ = "0.1.0"

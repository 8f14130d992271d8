"""`outlive drain HOST`: the word that many expect for `outlive maintenance on HOST`."""

from .maintenance import on as command

__all__ = ["command"]

"""Users by name: who they are in numbers, asked in a thread, since a directory service may hang.

Only looking up; nothing is created or changed.
"""

import asyncio
import os
import pwd

from outlive.errors import Failed

from .runner import Account

KNOWN_WITHIN_S = 5.0


class UserUnknown(Failed):
    """A module is to run as a user that this host does not have."""

    id = "module.user-unknown"


async def account(name: str) -> Account:
    """The user's number and groups. Raises UserUnknown."""
    try:
        async with asyncio.timeout(KNOWN_WITHIN_S):
            return await asyncio.to_thread(_look_up, name)
    except (KeyError, TimeoutError) as error:
        cause = "" if isinstance(error, KeyError) else f"no answer within {KNOWN_WITHIN_S:g} s"
        raise UserUnknown(
            f"This host has no user {name}.", cause=cause, remedy="create the user on every host that may run it"
        ) from error


def _look_up(name: str) -> Account:
    entry = pwd.getpwnam(name)
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return Account(entry.pw_uid, entry.pw_gid, tuple(group for group in groups if group != entry.pw_gid))

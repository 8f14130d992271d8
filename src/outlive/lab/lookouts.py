"""Threads that look at a lab for as long as a block lasts, and of which none may end unheard.

What they look at is `watching`'s and `speaking`'s. Nobody may take not looking for seeing nothing.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from outlive.errors import Failed

END_S = 60.0


@contextmanager
def looking(failed: str, looks: Iterable[Callable[[threading.Event], None]]) -> Iterator[None]:
    """Run each look in a thread of its own; each returns once the event that it is given is set.

    failed: the sentence of the Failed that is raised at the block's end when one of them had ended by an error.
    """
    stop = threading.Event()
    errors: list[Exception] = []

    def run(look: Callable[[threading.Event], None]) -> None:
        try:
            look(stop)
        except Exception as error:
            errors.append(error)  # whatever it is

    threads = [threading.Thread(target=run, args=(look,), daemon=True) for look in looks]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(END_S)
    if errors:
        raise Failed(failed, cause=str(errors[0])) from errors[0]

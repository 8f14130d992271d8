"""Why an emulator ended, in a sentence, from how it ended and the last lines that it wrote. Pure."""

from collections.abc import Sequence

from outlive.runtime.runner import Exit

_LOCKED = 'Failed to get "write" lock'
_SHARED_LOCKED = "Failed to get shared"
_MOST_SAID = 300


def why_not(lines: Sequence[str], ended: Exit) -> str:
    """Return what follows "the module", as `Exit.sentence` does.

    lines: the last that the emulator wrote in this run, oldest first.
    """
    sentence = ended.sentence()
    if ended.signal is not None or ended.error or not ended.code:
        return f"it {sentence}"
    said = [line for line in lines if line.startswith("qemu")]
    if not said:
        return f"it {sentence}"
    if any(_LOCKED in line or _SHARED_LOCKED in line for line in said[-2:]):
        return "it cannot have its disk: another program holds the lock of the same image and may be running it"
    return f"it {sentence}: {said[-1].partition(': ')[2][:_MOST_SAID]}"

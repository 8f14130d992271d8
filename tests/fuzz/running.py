"""Searching with one target: guided by atheris where there is one, by chance alone elsewhere.

Guided, inputs that reach new code are kept and gone on from, in `.setup/fuzz/NAME/corpus`, which only makes the next
search begin where this one ended. An input that is a finding is written to `.setup/fuzz/NAME`; whoever mends what it
shows puts it into `tests/fuzz/found/NAME`, from where every run of the tests gives it to the target.
"""

import importlib
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from random import Random

from .mutating import mutated
from .target import Target

FOUND = Path(__file__).parent / "found"
SLOWEST_S = 20
MOST_MIB = 2048


def seeds(target: Target) -> tuple[bytes, ...]:
    """What a search begins from: valid inputs, and those that were once a finding."""
    folder = FOUND / target.name
    return (*target.seeds(), *(path.read_bytes() for path in sorted(folder.glob("*"))))


def inputs(target: Target, random: Random) -> Iterator[bytes]:
    """Changed inputs without end: of the seeds, and of what was just made of them."""
    known = seeds(target)
    while True:
        data = random.choice(known)
        for _ in range(random.randrange(1, 4)):
            data = mutated(data, random, text=target.text, others=known)
            yield data


def by_chance(target: Target, folder: Path, seconds: float, seed: int) -> int:
    """Search for so long without guidance; how many inputs were tried. Raises what is found, and keeps its input."""
    until, tried = time.monotonic() + seconds, 0
    for data in inputs(target, Random(seed)):
        if time.monotonic() > until:
            break
        tried += 1
        try:
            target.offer(data)
        except BaseException:
            (folder / f"crash-{sha256(data).hexdigest()[:16]}").write_bytes(data)
            raise
    return tried


def guided(name: str, folder: Path, seconds: float, seed: int) -> None:
    """Search for so long by what inputs reach; ends the process. Its last lines, on stderr, are libFuzzer's."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["outlive", "json", "tomllib", "tarfile"]):
        target: Target = importlib.import_module("tests.fuzz.targets").TARGETS[name]
    known = seeds(target)
    corpus, begin = folder / "corpus", folder / "seeds"
    for place in (corpus, begin):
        place.mkdir(parents=True, exist_ok=True)
    for data in known:
        (begin / sha256(data).hexdigest()[:16]).write_bytes(data)

    def change(data: bytes, most_bytes: int, number: int) -> bytes:
        # What is decoded by C shows nothing of its inside, and the corpus fills up with what it refuses at once: so
        # half of all inputs are made of valid ones, whatever the search thinks of them.
        random = Random(number)
        how = random.random()
        if how < 0.25:
            return bytes(atheris.Mutate(data, most_bytes))
        data = data if how < 0.5 else random.choice(known)
        return mutated(data, random, text=target.text, others=known)[:most_bytes]

    options = [
        f"-max_total_time={max(1, int(seconds))}", f"-seed={seed or 1}", f"-max_len={target.most_bytes}",
        f"-timeout={SLOWEST_S}", f"-rss_limit_mb={MOST_MIB}", f"-artifact_prefix={folder}/", "-print_final_stats=1",
        "-verbosity=0", "-len_control=0", str(corpus), str(begin),
    ]  # fmt: skip
    sys.setrecursionlimit(1000)
    atheris.Setup([sys.argv[0], *options], target.offer, custom_mutator=change)
    atheris.Fuzz()

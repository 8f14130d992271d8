"""What C reads from outside holds under sanitizers: valid inputs, what was once found, and many changed by chance."""

from pathlib import Path

import pytest

from .. import sanitized
from . import native

TRIES = 5_000
BROKEN = """
#include "target.h"
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = copied(data, size);
    int found = size > 3 && copy[0] == 'a' && copy[size + (copy[1] == 0)] == 'b';
    free(copy);
    return found;
}
"""


@pytest.mark.parametrize("name", native.TARGETS)
def test_nothing_that_is_read_in_c_breaks_it(name: str, tmp_path: Path) -> None:
    program, files = native.build(name, tmp_path), native.seeds(name, tmp_path / "seeds")
    ended = native.drive(program, files, TRIES, 1, tmp_path / "crash")
    assert ended.returncode == 0, ended.stderr[-6000:]
    assert ended.stdout == f"tried {TRIES + len(files)}\n"


def test_a_byte_read_behind_an_input_is_found_and_the_input_kept(tmp_path: Path) -> None:
    source, seed = tmp_path / "broken.c", tmp_path / "seed"
    source.write_text(BROKEN)
    seed.write_bytes(b"aaaa")
    sources = [source, native.HERE / "c" / "driver.c"]
    program = sanitized.build(tmp_path / "broken", sources, f"-I{native.HERE / 'c'}")
    ended = native.drive(program, [str(seed)], TRIES, 1, tmp_path / "crash")
    assert "heap-buffer-overflow" in ended.stderr
    kept = native.drive(program, [str(tmp_path / "crash")], 0, 1, tmp_path / "again")
    assert kept.returncode != 0

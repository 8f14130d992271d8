"""Changed inputs: bytes turned, cut and doubled, and texts (JSON, TOML, XML) changed token by token.

Changing a valid text by tokens keeps it close enough to valid to get past the first look: a number becomes one that
fits nowhere, a string one that is no text, a value thousands of lists within each other, a key comes twice. Whoever
guides a search (`running`) chooses which of these inputs to go on from; here is only chance, and the same seed gives
the same input.
"""

import re
from random import Random

_TOKEN = re.compile(rb'"(?:[^"\\\n]|\\.)*"|[A-Za-z_][\w-]*|[-+]?\d[\w.+-]*|\s+|.', re.DOTALL)

DEEP = 5000
"""More lists within each other than Python has frames."""

_LISTS, _OBJECTS = b"[" * DEEP, b'{"a":' * DEEP
ODD_TOKENS = (
    b"0", b"-1", b"-0", b"1e999", b"-1e999", b"1e-999", b"0.1", b"1" + b"0" * 400, b"9" * 5000, b"4294967296",
    b"2147483648", b"9223372036854775807", b"9223372036854775808", b"18446744073709551616", b"0x7fffffffffffffff",
    b"NaN", b"nan", b"inf", b"-Infinity", b"null", b"true", b"false", b"{}", b"[]", b'""', b'"."', b'"../../x"',
    b'"/etc/passwd"', b'"%s%n"', b'"\\u0000"', b'"\0"', b'"\\ud800"', b'"\\udfff\\ud800"', b'"\\n"', b'"\xff\xfe"',
    b'"\xed\xa0\x80"', b'"\xe2\x80\xae"', b'"' + b"a" * 70_000 + b'"', _LISTS, _LISTS + b"]" * DEEP, _OBJECTS,
    _OBJECTS + b"1" + b"}" * DEEP, b"a." * DEEP, b"\xff", b"\0", b"\r", b"]", b"}", b",", b":", b"=",
    b"1979-05-27T07:32:00Z",
)  # fmt: skip
ODD_BYTES = (
    b"\0", b"\xff", b"\xff\xff", b"\xff" * 4, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\xff" * 7 + b"\x7f",
    b"\x80" + bytes(7), bytes(8), b"\x7f\xf0" + bytes(6), b"\x7f\xf8" + bytes(6), bytes(6) + b"\xf0\x7f",
    b"\x01\0\0\0", b"\0\0\0\x01", bytes(64),
)  # fmt: skip


def mutated(data: bytes, random: Random, *, text: bool, others: tuple[bytes, ...] = ()) -> bytes:
    """One input that is like `data`. others: what pieces may be taken from."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
        data = _token_changed(data, random) if text and random.random() < 0.7 else _bytes_changed(data, random, others)
    return data


def _token_changed(data: bytes, random: Random) -> bytes:
    tokens = _TOKEN.findall(data)
    if not tokens:
        return random.choice(ODD_TOKENS)
    words = [at for at, token in enumerate(tokens) if not token.isspace()] or [0]
    at, other = random.choice(words), random.choice(words)
    match random.randrange(8):
        case 0 | 1 | 2:
            tokens[at] = random.choice(ODD_TOKENS)
        case 3:
            tokens[at] = tokens[other]
        case 4:
            del tokens[min(at, other) : min(at, other) + random.randrange(1, 6)]
        case 5:
            first, last = sorted((at, other))
            tokens[first:first] = tokens[first : min(last, first + 40)]  # a key, or a whole part, twice
        case 6:
            openings = [place for place in words if tokens[place] == b"{"] or [at]
            tokens.insert(random.choice(openings) + 1, b'"unknown":' + random.choice(ODD_TOKENS) + b",")
        case _:
            tokens.insert(at, random.choice(ODD_TOKENS))
    return b"".join(tokens)


def _bytes_changed(data: bytes, random: Random, others: tuple[bytes, ...]) -> bytes:
    out = bytearray(data)
    at = random.randrange(len(out) + 1)
    match random.randrange(7):
        case 0 if out:
            out[at % len(out)] ^= 1 << random.randrange(8)
        case 1:
            odd = random.choice(ODD_BYTES)
            out[at : at + len(odd)] = odd
        case 2:
            out[at:at] = random.choice(ODD_BYTES)
        case 3:
            del out[at : at + random.choice((1, 2, 4, 8, 16, 100, len(out)))]
        case 4:
            out[at:at] = out[at : at + random.choice((1, 4, 16, 100, 1000))]
        case 5 if others:
            other = random.choice(others)
            begin = random.randrange(len(other) + 1)
            out[at : at + random.randrange(64)] = other[begin : begin + random.randrange(1, 200)]
        case _:
            size = random.choice((1, 2, 4, 8))
            value = random.choice((0, 1, len(out), len(out) - at, 2 ** (8 * size) - 1, random.getrandbits(8 * size)))
            out[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, random.choice(("big", "little")))
    return bytes(out)

"""Recordings, broken in as many ways as chance finds: what a parser must survive."""

import random

ROUNDS = 10_000

SCRAPS = (
    "|", "/", ":", " ", "\n", "\t", "-", "NA", "0", "-1", "101", "1e400", "nan", "99999999999999",
    "٣", "½", "\x00", "\x85", "é", "{", "}", '"', "\\", "#", "max", "OK", "Process id:", "Chip ID",
)  # fmt: skip


def broken(texts, seed):
    """`ROUNDS` texts: each a recording with up to four changes, the first ones unchanged."""
    chance = random.Random(seed)
    yield from texts
    for _ in range(ROUNDS - len(texts)):
        text = chance.choice(texts)
        for _ in range(chance.randint(1, 4)):
            text = _change(chance, text, texts)
        yield text


def _change(chance, text, texts):
    at = chance.randint(0, len(text))
    to = min(len(text), at + chance.choice((1, 1, 2, 8, 80)))
    lines = text.split("\n")
    line = chance.randrange(len(lines))
    match chance.randrange(8):
        case 0:
            return text[:at] + text[to:]
        case 1:
            return text[:at] + chance.choice(SCRAPS) + text[at:]
        case 2:
            return text[:at] + chance.choice(SCRAPS) + text[to:]
        case 3:
            return "\n".join(lines[:line] + lines[line + 1 :])
        case 4:
            return "\n".join(lines[: line + 1] + lines[line:])
        case 5:
            return text[:at]
        case 6:
            other = chance.choice(texts).split("\n")
            return "\n".join([*lines[:line], chance.choice(other), *lines[line:]])
        case _:
            return "\n".join([*lines[:line], lines[line].replace(" ", "", 3), *lines[line + 1 :]])

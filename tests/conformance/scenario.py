"""The format of the scenarios: commands with arguments, ``----``, and what must come out (the datadriven format)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

_WORD = re.compile(r"""(?P<key>[^\s=(]+) (?: = (?: \( (?P<list>[^)]*) \) | (?P<value>\S*) ) )?""", re.VERBOSE)


class Step(Struct, frozen=True):
    """Some lines and what they must print. ``line`` counts from 1."""

    line: int
    commands: tuple[str, ...]
    expected: tuple[str, ...]


class Words(Struct, frozen=True):
    """A command line: its name, the words without a value, and the others."""

    name: str
    plain: tuple[str, ...]
    named: dict[str, tuple[str, ...]]

    def number(self, at: int) -> int:
        return int(self.plain[at])

    def one(self, name: str, default: str) -> str:
        return self.named.get(name, (default,))[0]

    def flag(self, name: str) -> bool:
        return self.one(name, "false") == "true"


def words(line: str) -> Words:
    name, _, rest = line.partition(" ")
    plain: list[str] = []
    named: dict[str, tuple[str, ...]] = {}
    for match in _WORD.finditer(rest):
        if match["list"] is not None:
            named[match["key"]] = tuple(part.strip() for part in match["list"].split(",") if part.strip())
        elif match["value"] is not None:
            named[match["key"]] = (match["value"],)
        else:
            plain.append(match["key"])
    return Words(name, tuple(plain), named)


def steps(text: str) -> Iterator[Step]:
    """Output ends with an empty line; output that has some itself stands between doubled ``----``."""
    lines = text.splitlines()
    at = 0
    commands: list[str] = []
    first = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if line == "----":
            end = ""
            if at < len(lines) and lines[at] == "----":
                end, at = "----", at + 1
            expected: list[str] = []
            while at < len(lines) and lines[at] != end:
                expected.append(lines[at])
                at += 1
            at += 2 if end else 1
            yield Step(first, tuple(commands), tuple(expected))
            commands = []
        elif line.strip() and not line.startswith("#"):
            first = first if commands else at
            commands.append(line)

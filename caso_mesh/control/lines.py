"""Where things stand in a TOML file: the library that reads it does not say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

_HEADER = re.compile(r"\s*\[(\[?)\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""\s*((?:[\w-]+|"(?:[^"\\]|\\.)*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"(?:[^"\\]|\\.)*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[\w-]+|"(?:[^"\\]|\\.)*"|'[^']*'""")
_STRING = re.compile(r'"""|' + r"'''" + r'|"(?:[^"\\]|\\.)*"|' + r"'[^']*'" + r"|#.*|[\[\]{}]")

Path = tuple[str, ...]


class Lines:
    """Line numbers (from 1) of the tables and keys of a file."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._starts: dict[Path, int] = {}
        self._tables: list[tuple[int, Path]] = []
        self._read()

    def of(self, path: Path) -> int:
        """The line of a table or key; of the nearest one above it, if it has none of its own."""
        while path:
            if path in self._starts:
                return self._starts[path]
            path = path[:-1]
        return 1

    def of_value(self, path: Path, values: Iterable[object]) -> int:
        """The first line below ``path`` in which one of some values stands, else that of ``path``."""
        start = self.of(path)
        end = next(
            (at for at, table in self._tables if at > start and table[: len(path)] != path), len(self._lines) + 1
        )
        for value in values:
            wanted = str(value)
            for number in range(start, end) if wanted else ():
                line = self._lines[number - 1]
                if wanted in line.partition("=")[2] or (wanted in line and "=" not in line):
                    return number
        return start

    def _read(self) -> None:
        table: Path = ()
        depth, inside = 0, ""
        for number, line in enumerate(self._lines, 1):
            if not depth and not inside:
                header, key = _HEADER.match(line), _KEY.match(line)
                if header is not None:
                    table = _parts(header[2])
                    for length in range(1, len(table) + 1):
                        self._starts.setdefault(table[:length], number)
                    self._tables.append((number, table))
                    continue
                if key is not None:
                    self._starts.setdefault(table + _parts(key[1]), number)
                    line = line[key.end() :]
            depth, inside = _open(line, depth, inside)


def _parts(text: str) -> Path:
    return tuple(json.loads(part) if part[0] == '"' else part.strip("'") for part in _PART.findall(text))


def _open(line: str, depth: int, inside: str) -> tuple[int, str]:
    """How many brackets are open after a line, and in which long text it ends."""
    at = 0
    while at < len(line):
        if inside:
            end = line.find(inside, at)
            if end < 0:
                return depth, inside
            at, inside = end + 3, ""
            continue
        found = _STRING.search(line, at)
        if found is None:
            break
        at = found.end()
        match found[0]:
            case '"""' | "'''":
                inside = found[0]
            case "[" | "{":
                depth += 1
            case "]" | "}":
                depth -= 1
    return max(0, depth), inside

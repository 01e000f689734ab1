"""How a table is made to fit a terminal: what must stay in one piece does, what is prose wraps, and what fits in no way is
shown row by row. Pure: cells in, a layout out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from msgspec import Struct

#: Between two columns.
GAP = 2
#: What ids are shortened to, if they stay apart by it: the time they were made at and twelve bits of chance.
SHORT_ID = 13
#: A column that wraps is not made narrower than this.
_NARROWEST = 18
#: Prose that is shorter than this wraps at any of its spaces.
_SHORT = 24
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\dZ)\Z")
#: An amount and its unit stay together.
_AMOUNT = re.compile(r"[<>~]?[\d.]+ \S+\Z")
_ID = re.compile(r"([a-z2-7]{26})((?:[@/+#].*)?)\Z", re.DOTALL)
_NOTHING = "-"

_Titled = tuple[str, Sequence[str]]


class Layout(Struct, frozen=True):
    """The columns that are left, each with its width in cells; without widths it is shown row by row."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    widths: tuple[int, ...] | None
    #: Columns that have something to say, and no room.
    left_out: tuple[str, ...] = ()


def fit(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    spare: Sequence[str] = (),
    cells: Callable[[str], int] = len,
) -> Layout:
    """The layout of a table on ``width`` cells of a terminal. ``cells``: how many a text takes.

    In turn, until it fits: columns that are empty in every row are left out, ids are shortened to a beginning that is
    unique among them, prose, paths and instants wrap, and the ``spare`` columns are left out one by one.
    """
    columns: Sequence[_Titled] = [(head, [row[place] for row in rows]) for place, head in enumerate(heads)]
    if _total(columns, cells) > width:
        columns = [(head, column) for head, column in columns if any(text != _NOTHING for text in column)] or columns
    if _total(columns, cells) > width:
        columns = [(head, short_ids(column)) for head, column in columns]
    whole = columns
    if _total(columns, cells) > width:
        columns = [(head, [_INSTANT.sub(r"\1 \2", text) for text in column]) for head, column in columns]
    kept, left_out = _spared(columns, spare, width, cells)
    widths = _widths(kept, width, cells)
    columns = whole if widths is None else kept
    left_out = [] if widths is None else left_out
    return Layout(
        tuple(head for head, _ in columns),
        tuple(zip(*(column for _, column in columns), strict=True)),
        None if widths is None else tuple(widths),
        tuple(left_out),
    )


def short_ids(column: Sequence[str]) -> list[str]:
    """The ids in a column by beginnings that are unique in it; what follows an id (a run's time, an attempt's number)
    stays. Other texts as they are."""
    found = [_ID.match(text) for text in column]
    ids = {match[1] for match in found if match}
    size = SHORT_ID
    while size < 26 and len({each[:size] for each in ids}) < len(ids):
        size += 1
    # the second half of an alert's id is the server's: its beginning is enough
    return [
        text if match is None else match[1][:size] + ("" if match[2].startswith("/") else match[2])
        for text, match in zip(column, found, strict=True)
    ]


def _spared(
    columns: Sequence[_Titled], spare: Sequence[str], width: int, cells: Callable[[str], int]
) -> tuple[Sequence[_Titled], list[str]]:
    """The columns without as few as must go, the first of ``spare`` first: one goes only if those after it do not help."""
    there = [head for head in spare if any(head == each for each, _ in columns)]
    gone: list[str] = []
    for head in there:
        if _widths(_without(columns, gone), width, cells) is not None:
            break
        gone.append(head)
    for head in reversed(gone[:-1]):
        fewer = [each for each in gone if each != head]
        if _widths(_without(columns, fewer), width, cells) is not None:
            gone = fewer
    return _without(columns, gone), gone


def _without(columns: Sequence[_Titled], heads: Sequence[str]) -> list[_Titled]:
    return [each for each in columns if each[0] not in heads]


def _total(columns: Sequence[_Titled], cells: Callable[[str], int]) -> int:
    return sum(_natural(head, column, cells) for head, column in columns) + GAP * (len(columns) - 1)


def _natural(head: str, column: Sequence[str], cells: Callable[[str], int]) -> int:
    return max(cells(text) for text in (head, *column))


def _least(head: str, column: Sequence[str], cells: Callable[[str], int]) -> int:
    """A heading wraps at its spaces, and so do prose, paths and instants; all else stays in one piece."""
    return max([*(cells(word) for word in head.split(" ")), *(_least_of(text, cells) for text in column)])


def _least_of(text: str, cells: Callable[[str], int]) -> int:
    if _AMOUNT.match(text) or not (" " in text or "/" in text):
        return cells(text)
    words = max(min(cells(word), _NARROWEST) if "/" in word else cells(word) for word in text.split(" "))
    return words if cells(text) <= _SHORT else max(words, _NARROWEST)


def _widths(columns: Sequence[_Titled], width: int, cells: Callable[[str], int]) -> list[int] | None:
    """What each column gets: at least what it needs, the rest to those that want more, the least of them first."""
    if not columns:
        return None
    widths = [_least(head, column, cells) for head, column in columns]
    left = width - sum(widths) - GAP * (len(columns) - 1)
    if left < 0:
        return None
    wants = sorted((_natural(*columns[place], cells) - widths[place], place) for place in range(len(columns)))
    for number, (want, place) in enumerate(wants):
        share = left // (len(wants) - number)
        given = min(want, share if widths[place] + want > _SHORT else want * (want <= share))
        widths[place] += given
        left -= given
    return widths

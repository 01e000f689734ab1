"""What commands print: tables and colours on a terminal, aligned plain lines in a pipe, one JSON document if asked.

Results go to stdout, errors and warnings to stderr (an error goes to stdout when JSON was asked for).
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TextIO, TypeVar

import msgspec
from msgspec import Struct

from caso_mesh.model.errors import CasoError
from caso_mesh.model.units import format_duration, format_number, format_size

T = TypeVar("T")
#: A column: its heading, and the cell of a row.
Column = tuple[str, Callable[[T], Any]]

_GOOD = {"succeeded", "online", "enabled", "active", "appendable", "yes"}
_BAD = {"failed", "timed-out", "no-communication", "offline", "error", "missed", "read-only"}
_MIXED = {"succeeded-with-exceptions", "canceled", "stalled", "paused", "disabled", "on-hold", "warning", "interrupted"}
_MOVING = {"running", "verifying", "delegated", "queued", "ready", "discovered"}
_STYLES = {
    **dict.fromkeys(_GOOD, "green"),
    **dict.fromkeys(_BAD, "bold red"),
    **dict.fromkeys(_MIXED, "yellow"),
    **dict.fromkeys(_MOVING, "cyan"),
}


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at ``stream``."""
    return stream is not None and stream.isatty()


def document(record: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(encoded(record) + "\n")
    sys.stdout.flush()


def encoded(record: Any) -> str:
    """JSON on one line. A text that cannot be UTF-8 (from an argument) is escaped rather than refused."""
    try:
        text = msgspec.json.encode(record).decode()
    except UnicodeEncodeError:
        text = msgspec.json.encode(_encodable(msgspec.to_builtins(record))).decode()
    # a terminal may show it: what is not printable lies inside of strings, where JSON has a way to write it
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encodable(item) for item in value]
    return value


def show(record: Struct, as_json: bool, people: Callable[[Any], None]) -> None:
    """The record as JSON, or by ``people``; its warnings go to stderr when they are not in the document."""
    if as_json:
        document(record)
        return
    for text in getattr(record, "warnings", ()):
        warning(text)
    people(record)


def line(text: str) -> None:
    """One line on stdout."""
    sys.stdout.write(clean(text) + "\n")


def warning(text: str) -> None:
    """One line on stderr."""
    _say(f"{_coloured('warning:', '33')} {clean(text)}")


def note(text: str) -> None:
    """A remark for people on stderr."""
    _say(clean(text))


def error(failure: CasoError, *, as_json: bool) -> None:
    """What went wrong and what to do: one line on stderr, or a document on stdout."""
    if as_json:
        document({"error": {"code": failure.code, "message": failure.message, "hint": failure.hint}})
        return
    said = failure.message if failure.message.endswith((".", "?", "!")) else f"{failure.message}."
    said = said.removesuffix(".") if said.endswith("?.") else said
    _say(f"{_coloured('error:', '1;31')} {clean(' '.join(f'{said} {failure.hint}'.split()))}")


def _say(text: str) -> None:
    # a stream that was closed by whoever started this program is None
    if sys.stdout is not None:
        sys.stdout.flush()
    if sys.stderr is not None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _coloured(text: str, code: str) -> str:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not is_terminal(sys.stderr)
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"


def clean(text: str) -> str:
    r"""``text`` without anything that could move a terminal's cursor or turn the direction of a line, and without what nobody
    sees: as ``\xHH``, ``\uHHHH`` or ``\UHHHHHHHH``."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _shown(char) for char in text)


def _shown(char: str) -> str:
    code = ord(char)
    if unicodedata.category(char) == "Zs":
        return char  # spaces of other scripts
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def cell(value: Any) -> str:
    """A value as a person reads it in a table."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return clean(", ".join(map(str, value))) or "-"
    if isinstance(value, float):
        return format_number(value)
    return clean(str(value))


def size(value: int | None) -> str | None:
    """Bytes for people."""
    return None if value is None else format_size(value)


def duration(value: float | None) -> str | None:
    """Seconds for people."""
    return None if value is None else format_duration(value)


def table(rows: Iterable[T], *columns: Column[T], empty: str = "", spare: Sequence[str] = ()) -> None:
    """Rows below headings: drawn on a terminal, aligned plain lines in a pipe. Without rows ``empty`` says what that means
    and how there would be some: in place of headings on a terminal, on stderr beside a pipe. ``spare``: headings of the columns
    that a narrow terminal does without, the first ones first."""
    heads = [head for head, _ in columns]
    cells = [[cell(of(row)) for _, of in columns] for row in rows]
    if is_terminal(sys.stdout):
        if cells or not empty:
            _rich_table(heads, cells, spare)
        else:
            line(empty)
        return
    if empty and not cells:
        note(empty)
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for row in [[head.upper() for head in heads], *cells]:
        sys.stdout.write("  ".join(map(str.ljust, row, widths)).rstrip() + "\n")


def details(*pairs: tuple[str, Any]) -> None:
    """What there is to say of one thing: a line for each pair whose value is not ``None``."""
    shown = [(key, cell(value)) for key, value in pairs if value is not None]
    width = max((len(key) for key, _ in shown), default=0)
    if is_terminal(sys.stdout):
        from rich.text import Text

        screen = console(sys.stdout)
        for key, value in shown:
            screen.print(Text.assemble((key.ljust(width), "bold"), "  ", (value, _STYLES.get(value, ""))))
        return
    for key, value in shown:
        sys.stdout.write(f"{key.ljust(width)}  {value}\n")


def console(stream: TextIO) -> Any:
    """A rich console that takes text as it is: no markup, no emoji, no guesses at what is a number."""
    from rich.console import Console

    return Console(file=stream, markup=False, emoji=False, highlight=False)


def _rich_table(heads: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    from caso_mesh.cli.fitting import fit

    screen = console(sys.stdout)
    layout = fit(heads, rows, screen.width, spare, cell_len)
    if layout.widths is None:
        for number, row in enumerate(layout.rows):
            if number:
                screen.print()
            details(*((head, text) for head, text in zip(layout.heads, row, strict=True) if text != "-"))
        return
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
    for head, width in zip(layout.heads, layout.widths, strict=True):
        drawn.add_column(head, overflow="fold", width=width)
    for row in layout.rows:
        drawn.add_row(*(Text(text, style=_STYLES.get(text, "")) for text in row))
    screen.print(drawn)
    if layout.left_out:
        screen.print(Text(f"No room here for: {', '.join(layout.left_out)}. A pipe and --json have them.", style="dim"))

"""What nobody is to see: asked for at a terminal without showing it, or read from a file."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

from caso_mesh.cli import output
from caso_mesh.model.errors import UsageError

#: So often a person may type it.
TRIES = 3


def read_text(path: Path, what: str, most_bytes: int) -> str:
    """The text of a file, or of standard input (``-``), at most so much of it. Raises ``UsageError``."""
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(most_bytes)
        else:
            with path.open("rb") as file:
                data = file.read(most_bytes)
        return data.decode("utf-8")
    except OSError as error:
        raise UsageError(detail=f"The {what} cannot be read from {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageError(detail=f"{path} is not text (UTF-8)") from None


def ask_twice(question: str, what: str, *, may_be_empty: bool = False) -> str:
    """What a person typed twice; an empty text that may be is not asked for again. Raises ``UsageError``."""
    for _ in range(TRIES):
        first = getpass.getpass(question)
        if may_be_empty and not first:
            return first
        if getpass.getpass("The same again: ") == first:
            return first
        output.note("They differ.")
    raise UsageError(detail=f"The two {what}s differ")

"""Asking for passphrases: at a terminal without showing them, or from the first line of a file."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from caso_mesh.cli import output
from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.options import interactive
from caso_mesh.model.errors import PassphraseWrong, UsageError

if TYPE_CHECKING:
    from caso_mesh.identity.kit import Kit

PassphraseFile = Annotated[
    Path | None, Parameter(name="--passphrase-file", help='Read the passphrase from this file ("-": standard input).')
]
KitFile = Annotated[Path, Parameter(name="--kit", help='The recovery kit, as "caso-mesh kit create" wrote it.')]
_TRIES = 3
_LONGEST = 4096


def from_file(path: Path) -> str:
    """The first line, without its end. Raises ``UsageError``."""
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(_LONGEST + 1)
        else:
            with path.open("rb") as file:
                data = file.read(_LONGEST + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise UsageError(detail=f"The passphrase cannot be read from {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageError(detail=f"{path} is not text (UTF-8)") from None
    first = text.splitlines()[0] if text else ""
    if len(data) > _LONGEST or not first.strip():
        raise UsageError(detail=f"{path} has no passphrase on its first line")
    return first


def choose() -> str | None:
    """A new passphrase, asked for twice at a terminal; ``None``: make one. Raises ``UsageError``."""
    if not interactive():
        return None
    for _ in range(_TRIES):
        first = getpass.getpass("Passphrase of the new recovery kit (empty: make one): ")
        if not first:
            return None
        if getpass.getpass("The same again: ") == first:
            return first
        output.note("They differ.")
    raise UsageError(detail="The two passphrases differ")


def open_kit(path: Path, passphrase_file: Path | None) -> Kit:
    """The kit in a file; asks for the passphrase if no file has it.

    Raises ``KitMissing``, ``KitDamaged``, ``KitTooNew``, ``PassphraseWrong``, ``UsageError``.
    """
    from caso_mesh.identity import kit

    data = kit.read(path)
    kit.check_readable(data, path)
    if passphrase_file is not None:
        return kit.decode(data, from_file(passphrase_file), path=path)
    if not interactive():
        raise UsageError(detail="There is nobody to ask for the passphrase: give --passphrase-file")
    for left in reversed(range(_TRIES)):
        try:
            return kit.decode(data, getpass.getpass(f"Passphrase of {path}: "), path=path)
        except PassphraseWrong as error:
            if not left:
                raise
            output.note(error.message)
    raise PassphraseWrong(object=path)

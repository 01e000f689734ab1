"""Asking for passphrases: at a terminal without showing them, or from the first line of a file."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from caso_mesh.cli import hidden, output
from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.options import interactive
from caso_mesh.model.errors import PassphraseWrong, UsageError

if TYPE_CHECKING:
    from caso_mesh.identity.kit import Kit

PassphraseFile = Annotated[
    Path | None, Parameter(name="--passphrase-file", help='Read the passphrase from this file ("-": standard input).')
]
KitFile = Annotated[Path, Parameter(name="--kit", help='The recovery kit, as "caso-mesh kit create" wrote it.')]
_LONGEST = 4096


def from_file(path: Path) -> str:
    """The first line, without its end. Raises ``UsageError``."""
    text = hidden.read_text(path, "passphrase", _LONGEST + 1)
    first = text.splitlines()[0] if text else ""
    if len(text.encode()) > _LONGEST or not first.strip():
        raise UsageError(detail=f"{path} has no passphrase on its first line")
    return first


def choose() -> str | None:
    """A new passphrase, asked for twice at a terminal; ``None``: make one. Raises ``UsageError``."""
    if not interactive():
        return None
    question = "Passphrase of the new recovery kit (empty: make one): "
    return hidden.ask_twice(question, "passphrase", may_be_empty=True) or None


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
    for left in reversed(range(hidden.TRIES)):
        try:
            return kit.decode(data, getpass.getpass(f"Passphrase of {path}: "), path=path)
        except PassphraseWrong as error:
            if not left:
                raise
            output.note(error.message)
    raise PassphraseWrong(object=path)

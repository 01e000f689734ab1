"""All that is wrong with a command that was refused, each with its place: who writes a file wants to know it at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct

from caso_mesh.model.errors import CasoError


class Fault(Struct, frozen=True):
    """One thing that is wrong with what a command saves; ``place``: the keys that lead to it in its document."""

    error: CasoError
    place: tuple[str, ...] = ()


def refused(place: tuple[str, ...], check: Callable[..., object], *arguments: object) -> Iterator[Fault]:
    """What ``check`` raises, as a fault."""
    try:
        check(*arguments)
    except CasoError as error:
        yield Fault(error, place)


def raise_first(faults: Iterator[Fault]) -> None:
    """Raises the first of them, if there is one."""
    for fault in faults:
        raise fault.error

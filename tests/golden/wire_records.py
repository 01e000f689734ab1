"""The records that cross between programs, as plain data: what each is called, its tag, its fields, and what they hold.

    .venv/bin/python tests/golden/wire_records.py > tests/golden/records-N.json

keeps those of this feature level. A later version is compared with it, and an older peer is played by it.
"""

from __future__ import annotations

import enum
import importlib
import json
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec

#: Modules whose records all cross, as far as there are any of the name.
MODULES = (
    "caso_mesh.consensus.messages",
    "caso_mesh.identity.tokens",
    "caso_mesh.identity.tickets",
    "caso_mesh.identity.mesh_copy",
    "caso_mesh.wire.protocol",
    "caso_mesh.jobs.bulk",
    "caso_mesh.jobs.bulk_answers",
    "caso_mesh.jobs.far_sink",
    "caso_mesh.jobs.far_restore",
    "caso_mesh.jobs.far_predicting",
    "caso_mesh.jobs.copying",
    "caso_mesh.jobs.drilling",
)


def _structs(value: Any) -> Iterator[type[msgspec.Struct]]:
    """The records that a type names."""
    if isinstance(value, type) and issubclass(value, msgspec.Struct):
        yield value
    for inner in typing.get_args(value):
        yield from _structs(inner)


def _enums(value: Any) -> Iterator[type[enum.Enum]]:
    """The enumerations that a type names."""
    if isinstance(value, type) and issubclass(value, enum.Enum):
        yield value
    for inner in typing.get_args(value):
        yield from _enums(inner)


def _roots() -> Iterator[type[msgspec.Struct]]:
    from caso_mesh.model import calls, facts, orders
    from caso_mesh.model.commands import Envelope

    for call in calls.CALLS:
        yield from (call.request, call.reply)
    yield from typing.get_args(facts.Fact)
    yield from (orders.Orders, orders.OrdersChange, Envelope)
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        for found in vars(module).values():
            if isinstance(found, type) and found.__module__ == name and issubclass(found, msgspec.Struct):
                yield found


def _parts(value: Any) -> list[str]:
    """The members of a union, each as text; of a tuple of one the same with ``...``."""
    if typing.get_origin(value) in (typing.Union, types.UnionType):
        return sorted({text for part in typing.get_args(value) for text in _parts(part)})
    arguments = typing.get_args(value)
    if typing.get_origin(value) is tuple and len(arguments) == 2 and arguments[1] is ...:
        return [f"{text}..." for text in _parts(arguments[0])]
    name = value.__name__ if isinstance(value, type) and not arguments else str(value)
    return [name.replace("typing.", "").rpartition("caso_mesh.")[2] if not arguments else _short(name)]


def _short(text: str) -> str:
    """A type without the modules that it is made of: they may move."""
    words = "".join(letter if letter.isalnum() or letter in "._" else f" {letter} " for letter in text).split(" ")
    return "".join(word.rpartition(".")[2] if "." in word.strip(".") else word for word in words)


def tag_of(struct: type[msgspec.Struct]) -> str:
    return f"{struct.__struct_config__.tag_field}={struct.__struct_config__.tag}"


def collected() -> dict[str, Any]:
    """``records`` by name; two of the same name have the module before it. Of a field: what it may hold, with ``!`` if it
    has to be there. ``calls``: what is asked and answered. ``facts``: their kinds."""
    found: dict[type, None] = {}
    waiting = list(_roots())
    while waiting:
        struct = waiting.pop(0)
        if struct in found or typing.get_origin(struct) is not None:
            continue
        found[struct] = None
        for field in msgspec.structs.fields(struct):
            waiting += _structs(field.type)
    names = [struct.__name__ for struct in found]

    def name_of(struct: type) -> str:
        short = struct.__module__.rpartition(".")[2]
        return struct.__name__ if names.count(struct.__name__) == 1 else f"{short}.{struct.__name__}"

    records = {
        name_of(struct): {
            **({} if struct.__struct_config__.tag is None else {"tag": tag_of(struct)}),
            "fields": {
                field.encode_name: ("!" if field.required else "") + " | ".join(_parts(field.type))
                for field in msgspec.structs.fields(struct)
            },
        }
        for struct in found
    }
    from caso_mesh.model import calls, facts

    fields = [field for struct in found for field in msgspec.structs.fields(struct)]
    enums = {each for field in fields for each in _enums(field.type)}
    return {
        "records": dict(sorted(records.items())),
        "values": {each.__name__: sorted(str(one.value) for one in each) for each in sorted(enums, key=str)},
        "calls": {call.name: [name_of(call.request), name_of(call.reply)] for call in calls.CALLS},
        "facts": sorted(str(kind.__struct_config__.tag) for kind in typing.get_args(facts.Fact)),
    }


def main() -> None:
    kept = collected()
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in kept["records"].items()]
    rest = ",\n".join(f"{json.dumps(key)}: {json.dumps(kept[key])}" for key in ("values", "calls", "facts"))
    sys.stdout.write('{"records": {\n' + ",\n".join(lines) + "\n},\n" + rest + "}\n")


if __name__ == "__main__":
    main()

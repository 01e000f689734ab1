"""The whole control state as the bytes of a snapshot, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from caso_mesh.control.tables import Image
from caso_mesh.model.errors import StateDamaged, StateTooNew
from caso_mesh.model.wholeness import NotUnderstood, decode_whole

#: Format of a snapshot.
VERSION = 1
#: Tables whose rows are kept under one of their fields.
_KEYS = {
    "servers": "id",
    "former": "id",
    "operators": "id",
    "tokens": "digest",
    "pools": "name",
    "devices": "id",
    "media_sets": "name",
    "jobs": "id",
    "answers": "alert",
    "requests": "id",
    "kits": "id",
    "device_pools": "name",
    "calendars": "name",
    "lists": "id",
    "policies": "id",
    "associations": "key",
    "error_rules": "name",
    "logons": "name",
    "copies": "id",
    "recipients": "name",
    "recipient_groups": "name",
    "notice_rules": "name",
    "report_schedules": "name",
}
_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(Image)


class _Version(msgspec.Struct, frozen=True):
    version: int


def encoded(tables: Mapping[str, Any]) -> bytes:
    """The bytes of a state with these tables, by their names. Equal tables give equal bytes."""
    rows = {name: _rows(tables[name]) for name in (*_KEYS, "runs", "attempts") if name != "requests"}
    return _encoder.encode(
        Image(
            version=VERSION,
            authority=tables["authority"],
            mesh=tables["mesh"],
            anchors=tables["anchors"],
            rotation=tables["rotation"],
            mail_server=tables["mail_server"],
            removed=tuple(sorted(tables["removed"].items())),
            mesh_settings=tuple(sorted(tables["mesh_settings"].items())),
            pool_settings=tuple(
                (name, tuple(sorted(values.items()))) for name, values in sorted(tables["pool_settings"].items())
            ),
            requests=tuple(tables["requests"].values()),
            **rows,
        )
    )


def decoded(data: bytes) -> Image:
    """Raises ``StateTooNew``, ``StateDamaged``."""
    try:
        version = msgspec.msgpack.decode(data, type=_Version).version
        if version > VERSION:
            raise StateTooNew(state="the control state", found=version, known=VERSION)
        return decode_whole(_decoder, _encoder.encode, data)
    except NotUnderstood as error:
        raise StateTooNew(state="the control state", found=f"one beyond {VERSION}: {error}", known=VERSION) from None
    except msgspec.MsgspecError as error:
        raise StateDamaged(path="the snapshot of the control state", detail=str(error)) from None


def tables(image: Image) -> dict[str, Any]:
    """All tables but those of runs and attempts, of which there are indices too."""
    found: dict[str, Any] = {
        name: {getattr(row, key): row for row in getattr(image, name)} for name, key in _KEYS.items()
    }
    return {
        **found,
        "authority": image.authority,
        "mesh": image.mesh,
        "anchors": image.anchors,
        "rotation": image.rotation,
        "mail_server": image.mail_server,
        "removed": dict(image.removed),
        "mesh_settings": dict(image.mesh_settings),
        "pool_settings": {name: dict(values) for name, values in image.pool_settings},
    }


def _rows(table: Mapping[Any, Any]) -> tuple[Any, ...]:
    return tuple(table[key] for key in sorted(table))

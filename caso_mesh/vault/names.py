"""Names of objects in a vault, and what kinds there are. ``docs/format.md`` lists them."""

from __future__ import annotations

import re
from enum import IntEnum

from caso_mesh.model.errors import Misuse

MAGIC = b"CASOMESH"
FORMAT_VERSION = 1
FORMAT = "format"
#: While a vault is being erased: nobody opens what lies beside it.
ERASING = "erasing"

_ID = re.compile(r"[a-z0-9]{1,64}\Z")
_PACK = re.compile(r"packs/([dm])/([0-9a-f]{2})/(\2[0-9a-f]{30})\Z")
_KEY = re.compile(r"keys/([a-z0-9]{1,64})(?:\.[0-9a-f]{32})?\Z")
_INDEX = re.compile(r"index/([a-z0-9]{1,64})/([0-9]{8})-([0-9a-f]{32})\Z")
_SET = re.compile(r"sets/([a-z0-9]{1,64})/([a-z0-9]{1,64})-([0-9]{1,9})\Z")
_SESSION = re.compile(r"sessions/([a-z0-9]{1,64})/([a-z0-9]{1,64})(\.closed)?\Z")
_HOLD = re.compile(r"holds/([a-z0-9]{1,64})/([1-9][0-9]{0,8})\Z")
_MESH = re.compile(r"mesh/([0-9]{10})\Z")
_DAMAGE = re.compile(r"damage/([a-z0-9]{1,64})/([1-9][0-9]{0,8})\Z")
_WRITER = re.compile(r"writers/([a-z0-9]{1,64})\Z")


class Kind(IntEnum):
    """The tenth byte of every sealed object. 10, 11 and 13 are taken: mark, sweep, facts."""

    WRITER = 1
    SESSION = 2
    SESSION_CLOSED = 3
    SET = 4
    INDEX = 5
    DATA_PACK = 6
    METADATA_PACK = 7
    CONTENT_KEY = 8
    HOLD = 9
    MESH_STATE = 12
    DAMAGE = 14

    @property
    def domain(self) -> str:
        """Domain of keys derived for it and of its signature."""
        return f"vault/{self.name.lower().replace('_', '-')}"


def check_id(text: str, what: str) -> str:
    """``text`` itself: 1 to 64 of ``a-z0-9``. Raises ``Misuse``, since ids are made by this program."""
    if not _ID.match(text):
        raise Misuse(f"{text!r} cannot be the id of a {what} in a vault")
    return text


def pack_name(pack: bytes, kind: Kind) -> str:
    text = pack.hex()
    return f"packs/{'m' if kind is Kind.METADATA_PACK else 'd'}/{text[:2]}/{text}"


def parse_pack(name: str) -> tuple[bytes, Kind] | None:
    """Pack id and kind of a pack's name; None for anything else."""
    match = _PACK.match(name)
    if match is None:
        return None
    return bytes.fromhex(match[3]), Kind.METADATA_PACK if match[1] == "m" else Kind.DATA_PACK


def key_name(key_id: str, suffix: str = "") -> str:
    return f"keys/{key_id}.{suffix}" if suffix else f"keys/{key_id}"


def parse_key(name: str) -> str | None:
    match = _KEY.match(name)
    return match[1] if match else None


def index_name(writer: str, sequence: int, digest: bytes) -> str:
    return f"index/{writer}/{sequence:08d}-{digest.hex()}"


def parse_index(name: str) -> tuple[str, int, bytes] | None:
    """Writer, sequence number and digest."""
    match = _INDEX.match(name)
    return (match[1], int(match[2]), bytes.fromhex(match[3])) if match else None


def set_name(writer: str, session: str, number: int) -> str:
    return f"sets/{writer}/{session}-{number}"


def parse_set(name: str) -> tuple[str, str, int] | None:
    match = _SET.match(name)
    if match is None or match[3].startswith("0"):
        return None
    return match[1], match[2], int(match[3])


def session_name(writer: str, session: str) -> str:
    return f"sessions/{writer}/{session}"


def closed_name(writer: str, session: str) -> str:
    return f"sessions/{writer}/{session}.closed"


def parse_session(name: str) -> tuple[str, str, bool] | None:
    """Writer, session, and whether this is its close object."""
    match = _SESSION.match(name)
    return (match[1], match[2], match[3] is not None) if match else None


def writer_name(writer: str) -> str:
    return f"writers/{writer}"


def parse_writer(name: str) -> str | None:
    match = _WRITER.match(name)
    return match[1] if match else None


def hold_name(set_id: str, number: int) -> str:
    return f"holds/{set_id}/{number}"


def parse_hold(name: str) -> tuple[str, int] | None:
    """The set, and the number of the hold."""
    match = _HOLD.match(name)
    return (match[1], int(match[2])) if match else None


def damage_name(writer: str, number: int) -> str:
    return f"damage/{writer}/{number}"


def parse_damage(name: str) -> tuple[str, int] | None:
    """The writer, and the number of what it found."""
    match = _DAMAGE.match(name)
    return (match[1], int(match[2])) if match else None


def mesh_name(sequence: int) -> str:
    return f"mesh/{sequence:010d}"


def parse_mesh(name: str) -> int | None:
    """Sequence number of a copy of the mesh."""
    match = _MESH.match(name)
    return int(match[1]) if match else None

"""The node's own configuration file, ``config.toml`` in its state folder: node-local things only.

All else is mesh settings in the control state. Precedence: option > environment > file > default.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, field

from caso_mesh.model.errors import ConfigInvalid, StateDiskFailed, StateMissing
from caso_mesh.model.ids import NAME

Preset = Literal["local", "lan", "wan"]


class Allow(Struct, frozen=True, forbid_unknown_fields=True):
    """What may be read and written here at all; no administrator can widen it. Absolute folders."""

    read: tuple[str, ...] = ("/",)
    write: tuple[str, ...] = ("/",)


class DiscoveryConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """``mdns``: announce and browse on the LAN. ``interfaces``: IPv4 addresses to use; empty = all but loopback."""

    mdns: bool = True
    interfaces: tuple[str, ...] = ()


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """``listen`` is HOST:PORT (port 0 takes a free one). ``advertise``: where others reach this server, if not at the
    addresses of its interfaces. ``peers``: static addresses of other servers. ``preset``: the network this server is
    in; it moves the defaults of settings."""

    server: str
    listen: str
    advertise: tuple[str, ...] = ()
    preset: Preset = "lan"
    peers: tuple[str, ...] = ()
    allow: Allow = field(default_factory=Allow)
    discovery: DiscoveryConfig = field(default_factory=DiscoveryConfig)


_ADDRESS = re.compile(r"(?:\[[^\]]+\]|[^:\[\]]+):([0-9]{1,5})\Z")
_PATH = re.compile(r"`\$\.?([^`]*)`")


def load_config(path: Path) -> Config:
    """Raises ``ConfigInvalid`` with the line, ``StateMissing`` if there is no file."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise StateMissing(state=path.parent) from None
    except OSError as error:
        raise StateDiskFailed(path=path, detail=error.strerror or error) from error
    except UnicodeDecodeError as error:
        raise ConfigInvalid(path=path, line=1, detail=f"not UTF-8: {error.reason}") from None
    text = text.removeprefix("\ufeff")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = int(match[1]) if match else len(text.splitlines())
        raise ConfigInvalid(path=path, line=line, detail=str(error).partition(" (at ")[0]) from None
    try:
        config = msgspec.convert(data, Config, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigInvalid(path=path, line=_line_of(text, data, str(error)), detail=str(error)) from None
    for key, value, wrong in _mistakes(config):
        raise ConfigInvalid(path=path, line=_find(text, key, value), detail=f'"{value}" is {wrong}')
    return config


def _mistakes(config: Config) -> Iterator[tuple[str, str, str]]:
    """Key, value and what is wrong with it."""
    if not NAME.match(config.server):
        yield "server", config.server, "no valid name"
    for key, addresses in (
        ("listen", (config.listen,)),
        ("advertise", config.advertise),
        ("peers", config.peers),
    ):
        for address in addresses:
            match = _ADDRESS.match(address)
            if match is None or int(match[1]) > 65535:
                yield key, address, "no address: use HOST:PORT, or [ADDRESS]:PORT for IPv6"
    for key, places in (("read", config.allow.read), ("write", config.allow.write)):
        for place in places:
            if not place.startswith("/") or "\0" in place:
                yield key, place, "no absolute folder"
    for interface in config.discovery.interfaces:
        try:
            ipaddress.IPv4Address(interface)
        except ValueError:
            yield "interfaces", interface, "no IPv4 address"


def _line_of(text: str, data: dict[str, object], message: str) -> int:
    unknown = re.search(r"unknown field `([^`]*)`", message)
    where = _PATH.search(message)
    key = unknown[1] if unknown else (where[1].split(".")[-1].split("[")[0] if where else "")
    return _find(text, key)


def _find(text: str, key: str, value: str = "") -> int:
    """The line of a key; of a value in its list, where that stands on a line of its own."""
    found = 0
    for number, line in enumerate(text.splitlines(), 1):
        if key and not found and re.match(rf"\s*(\[\s*)?([\w-]+\.)*\"?{re.escape(key)}\"?\s*(=|\])", line):
            found = number
        if found and value and value in line:
            return number
    return found or 1


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # JSON's escapes are TOML's, but for the delete character
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def render_config(config: Config) -> str:
    """The file as ``init`` and ``join`` write it, with a word on each key."""
    return "\n".join(
        [
            "# caso-mesh: what belongs to this server alone. Everything else is a setting of the mesh",
            '# ("caso-mesh settings list"). The daemon reads this file when it starts.',
            f"server = {_toml(config.server)}",
            f"listen = {_toml(config.listen)}",
            "# where other servers reach this one, if not at the addresses of its interfaces: HOST:PORT",
            f"advertise = {_toml(config.advertise)}",
            "# the network this server is in: local, lan or wan",
            f"preset = {_toml(config.preset)}",
            "# static addresses of other servers: HOST:PORT",
            f"peers = {_toml(config.peers)}",
            "",
            "[allow]",
            "# what may be read and written here at all; no administrator can widen it",
            f"read = {_toml(config.allow.read)}",
            f"write = {_toml(config.allow.write)}",
            "",
            "[discovery]",
            "# announce this server and look for others on the LAN (mDNS, UDP 5353)",
            f"mdns = {_toml(config.discovery.mdns)}",
            "# IPv4 addresses of the interfaces to use; empty = all but loopback",
            f"interfaces = {_toml(config.discovery.interfaces)}",
            "",
        ]
    )


def write_config(path: Path, config: Config) -> None:
    """Writes the file whole or not at all, readable by its owner only."""
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(render_config(config))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StateDiskFailed(path=path, detail=error.strerror or error) from error

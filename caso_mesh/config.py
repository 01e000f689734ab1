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

from caso_mesh.model.errors import ConfigInvalid, InvalidValue, StateDiskFailed, StateMissing
from caso_mesh.model.host_commands import DEFAULT_LIMIT_S, CommandKind, HostCommand
from caso_mesh.model.ids import NAME
from caso_mesh.model.logons import LogonVariables
from caso_mesh.model.units import parse_duration_s

Preset = Literal["local", "lan", "wan"]


class Allow(Struct, frozen=True, forbid_unknown_fields=True):
    """What may be read and written here at all; no administrator can widen it. Absolute folders. ``snapshots``: whether
    backups may take snapshots of this server's file systems."""

    read: tuple[str, ...] = ("/",)
    write: tuple[str, ...] = ("/",)
    snapshots: bool = True


class DiscoveryConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """``mdns``: announce and browse on the LAN. ``interfaces``: IPv4 addresses to use; empty = all but loopback."""

    mdns: bool = True
    interfaces: tuple[str, ...] = ()


class MetricsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """``[metrics]``: where figures are read over HTTP; ``listen`` is HOST:PORT, empty = nowhere. With ``certificate`` and
    ``key``, two files in PEM, over HTTPS."""

    listen: str = ""
    certificate: str = ""
    key: str = ""


class CommandConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """``[commands.NAME]``: a command that jobs may name. ``argv`` is what is run, no shell in between; ``user``: as whom
    (empty: as the daemon); ``time_limit``: a duration, after which it is ended; ``environment``: added to a bare one;
    ``logon``: in which variables it finds user and secret of the logon that a job gives it."""

    kind: CommandKind
    argv: tuple[str, ...]
    user: str = ""
    time_limit: str = ""
    environment: dict[str, str] = {}
    logon: LogonVariables = LogonVariables()

    def host_command(self) -> HostCommand:
        limit_s = parse_duration_s(self.time_limit) if self.time_limit else DEFAULT_LIMIT_S[self.kind]
        return HostCommand(self.kind, self.argv, self.user, limit_s, self.environment, self.logon)


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
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    commands: dict[str, CommandConfig] = {}

    def host_commands(self) -> dict[str, HostCommand]:
        """What jobs may run on this server, by name."""
        return {name: command.host_command() for name, command in self.commands.items()}


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
        ("listen", (config.metrics.listen,) if config.metrics.listen else ()),
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
    metrics = config.metrics
    for key, place in (("certificate", metrics.certificate), ("key", metrics.key)):
        if place and (not place.startswith("/") or "\0" in place):
            yield key, place, "no absolute path of a file"
    if bool(metrics.certificate) != bool(metrics.key):
        yield "metrics", metrics.certificate or metrics.key, "one of two files: certificate and key belong together"
    for name, command in config.commands.items():
        yield from _command_mistakes(name, command)


def _command_mistakes(name: str, command: CommandConfig) -> Iterator[tuple[str, str, str]]:
    if not NAME.match(name):
        yield name, name, "no valid name of a command"
    if not command.argv or not command.argv[0].startswith("/"):
        yield "argv", command.argv[0] if command.argv else "", "no command: begin with the absolute path of a program"
    for text in (*command.argv, *command.environment, *command.environment.values()):
        if "\0" in text:
            yield name, name, "no command: nothing in it may hold a zero byte"
    for key in command.environment:
        if not key or "=" in key:
            yield "environment", key, "no name of a variable"
    for variable in (command.logon.user, command.logon.secret):
        if not variable or "=" in variable or "\0" in variable:
            yield "logon", variable, "no name of a variable"
    if command.time_limit:
        try:
            limit_s = parse_duration_s(command.time_limit)
        except InvalidValue:
            limit_s = 0
        if not 0 < limit_s <= 30 * 86400:
            yield "time_limit", command.time_limit, "no time limit: use 90s, 15m or 12h, at most 30d"


def _line_of(text: str, data: dict[str, object], message: str) -> int:
    unknown = re.search(r"unknown field `([^`]*)`", message)
    where = _PATH.search(message)
    keys = [unknown[1]] if unknown else []
    # a key inside of a table on one line is told by the line of that table
    keys += [where[1].split(".")[-1].split("[")[0]] if where else []
    return next((line for key in keys if (line := _find(text, key)) > 1), 1)


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
            "# whether backups may take (and remove) snapshots of file systems",
            f"snapshots = {_toml(config.allow.snapshots)}",
            "",
            "[discovery]",
            "# announce this server and look for others on the LAN (mDNS, UDP 5353)",
            f"mdns = {_toml(config.discovery.mdns)}",
            "# IPv4 addresses of the interfaces to use; empty = all but loopback",
            f"interfaces = {_toml(config.discovery.interfaces)}",
            "",
            *_metrics_lines(config.metrics),
            *(line for name, command in config.commands.items() for line in _command_lines(name, command)),
        ]
    )


def _metrics_lines(metrics: MetricsConfig) -> list[str]:
    text = "# figures for Prometheus, /healthz and /readyz, for whoever can reach the address"
    if metrics == MetricsConfig():
        return [text, "# [metrics]", '# listen = "127.0.0.1:9464"', ""]
    lines = [text, "[metrics]", f"listen = {_toml(metrics.listen)}"]
    if metrics.certificate:
        lines += [f"certificate = {_toml(metrics.certificate)}", f"key = {_toml(metrics.key)}"]
    return [*lines, ""]


def _command_lines(name: str, command: CommandConfig) -> list[str]:
    lines = [f"[commands.{_toml(name)}]", f"kind = {_toml(command.kind.value)}", f"argv = {_toml(command.argv)}"]
    if command.user:
        lines.append(f"user = {_toml(command.user)}")
    if command.time_limit:
        lines.append(f"time_limit = {_toml(command.time_limit)}")
    if command.environment:
        pairs = (f"{_toml(key)} = {_toml(value)}" for key, value in command.environment.items())
        lines.append(f"environment = {{ {', '.join(pairs)} }}")
    if command.logon != LogonVariables():
        lines.append(f"logon = {{ user = {_toml(command.logon.user)}, secret = {_toml(command.logon.secret)} }}")
    return [*lines, ""]


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

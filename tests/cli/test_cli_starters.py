"""``init``, ``join``, ``run`` and ``service``: what they hand on, what they print, how they end."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_world import Shell

from caso_mesh import daemon as daemon_module
from caso_mesh import founding as founding_module
from caso_mesh.cli import output, service
from caso_mesh.cli import run as run_module
from caso_mesh.cli.program import run_inside
from caso_mesh.config import Config, write_config
from caso_mesh.model.errors import JoinLinkUsed, PortInUse


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What reached the daemon's module."""
    seen: dict[str, Any] = {}
    as_init, as_join = inspect.signature(founding_module.init_mesh), inspect.signature(founding_module.join_mesh)

    async def init_mesh(**arguments: Any) -> None:
        as_init.bind(**arguments)
        seen["init"] = arguments

    async def join_mesh(**arguments: Any) -> str:
        as_join.bind(**arguments)
        seen["join"] = arguments
        if arguments["link"] == "used":
            raise JoinLinkUsed
        return "office"

    monkeypatch.setattr(founding_module, "init_mesh", init_mesh)
    monkeypatch.setattr(founding_module, "join_mesh", join_mesh)
    return seen


async def test_init_hands_on_what_was_given_and_says_what_to_do_next(
    calls: dict[str, Any], shell: Shell, tmp_path: Path
) -> None:
    told = await shell(
        "init", "--mesh", "office", "--server", "alpha", "--listen", "127.0.0.1:0", "--preset", "local",
        "--advertise", "h:1", "--ca", os.fspath(tmp_path),
    )  # fmt: skip
    assert told.status == 0
    assert calls["init"] == {
        "mesh": "office", "server": "alpha", "state": shell.state, "listen": "127.0.0.1:0", "preset": "local",
        "advertise": ("h:1",), "ca": tmp_path,
    }  # fmt: skip
    assert f"caso-mesh run --state {shell.state}" in told.out
    as_json = await shell("init", "--mesh", "office", "--server", "alpha", "--json")
    assert as_json.document == {"mesh": "office", "server": "alpha", "state": os.fspath(shell.state)}


def _told(out: str, begins: str) -> list[str]:
    """The words of a command that was printed behind some words."""
    line = next(line for line in out.splitlines() if line.startswith(begins))
    return shlex.split(line.removeprefix(begins).partition(", and")[0])


async def test_the_commands_that_init_and_join_propose_work_as_they_are_printed(
    calls: dict[str, Any], shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service was proposed without the state folder, and would have been that of the default one."""
    folder = tmp_path / "its own folder"
    folder.mkdir()
    write_config(folder / "config.toml", Config(server="alpha", listen="127.0.0.1:7311"))
    joining = ("join", "link", "--server", "alpha")
    for words in (("init", "--mesh", "office", "--server", "alpha"), joining):
        out = (await shell(*words, "--state", os.fspath(folder), state=False)).out
        program, *install = _told(out, "Or start it at boot: ")
        assert program == "caso-mesh"
        assert f'run --state "{folder}"' in (await shell(*install, "--print", state=False)).out
        assert _told(out, "Start it: ") == ["caso-mesh", "run", "--state", os.fspath(folder)]
    founding = ("init", "--mesh", "office", "--server", "alpha")
    out = (await shell(*founding, "--state", os.fspath(folder), state=False)).out
    assert _told(out, "Then a recovery kit: ") == ["caso-mesh", "kit", "create", "FILE", "--state", os.fspath(folder)]
    assert _told(out, "Then add a server: ") == ["caso-mesh", "token", "create", "--state", os.fspath(folder)]

    # what the environment says reaches commands of this shell, but not the service manager
    monkeypatch.setenv("CASO_MESH_STATE", os.fspath(folder))
    out = (await shell(*founding, state=False)).out
    assert _told(out, "Then a recovery kit: ") == ["caso-mesh", "kit", "create", "FILE"]
    assert _told(out, "Or start it at boot: ")[-2:] == ["--state", os.fspath(folder)]

    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setattr(sys, "argv", [os.fspath(tmp_path / "bin" / "caso-mesh")])
    out = (await shell(*joining)).out
    assert _told(out, "Or start it at boot: ")[:4] == ["sudo", sys.executable, "-m", "caso_mesh"]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "caso-mesh").touch()
    out = (await shell(*joining)).out
    assert _told(out, "Or start it at boot: ")[:4] == ["sudo", sys.argv[0], "service", "install"]
    assert "--user-name" in _told(out, "Or start it at boot: ")


async def test_join_hands_on_what_was_given_and_its_errors_have_their_status(
    calls: dict[str, Any], shell: Shell
) -> None:
    told = await shell("join", "link", "--server", "beta", "--listen", "127.0.0.1:0", "--never-admin", "--json")
    assert told.document == {"mesh": "office", "server": "beta", "state": os.fspath(shell.state)}
    assert calls["join"] == {
        "link": "link", "server": "beta", "state": shell.state, "listen": "127.0.0.1:0", "preset": "lan",
        "advertise": (), "never_admin": True, "replaces": "", "warn": output.warning,
    }  # fmt: skip
    assert (await shell("join", "used", "--server", "beta")).status == 4
    assert (await shell("join", "link", "--replaces", "beta")).status == 0
    assert (calls["join"]["server"], calls["join"]["replaces"]) == ("beta", "beta")
    for wrong in ((), ("--server", "gamma", "--replaces", "beta")):
        assert (await shell("join", "link", *wrong)).status == 2
    assert "office" in (await shell("join", "link", "--server", "beta")).out


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A service manager's end of sd_notify."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        address = tmp_path / "notify"
        sock.bind(os.fspath(address))
        sock.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", os.fspath(address))
        yield sock


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_run_tells_the_service_manager_and_stops_cleanly_on_a_signal(
    number: signal.Signals, manager: socket.socket, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    cleaned = False
    real = inspect.signature(daemon_module.run_daemon)

    async def run_daemon(*, say: Callable[[str], None], ready: Callable[[], None], **arguments: Any) -> None:
        nonlocal cleaned
        real.bind(say=say, ready=ready, **arguments)
        seen.update(arguments)
        say("code: abcd")
        ready()
        os.kill(os.getpid(), number)
        try:
            await asyncio.Event().wait()
        finally:
            os.kill(os.getpid(), number)  # an impatient person does not break the clean end
            await asyncio.sleep(0.01)
            cleaned = True

    monkeypatch.setattr(daemon_module, "run_daemon", run_daemon)
    place = ("--server", "new", "--listen", "127.0.0.1:0", "--advertise", "a:1", "--preset", "wan")
    told = await shell("run", "--peer", "h:1", "--peer", "h:2", *place)
    assert (told.status, told.out, cleaned) == (0, "code: abcd\n", True)
    assert seen == {
        "state": shell.state, "peers": ("h:1", "h:2"), "server": "new", "listen": "127.0.0.1:0", "never_admin": False,
        "advertise": ("a:1",), "preset": "wan",
    }  # fmt: skip
    assert [manager.recv(100), manager.recv(100)] == [b"READY=1", b"STOPPING=1"]


async def test_run_ends_with_the_status_of_its_failure(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_daemon(**_: Any) -> None:
        raise PortInUse(address="127.0.0.1:1")

    monkeypatch.setattr(daemon_module, "run_daemon", run_daemon)
    lone = await shell("run", "--preset", "wan")
    assert lone.status == 2
    assert "--server and --listen" in lone.err
    told = await shell("run")
    assert told.status == 6
    assert told.err.startswith("error: 127.0.0.1:1 is already in use.")


async def test_a_bug_of_the_daemon_is_in_its_log_with_the_traceback(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run_daemon(**_: Any) -> None:
        async with asyncio.TaskGroup():
            raise ZeroDivisionError

    monkeypatch.setattr(daemon_module, "run_daemon", run_daemon)
    told = await shell("run", "--log-format", "json")
    assert told.status == 1
    first, last = told.err.splitlines()
    assert "ZeroDivisionError" in json.loads(first)["exception"]
    assert last.startswith("error: Internal error: ZeroDivisionError")


async def test_the_log_is_lines_or_json_from_the_level_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = logging.getLogger("some.room")
    run_module.set_up_logging("text", "info")
    log.info("a peer said %s", "x\n\x1b[2J")
    log.debug("not this")
    text = capsys.readouterr().err
    assert text.endswith("Z info    some.room: a peer said x\\x0a\\x1b[2J\n")
    run_module.set_up_logging("json", "debug")
    log.debug("now this %s", "\udcff")
    record = json.loads(capsys.readouterr().err)
    assert (record["level"], record["logger"], record["message"]) == ("debug", "some.room", "now this \\udcff")


@pytest.fixture
def configured(state: Path) -> Path:
    write_config(state / "config.toml", Config("alpha", "0.0.0.0:7301"))
    return state


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that writes down what it is told; returns its notes."""
    programs, units, notes = tmp_path / "bin", tmp_path / "units", tmp_path / "notes"
    programs.mkdir()
    units.mkdir()
    script = programs / "systemctl"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {notes}\n[ ! -e {tmp_path}/broken ] || {{ echo no bus >&2; exit 1; }}\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(service, "UNIT_FOLDER", units)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return notes


async def test_service_install_writes_enables_and_starts_the_unit_and_states_its_ports(
    configured: Path, systemctl: Path, shell: Shell
) -> None:
    told = await shell("service", "install")
    assert told.status == 0
    assert "TCP 7301" in told.out
    assert "UDP 5353" in told.out
    unit = (service.UNIT_FOLDER / service.UNIT).read_text()
    assert f"-m caso_mesh run --state {configured}\n" in unit
    for line in ("Type=notify", "Restart=on-failure", "LimitNOFILE=65536", "NoNewPrivileges=yes", "KillMode=mixed"):
        assert f"\n{line}\n" in unit
    assert systemctl.read_text() == f"daemon-reload\nenable --now {service.UNIT}\n"
    assert (await shell("service", "uninstall")).status == 0
    assert not (service.UNIT_FOLDER / service.UNIT).exists()
    assert systemctl.read_text().splitlines()[2:] == [f"disable --now {service.UNIT}", "daemon-reload"]
    assert configured.exists()
    assert "not installed" in (await shell("service", "uninstall")).out


async def test_the_unit_hides_no_file_from_backups_and_restores(configured: Path, shell: Shell) -> None:
    unit = (await shell("service", "install", "--print")).out
    for word in ("ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "RestrictSUIDSGID", "ReadOnlyPaths"):
        assert word not in unit
    as_user = (await shell("service", "install", "--print", "--user-name", "nobody")).out
    assert (
        "User=nobody\nAmbientCapabilities=CAP_DAC_READ_SEARCH\nCapabilityBoundingSet=CAP_DAC_READ_SEARCH\n" in as_user
    )
    assert (await shell("service", "install", "--print", "--user-name", "no-such-user")).status == 2


def test_paths_in_the_unit_are_quoted_as_systemd_reads_them() -> None:
    unit = service.render_unit(state=Path('/srv/a b%"$x'), user=None, python="/usr/bin/python3")
    assert 'ExecStart=/usr/bin/python3 -m caso_mesh run --state "/srv/a b%%\\"$$x"\n' in unit
    assert "StateDirectory" not in unit
    assert "StateDirectory=caso-mesh" in service.render_unit(state=Path("/var/lib/caso-mesh"), user=None, python="p")


async def test_service_refuses_who_is_not_root_and_says_what_to_do_without_systemd(
    configured: Path, systemctl: Path, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").touch()
    failed = await shell("service", "install")
    assert failed.status == 1
    assert "daemon-reload failed: no bus" in failed.err
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    missing = await shell("service", "install")
    assert missing.status == 1
    assert f"caso-mesh run --state {configured}" in missing.err
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for what in ("install", "uninstall"):
        refused = await shell("service", what)
        assert refused.status == 4
        assert "root" in refused.err


async def test_service_of_a_folder_that_is_no_server_is_refused(shell: Shell, tmp_path: Path) -> None:
    assert await run_inside(["service", "install", "--print", "--state", os.fspath(tmp_path / "nothing")]) == 3

"""Servers over networks that are not one's own LAN: behind a router that lets nobody in, at addresses that change, over
lines that are slow and lose packets. Nobody finds anybody by mDNS here."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import time
from typing import Any

import netns
import pytest
from mesh.lan import Lan
from mesh.trees import assert_equal, make_tree
from waiting import wait_for

pytestmark = [
    pytest.mark.skipif(netns.unavailable() is not None, reason=str(netns.unavailable())),
    pytest.mark.skipif(not netns.Site.can_drop(), reason="nftables is not there"),
]
NAMES = {1: "alpha", 2: "beta", 3: "gamma"}


class Wan(Lan):
    """As ``Lan``, without discovery."""

    def __init__(self, site: netns.Site, folder: pathlib.Path) -> None:
        super().__init__(site, folder)
        self.daemons: dict[int, subprocess.Popen[Any]] = {}

    def begin(self, preset: str = "local") -> None:
        """Machine 1 makes the mesh."""
        self.ok(1, "init", "--mesh", "meadow", "--server", "alpha", "--listen", "0.0.0.0:7300", "--preset", preset)
        self._mute(1)
        self.daemon(1)
        wait_for(lambda: self.cli(1, "status", "--timeout", "1s")[0] == 0, timeout_s=30)

    def join(self, i: int, preset: str = "local", *more: str) -> None:
        link = self.ok(1, "token", "create")["link"]
        words = ("--server", NAMES[i], "--listen", "0.0.0.0:7300", "--preset", preset, *more)
        self.ok(i, "join", link, *words)
        self._mute(i)
        self.daemon(i)
        self.wait_connected(NAMES[i])

    def daemon(self, i: int) -> subprocess.Popen[Any]:
        """Starts the daemon of machine ``i``; the last one is in ``daemons``."""
        self.daemons[i] = self.run(i)
        return self.daemons[i]

    def _mute(self, i: int) -> None:
        path = pathlib.Path(self.state(i)) / "config.toml"
        path.write_text(re.sub(r"(?m)^mdns = .*$", "mdns = false", path.read_text("utf-8")), "utf-8")

    def row(self, name: str) -> dict[str, Any]:
        return next(row for row in self.ok(1, "server", "list")["servers"] if row["name"] == name)

    def wait_connected(self, *names: str, timeout_s: float = 30.0) -> None:
        def connected() -> bool:
            return all(self.row(name)["connected"] and self.row(name)["state"] == "enabled" for name in names)

        wait_for(connected, timeout_s, what=f"alpha is linked with {', '.join(names)}", every_s=0.2)

    def device(self, i: int, folder: pathlib.Path) -> str:
        """A device of machine ``i``."""
        place = folder / f"disk-{i}"
        place.mkdir()
        self.ok(1, "device", "add", f"disk-{i}", "--server", NAMES[i], "--path", str(place))
        return f"device:disk-{i}"


def test_a_server_behind_a_router_that_lets_nobody_in_is_a_source_and_a_media_server(tmp_path: pathlib.Path) -> None:
    source, back = make_tree(tmp_path / "source", files=30), tmp_path / "back"
    with netns.Site(3, unplugged={3}) as site:
        site.hide(3, 2)
        wan = Wan(site, tmp_path)
        wan.begin()
        wan.join(3)
        assert wan.row("gamma")["address"] == "10.78.2.2:7300", "where alpha cannot dial it"
        outside, inside = wan.device(1, tmp_path), wan.device(3, tmp_path)
        result = wan.ok(1, "backup", f"gamma:{source}", "--to", outside, "--wait")
        assert result["state"] == "succeeded"
        wan.ok(1, "restore", result["set"], "--to", f"gamma:{back}", "--strip", "--wait")
        assert_equal(source, back)
        result = wan.ok(1, "backup", f"alpha:{source}", "--to", inside, "--wait")
        assert (result["server"], result["state"]) == ("gamma", "succeeded"), "the device's end dials"


def test_a_server_changes_its_address_while_it_is_linked_and_while_it_is_away(tmp_path: pathlib.Path) -> None:
    source = make_tree(tmp_path / "source", files=30)
    with netns.Site(2) as site:
        wan = Wan(site, tmp_path)
        wan.begin()
        wan.join(2)
        target = wan.device(2, tmp_path)

        def known_at(address: str) -> bool:
            row = wan.row("beta")
            return (row["address"], row["connected"], row["state"]) == (f"{address}:7300", True, "enabled")

        moved = site.move(2, 77)
        wait_for(lambda: known_at(moved), 30.0, what="beta is known at its new address", every_s=0.2)
        assert wan.ok(1, "backup", f"alpha:{source}", "--to", target, "--wait")["state"] == "succeeded"
        wan.daemons[2].terminate()
        assert wan.daemons[2].wait(timeout=60) == 0
        moved = site.move(2, 78)
        wan.daemon(2)
        wait_for(lambda: known_at(moved), 30.0, what="beta is back at another address", every_s=0.2)
        assert wan.ok(1, "backup", f"alpha:{source}", "--to", target, "--wait")["state"] == "succeeded"


@pytest.mark.long
def test_a_backup_over_a_slow_line_that_loses_packets_starves_no_heartbeats(tmp_path: pathlib.Path) -> None:
    """2 Mbit/s, 1 % of the packets lost in each direction, and half a second of queue in front of it that the backup
    keeps full. With a TCP that heeds loss: where it does not (BBR), a link of few packets may lose one after the other."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(os.urandom(3_000_000))
    with netns.Site(2) as site:
        for i in (1, 2):
            site.do(i, "sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno")
        wan = Wan(site, tmp_path)
        wan.begin("wan")
        wan.join(2, "wan")
        target = wan.device(1, tmp_path)
        wan.ok(1, "settings", "set", "heartbeat-interval-s", "1s")
        wan.ok(1, "settings", "set", "stalled-after-s", "30s")
        wan.ok(1, "settings", "set", "no-communication-after-s", "5s")
        site.slow(2, "2mbit")
        site.lose(1, 1)
        site.lose(2, 1)
        began = time.monotonic()
        run = wan.ok(1, "backup", f"beta:{source}", "--to", target)["run"]
        seen, silent = set[tuple[bool, str]](), [0.0]

        def over() -> Any:
            row = wan.row("beta")
            seen.add((row["connected"], row["state"]))
            silent.append(row["silent_s"] or 0.0)
            shown = wan.ok(1, "job", "show", run)["runs"]
            return next(each for each in shown if each["run"] == run)["state"] in {"succeeded", "failed"}

        wait_for(over, 120.0, what="the backup is over", every_s=0.3)
        took_s = time.monotonic() - began
        assert took_s > 10, "it was slow"
        assert seen == {(True, "enabled")}
        # what lay behind the backup would be as late as that is; a packet that is lost twice may be seconds late
        assert max(silent) < max(6.0, took_s / 2), silent
        (shown,) = wan.ok(1, "job", "show", run)["runs"]
        assert [each["state"] for each in shown["attempts"]] == ["succeeded"]


@pytest.mark.long
def test_voters_over_slow_lines_stay_with_their_administrator_and_elect_another_one(tmp_path: pathlib.Path) -> None:
    with netns.Site(3) as site:
        wan = Wan(site, tmp_path)
        wan.begin("wan")
        for i in (2, 3):
            wan.join(i, "wan")
            wan.ok(1, "voter", "add", NAMES[i])
        wait_for(lambda: len(wan.ok(1, "status")["voters"]) == 3, 60.0, what="three servers vote", every_s=0.3)
        term = wan.ok(1, "status")["term"]
        for i in NAMES:
            site.slow(i, "2mbit", latency_ms=800)
            site.lose(i, 1)
        source = tmp_path / "source"
        source.mkdir()
        (source / "file").write_bytes(os.urandom(1_500_000))
        target = wan.device(1, tmp_path)
        assert wan.ok(1, "backup", f"beta:{source}", "--to", target, "--wait")["state"] == "succeeded"
        assert wan.ok(1, "status")["term"] == term, "a full line is no reason to elect anybody"
        site.pull(1)

        def another() -> bool:
            status, document = wan.cli(3, "status", "--timeout", "2s")
            return status == 0 and document["admin"] in {"beta", "gamma"}

        wait_for(another, 60.0, what="another one is in office", every_s=0.5)

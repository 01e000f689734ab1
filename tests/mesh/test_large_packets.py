"""A way on which large packets are lost without a word, while small ones pass (a path MTU black hole): what was begun
goes on with smaller packets, and people are told."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import netns
import pytest
from mesh.test_wan import Wan
from waiting import wait_for

pytestmark = [
    pytest.mark.skipif(netns.unavailable() is not None, reason=str(netns.unavailable())),
    pytest.mark.skipif(not netns.Site.can_drop(), reason="nftables is not there"),
]
#: As in a tunnel within a tunnel. An Ethernet has 1500.
PASS_BYTES = 1400


def runs(wan: Wan, *names: str) -> set[str]:
    rows = [row for name in names for row in wan.ok(1, "job", "show", name)["runs"]]
    return {row["state"] for row in rows if row["run"] in names}


def alerts(wan: Wan) -> list[dict[str, Any]]:
    return [each for each in wan.ok(1, "alert", "list")["alerts"] if each["category"] == "large-packets-lost"]


@pytest.mark.long
def test_a_server_that_comes_where_large_packets_are_lost_works_with_small_ones(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(os.urandom(300_000))
    with netns.Site(2) as site:
        wan = Wan(site, tmp_path)
        wan.begin()
        wan.join(2)
        target = wan.device(1, tmp_path)
        wan.daemons[2].terminate()
        assert wan.daemons[2].wait(timeout=60) == 0
        for i in (1, 2):
            site.narrow(i, PASS_BYTES)
        wan.daemon(2)
        wan.wait_connected("beta", timeout_s=60)
        wan.ok(1, "backup", f"beta:{source}", "--to", target, "--wait", "--timeout", "60s")


@pytest.mark.long
@pytest.mark.parametrize("deaf", [(1,), (2,), (1, 2)], ids=["to-member", "to-administrator", "both-ways"])
def test_what_was_begun_goes_on_with_smaller_packets_and_people_are_told(
    tmp_path: pathlib.Path, deaf: tuple[int, ...]
) -> None:
    """With links that had been up for long. A link over which a large message had been sent hung, was lost, came back, and
    hung again, for ever: its server was taken to be there, and what it was given never reached it."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(os.urandom(3_000_000))
    with netns.Site(2) as site:
        wan = Wan(site, tmp_path)
        wan.begin()
        wan.join(2)
        targets = [wan.device(i, tmp_path) for i in (1, 2)]
        for i in deaf:
            site.narrow(i, PASS_BYTES)
        asked = [wan.ok(1, "backup", f"beta:{source}", "--to", target, "--timeout", "60s")["run"] for target in targets]
        wait_for(lambda: runs(wan, *asked) == {"succeeded"}, 120.0, what="both backups are done", every_s=0.5)
        (told,) = wait_for(lambda: alerts(wan), 120.0, what="people are told", every_s=0.5)
        assert told["object"] in {"alpha", "beta"}
        for i in deaf:
            site.narrow(i, None)
        wan.daemons[2].terminate()
        assert wan.daemons[2].wait(timeout=60) == 0
        wan.daemon(2)
        wait_for(lambda: not alerts(wan), 60.0, what="it is over", every_s=0.5)

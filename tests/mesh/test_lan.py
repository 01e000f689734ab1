"""Servers that find each other by mDNS on a LAN of network namespaces, with real daemons and the command line."""

from __future__ import annotations

import pathlib

import netns
import pytest
from mesh.lan import Lan
from mesh.trees import assert_equal, make_tree
from waiting import wait_for

pytestmark = pytest.mark.skipif(netns.unavailable() is not None, reason=str(netns.unavailable()))


def test_new_servers_are_discovered_approved_by_their_code_and_back_up_to_each_other(tmp_path: pathlib.Path) -> None:
    """Nobody configures an address: ``run`` on an empty folder, a code compared, and the mesh works."""
    with netns.Site(3) as site:
        lan = Lan(site, tmp_path)
        lan.ok(1, "init", "--mesh", "meadow", "--server", "alpha", "--listen", "0.0.0.0:7300", "--preset", "local")
        daemons = [lan.run(1)]
        daemons += [lan.run(i, "--server", name, "--listen", "0.0.0.0:7300") for i, name in ((2, "beta"), (3, "gamma"))]
        wait_for(lambda: lan.cli(1, "status", "--timeout", "1s")[0] == 0, timeout_s=60)

        def discovered() -> dict[str, str]:
            rows = lan.ok(1, "server", "list", "--discovered")["servers"]
            return {row["name"]: row["code"] for row in rows}

        wait_for(lambda: set(discovered()) == {"beta", "gamma"}, timeout_s=60)
        codes = discovered()
        assert f"Code: {codes['beta']}" in lan.log(2)

        status, document = lan.cli(1, "server", "approve", "beta", "--code", codes["gamma"])
        assert (status, document["error"]["code"]) == (4, "code-mismatch")
        for name, code in codes.items():
            lan.ok(1, "server", "approve", name, "--code", code)

        def linked() -> bool:
            rows = lan.ok(1, "server", "list")["servers"]
            return len(rows) == 3 and all(row["connected"] and row["state"] == "enabled" for row in rows)

        wait_for(linked, timeout_s=60)
        assert discovered() == {}

        device, source, back = tmp_path / "device", tmp_path / "source", tmp_path / "back"
        device.mkdir()
        make_tree(source, files=200)
        lan.ok(1, "device", "add", "disk", "--server", "beta", "--path", str(device))
        lan.ok(1, "pool", "create", "vaults", "--server", "beta")
        result = lan.ok(1, "backup", f"gamma:{source}", "--to", "pool:vaults", "--wait")
        assert (result["server"], result["device"], result["state"]) == ("beta", "disk", "succeeded")
        lan.ok(1, "restore", result["set"], "--to", f"gamma:{back}", "--strip", "--wait")
        assert_equal(source, back)

        for daemon in daemons:
            daemon.terminate()
        assert [daemon.wait(timeout=60) for daemon in daemons] == [0, 0, 0]


def test_servers_of_one_mesh_find_each_other_again_at_new_addresses(tmp_path: pathlib.Path) -> None:
    """The administrator's port changes while it is down: the others learn it from the LAN, no peer is configured."""
    with netns.Site(2) as site:
        lan = Lan(site, tmp_path)
        lan.ok(1, "init", "--mesh", "meadow", "--server", "alpha", "--listen", "0.0.0.0:7300", "--preset", "local")
        admin = lan.run(1)
        wait_for(lambda: lan.cli(1, "status", "--timeout", "1s")[0] == 0, timeout_s=60)
        link = lan.ok(1, "token", "create")["link"]
        lan.ok(2, "join", link, "--server", "beta", "--listen", "0.0.0.0:7300", "--preset", "local")
        lan.run(2)
        wait_for(lambda: all(row["connected"] for row in lan.ok(1, "server", "list")["servers"]), timeout_s=60)
        admin.terminate()
        assert admin.wait(timeout=60) == 0
        config = pathlib.Path(lan.state(1)) / "config.toml"
        config.write_text(config.read_text("utf-8").replace("0.0.0.0:7300", "0.0.0.0:7311"), "utf-8")
        lan.run(1)

        def at_the_new_port() -> bool:
            status, document = lan.cli(2, "status", "--timeout", "1s")
            return status == 0 and document["admin"] == "alpha"

        wait_for(at_the_new_port, timeout_s=60)

"""``what-if`` as a person asks it of real daemons."""

from __future__ import annotations

import datetime
import pathlib
from collections.abc import Callable

from mesh.process import ProcessMesh
from waiting import wait_for


def test_a_person_asks_what_the_night_will_be_like_without_a_server_and_nothing_has_changed(
    process_mesh: Callable[..., ProcessMesh], tmp_path: pathlib.Path
) -> None:
    mesh, source = process_mesh(2), tmp_path / "source"
    mesh.wait_connected("beta")
    source.mkdir()
    (source / "file").write_bytes(b"some bytes\n" * 1000)
    (tmp_path / "disk").mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(tmp_path / "disk"))
    # each hour, not now, and so that what is taken to last ten minutes ends before the full hour
    schedule = "5 * * * *" if 20 <= datetime.datetime.now(datetime.UTC).minute < 50 else "35 * * * *"
    for server in ("alpha", "beta"):
        mesh.ok(
            "alpha", "backup", f"{server}:{source}", "--to", "device:disk", "--name", server, "--schedule", schedule
        )
    for server in ("alpha", "beta"):
        run = mesh.ok("alpha", "job", "run", server)["run"]
        wait_for(lambda run=run: mesh.ok("alpha", "job", "show", run)["runs"][0]["state"] == "succeeded", timeout_s=60)

    view = mesh.ok("alpha", "what-if", "--days", "2")
    assert view["good"], view
    assert {row["name"]: row["done"] == row["runs"] > 20 for row in view["lists"]} == {"alpha": True, "beta": True}
    assert {run["device"] for run in view["runs"]} == {"disk"}
    # asked at another server it is the same administrator who answers
    view = mesh.ok("beta", "what-if", "--without", "beta", "--days", "2")
    assert view["without"] == ["beta"]
    assert {row["name"]: (row["missed"] > 0, row["usual"]) for row in view["lists"]} == {
        "alpha": (False, True),
        "beta": (True, True),
    }
    text = mesh.cli("alpha", "what-if", "--without", "beta", "--days", "2", "--runs", json_output=False).stdout
    assert "1 job misses: beta (beta is unreachable since " in text.splitlines()[0]
    assert "DEVICE" in text
    assert "missed" in text
    wrong = mesh.cli("alpha", "what-if", "--night", "--days", "2")
    assert wrong.error_code == "usage"
    assert mesh.cli("alpha", "what-if", "--without", "nobody").error_code == "not-found"
    servers = {row["name"]: row for row in mesh.ok("alpha", "server", "list")["servers"]}
    assert (servers["beta"]["state"], servers["beta"]["connected"]) == ("enabled", True)

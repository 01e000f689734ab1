"""The certification authority is rotated in haste while a server is away: it comes back as a stranger, is told so, and joins again."""

from __future__ import annotations

import pathlib
import shutil

import pytest
from mesh.process import running_mesh
from waiting import wait_for


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_server_that_was_away_while_the_ca_was_rotated_is_told_that_it_is_a_stranger_and_joins_again(
    tmp_path: pathlib.Path,
) -> None:
    with running_mesh(tmp_path / "mesh") as mesh:
        mesh.start(3)
        mesh.terminate("gamma")
        before = mesh.ok("alpha", "admin", "ca")["root"]
        mesh.ok("alpha", "admin", "rotate-ca", "--urgent")

        def switched() -> bool:
            shown = mesh.ok("alpha", "admin", "ca")
            # nobody waits for gamma, and nobody can call what it holds renewed
            lacking = set(shown["lacking"])
            return shown["rotation"] == "switched" and "gamma" in lacking and not lacking & {"alpha", "beta"}

        wait_for(switched, 90.0, what="alpha and beta have certificates of the new CA", every_s=0.5)
        mesh.restart("beta")
        mesh.wait_connected("beta")
        assert mesh.ok("alpha", "admin", "ca")["root"] != before

        mesh.run("gamma")
        told = wait_for(lambda: _strange(mesh), 30.0, what="gamma says that it is a stranger", every_s=0.5)
        assert "join LINK --replaces gamma" in told
        assert "gamma" not in {row["name"] for row in mesh.ok("alpha", "server", "list")["servers"] if row["connected"]}
        mesh.terminate("gamma")
        shutil.rmtree(mesh.state("gamma"))
        mesh.ok("gamma", "join", mesh.link(), "--replaces", "gamma", "--listen", "127.0.0.1:0", json_output=False)
        mesh._only_loopback("gamma")
        mesh.run("gamma")
        mesh.wait_connected("alpha", "beta", "gamma")
        assert mesh.ok("gamma", "status")["mesh"] == "meadow"


def _strange(mesh: object) -> str | None:
    answer = mesh.cli("gamma", "server", "list", "--timeout", "1s")  # type: ignore[attr-defined]
    if answer.status == 3 and answer.error_code == "strange-certificates":
        return str(answer.document["error"]["hint"])
    return None

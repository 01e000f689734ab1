"""An operator who keeps a context works on without the server that the key came from, and after its certificate expired."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from mesh.process import Answer, ProcessMesh
from waiting import wait_for

from caso_mesh.identity.certificates import NODE_LIFE_S, life
from caso_mesh.identity.store import IdentityStore
from caso_mesh.model.orders import Orders


def by_context(mesh: ProcessMesh, *words: str) -> Answer:
    """What the operator ``boss`` is answered, without any state folder."""
    argv = ("--context", "boss", *words)
    return mesh.execute([sys.executable, "-m", "caso_mesh", *argv, "--json"], argv, json_output=True)


def heard_of(mesh: ProcessMesh, name: str) -> set[str]:
    """Who is on the roster of the orders of a server, as they lie on its disk."""
    with contextlib.closing(sqlite3.connect(f"file:{mesh.state(name) / 'queue.db'}?mode=ro", uri=True)) as found:
        (data,) = found.execute("SELECT data FROM orders").fetchone()
    return {row.name for row in msgspec.msgpack.decode(data, type=Orders).roster.rows}


def test_the_first_servers_operator_administers_the_mesh_when_that_server_and_its_disk_are_gone(
    process_mesh: Callable[..., ProcessMesh],
) -> None:
    mesh = process_mesh(0)
    mesh.start(3, voters=True)
    wait_for(lambda: len(mesh.ok("alpha", "status")["voters"]) == 3, 30.0, what="three servers vote")
    made = mesh.ok("alpha", "context", "create", "boss")
    assert sorted(made["endpoints"]) == sorted(mesh.endpoint(name) for name in mesh.names)
    everybody = {"alpha", "beta", "gamma", "local-alpha"}
    for name in ("beta", "gamma"):
        wait_for(lambda name=name: everybody <= heard_of(mesh, name), what=f"{name} has heard of the others")
    mesh.kill("alpha")
    mesh.wipe("alpha")
    # another one is in office, and whoever is asked knows the operator
    wait_for(lambda: by_context(mesh, "token", "create", "--timeout", "60s").status == 0, 60.0, what="it is done")
    wait_for(
        lambda: mesh.cli("beta", "token", "create").error_code == "role-too-low",
        what="beta's own operator is a viewer, says whoever is in office",
    )
    # with it the key would be revoked that is the only one of its kind
    refused = by_context(mesh, "server", "remove", "alpha")
    assert (refused.status, refused.error_code) == (6, "conflict"), refused
    assert by_context(mesh, "server", "disable", "alpha").status == 0


def test_a_context_that_was_not_used_for_weeks_gets_a_new_certificate(process_mesh: Callable[..., ProcessMesh]) -> None:
    mesh = process_mesh(1)
    folder = Path(mesh.ok("alpha", "context", "create", "boss")["folder"])
    authority, context = IdentityStore(mesh.state("alpha") / "identity").load_authority(), IdentityStore(folder)
    operator = context.load_operator()
    then_ns = time.time_ns() - int(3 * NODE_LIFE_S * 1e9)
    old = authority.issue_operator(operator.key.public_key, now_ns=then_ns)
    context.write_operator(operator.key, authority.chain(old))
    refused = by_context(mesh, "status")
    assert (refused.status, refused.error_code) == (4, "refused"), refused
    assert "has expired" in refused.document["error"]["message"]
    os.utime(folder / "anchors.pem", (1, 1))
    assert by_context(mesh, "status").status == 0
    assert life(context.load_operator().chain[0]).not_after_ns > time.time_ns()
    assert by_context(mesh, "token", "create").status == 0

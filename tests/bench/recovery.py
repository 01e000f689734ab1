"""One disk and the recovery kit on a bare machine: how long until the whole mesh is back."""

from __future__ import annotations

import argparse
import pathlib
import shutil
import tempfile
import time

from mesh.process import ProcessMesh, running_mesh
from mesh.trees import assert_equal, make_tree
from waiting import wait_for

_PASSPHRASE = "a passphrase of the measurement"


def main(chosen: argparse.Namespace) -> int:
    """Runs it and prints the seconds; raises if anything does not come back."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="caso-mesh-recover-", dir=chosen.folder))
    try:
        with running_mesh(folder / "mesh") as mesh:
            _lose(mesh, folder, chosen.servers, chosen.files)
            _recover(mesh, folder)
    finally:
        shutil.rmtree(folder)
    return 0


def _lose(mesh: ProcessMesh, folder: pathlib.Path, servers: int, files: int) -> None:
    """A mesh at work; then the machine of its administrator is gone, and only the disk of one of its devices is left."""
    mesh.start(servers)
    disk, tree = folder / "disk", make_tree(folder / "data", files=files)
    disk.mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(disk))
    for source in mesh.names[:2]:
        mesh.ok("alpha", "backup", f"{source}:{tree}", "--to", "device:disk", "--wait", timeout_s=600)
    (folder / "passphrase").write_text(_PASSPHRASE)
    mesh.ok("alpha", "kit", "create", str(folder / "kit"), "--passphrase-file", str(folder / "passphrase"))
    before = {row["name"]: row["id"] for row in mesh.ok("alpha", "server", "list")["servers"]}
    wait_for(lambda: any((disk / "mesh").glob("*")), 30.0, what="a copy of the mesh lies in the device", every_s=0.1)
    print(f"{len(before)} servers, {len(mesh.sets())} sets of {files} files", flush=True)
    mesh.kill("alpha")
    shutil.rmtree(mesh.state("alpha"))


def _recover(mesh: ProcessMesh, folder: pathlib.Path) -> None:
    members = [name for name in mesh.names if name != "alpha"]
    keys = {name: (mesh.state(name) / "identity" / "node.pem").read_bytes() for name in members}
    disk, tree = folder / "disk", folder / "data"
    kit = ("--kit", str(folder / "kit"), "--passphrase-file", str(folder / "passphrase"))
    began_s = time.monotonic()

    def tell(what: str) -> None:
        print(f"{what:46} {time.monotonic() - began_s:6.2f} s", flush=True)

    done = mesh.ok("alpha", "recover", str(disk), *kit)
    tell("the administrator is rebuilt from kit and disk")
    mesh.run("alpha")
    status = mesh.ok("alpha", "status")
    assert (status["admin"], status["servers"]) == ("alpha", len(mesh.names)), status
    tell("its daemon answers status")
    mesh.wait_connected(*mesh.names, timeout_s=120.0)
    tell(f"all {len(mesh.names)} servers are linked with it")
    sets = mesh.sets()
    assert len(sets) == done["sets"] == 2, sets
    for row in sets:
        back = folder / f"back-{row['source']}"
        words = ("restore", row["id"], "--to", f"{row['source']}:{back}", "--strip", "--wait")
        result = mesh.ok("alpha", *words, timeout_s=600)
        assert result["state"] == "succeeded", result
        assert_equal(tree, back)
        tell(f"the set of {row['source']} is restored, and equal")
    ended = mesh.ok("alpha", "backup", f"{members[-1]}:{tree}", "--to", "device:disk", "--wait", timeout_s=600)
    assert ended["state"] == "succeeded", ended
    tell(f"a new backup of {members[-1]} has succeeded")
    assert {name: (mesh.state(name) / "identity" / "node.pem").read_bytes() for name in members} == keys
    print("no server enrolled again: each has the keys it had")

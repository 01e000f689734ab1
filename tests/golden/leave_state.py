"""Leaves the databases of a small mesh as this program writes them, for later ones to open:

    .venv/bin/python -m tests.golden.leave_state

writes ``state-N.json`` of this feature level. What lies in it is read by ``test_golden_states``; its keys are thrown away.
"""

from __future__ import annotations

import base64
import json
import lzma
import sqlite3
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from mesh.process import running_mesh
from waiting import wait_for

from caso_mesh.model.features import FEATURE_LEVEL

FOLDER = Path(__file__).parent
DATABASES = ("journal.db", "queue.db", "consensus.db", "tables/tables.db", "catalog/catalog.db")


def packed(path: Path) -> str:
    """A database as one file, compressed."""
    connection = sqlite3.connect(path)
    for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA journal_mode=DELETE", "VACUUM"):
        connection.execute(statement)
    connection.close()
    return base64.b64encode(lzma.compress(path.read_bytes(), preset=9 | lzma.PRESET_EXTREME)).decode()


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with running_mesh(folder / "mesh") as mesh:
            mesh.start(2)
            data = folder / "data"
            data.mkdir()
            for name, text in (("one", "one"), ("two", "two two")):
                (data / name).write_text(text)
            for name in ("alpha", "beta"):
                (folder / name).mkdir()
                mesh.ok("alpha", "device", "add", f"disk-{name}", "--server", name, "--path", str(folder / name))
            mesh.ok("alpha", "pool", "create", "all", "--server", "alpha", "--server", "beta")
            nightly = ("--schedule", "0 2 * * *", "--zone", "Europe/Berlin", "--name", "nightly")
            mesh.ok("alpha", "backup", f"beta:{data}", "--to", "device:disk-beta", *nightly)
            mesh.ok("alpha", "settings", "set", "stalled-after-s", "7m")
            mesh.ok("alpha", "notify", "recipient", "create", "ann", "--mail", "ann@example.org")
            mesh.ok("alpha", "settings", "set", "catalog-mode", "replicated", "--server", "beta")
            to = ("--to", "device:disk-alpha", "--wait")
            sets = [mesh.ok("alpha", "backup", f"beta:{data}", *to)["set"]]
            (data / "two").write_text("two two two")
            sets.append(mesh.ok("alpha", "backup", f"beta:{data}", "--type", "incremental", *to)["set"])
            for set_id in sets:
                wait_for(lambda set_id=set_id: mesh.cli("alpha", "catalog", "ls", set_id, str(data)).status == 0, 30.0)
            places = {f"{name}/{each}": mesh.state(name) / each for name in ("alpha", "beta") for each in DATABASES}
        files = {name: packed(path) for name, path in places.items() if path.exists()}
    what = f"databases of two state folders, as a program of feature level {FEATURE_LEVEL} wrote them (xz, base64)"
    text = json.dumps({"what": what, "sets": sets, "files": files}, indent=0)
    (FOLDER / f"state-{FEATURE_LEVEL}.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()

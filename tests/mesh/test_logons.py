"""Logon information, over real daemons and the real command line."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator

from mesh.process import ProcessMesh
from waiting import wait_for

SECRET, LATER = "Top-Secret-4711-ÄÖ", "another Phrase 0815"
DUMP = 'echo "$PGUSER"; printf %s "$PGPASSWORD" | sha256sum; echo "it is $PGPASSWORD" >&2'
ENTRY = '\n[commands.{name}]\nkind = "{kind}"\nargv = ["/bin/sh", "-c", \'{text}\']\n{more}\n'
VARIABLES = 'logon = { user = "PGUSER", secret = "PGPASSWORD" }'


def allow(mesh: ProcessMesh, server: str, name: str, kind: str, text: str, more: str = "") -> None:
    with (mesh.state(server) / "config.toml").open("a", encoding="utf-8") as file:
        file.write(ENTRY.format(name=name, kind=kind, text=text, more=more))


def files_with(folder: pathlib.Path, word: bytes) -> Iterator[pathlib.Path]:
    for place, _, names in os.walk(folder):
        for path in (pathlib.Path(place) / name for name in names):
            if path.is_file() and word in path.read_bytes():
                yield path


def test_logon_information_is_given_to_commands_follows_a_pool_and_lies_open_nowhere(
    process_mesh: Callable[..., ProcessMesh], tmp_path: pathlib.Path
) -> None:
    mesh = process_mesh(0)
    mesh.init("alpha")
    mesh.run("alpha")
    taken = tmp_path / "taken"
    for name in ("beta", "gamma"):
        mesh.join(name)
        allow(mesh, name, "who", "dump", DUMP, VARIABLES)
        allow(mesh, name, "take", "restore", f'(cat; echo "$CASO_MESH_LOGON_USER") > {taken}')
    mesh.run_all("beta", "gamma")
    mesh.wait_connected("alpha", "beta", "gamma")
    (mesh.folder / "disk").mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(mesh.folder / "disk"))
    mesh.ok("alpha", "pool", "create", "dbs", "--server", "beta")
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(f"{SECRET}\n", "utf-8")
    second.write_text(LATER, "utf-8")

    made = mesh.ok("alpha", "logon", "create", "db", "--user", "backup", "--pool", "dbs", "--secret-file", str(first))
    assert (made["there"], made["lacking"]) == (["beta"], [])

    def dumped(server: str) -> tuple[str, str]:
        """Set and content of a dump."""
        result = mesh.ok("alpha", "backup", f"{server}:@who", "--to", "any", "--logon", "db", "--wait")
        assert result["state"] == "succeeded", result
        answer = mesh.cli("alpha", "cat", result["set"], "/@dumps/who", json_output=False)
        assert answer.status == 0, answer
        assert "who: it is ***" in mesh.logged(result["run"], "who: it is").splitlines()
        return result["set"], answer.stdout

    def expected(secret: str) -> str:
        return f"backup\n{hashlib.sha256(secret.encode()).hexdigest()}  -\n"

    set_id, content = dumped("beta")
    assert content == expected(SECRET)
    mesh.ok("alpha", "restore", set_id, "--into-command", "take", "--logon", "db", "--wait")
    assert taken.read_text() == expected(SECRET) + "backup\n"

    # a server that may not use it is refused, and one that joins the pool is handed a copy by the one that has it
    refused = mesh.cli("alpha", "backup", "gamma:@who", "--to", "any", "--logon", "db")
    assert (refused.status, refused.error_code) == (4, "logon-not-permitted"), refused
    mesh.ok("alpha", "pool", "set", "dbs", "--server", "beta", "--server", "gamma")
    wait_for(
        lambda: mesh.ok("alpha", "logon", "list")["logons"][0]["there"] == ["beta", "gamma"], 60.0,
        what="gamma has a copy",
    )  # fmt: skip
    assert dumped("gamma")[1] == expected(SECRET)

    mesh.ok("alpha", "logon", "set", "db", "--secret-file", str(second))
    assert dumped("gamma")[1] == expected(LATER)

    mesh.ok(
        "alpha", "backup", "beta:@who", "--to", "any", "--logon", "db", "--schedule", "0 3 1 1 *", "--name", "nightly"
    )
    in_use = mesh.cli("alpha", "logon", "delete", "db")
    assert (in_use.status, in_use.error_code) == (6, "in-use"), in_use
    mesh.ok("alpha", "job", "delete", "nightly")
    mesh.ok("alpha", "logon", "delete", "db")

    changes = mesh.audited("--what", "logon.", enough=lambda rows: len(rows) >= 4)
    assert [(row["what"], row["outcome"]) for row in reversed(changes)] == [
        ("logon.create", "done"), ("logon.set", "done"), ("logon.delete", "in-use"), ("logon.delete", "done"),
    ]  # fmt: skip
    assert changes[-1]["fields"]["user"] == "backup" and changes[-1]["fields"]["users"]["pools"] == ["dbs"]
    for server in ("alpha", "beta", "gamma"):
        mesh.terminate(server)
    for secret in (SECRET, LATER):
        assert list(files_with(mesh.folder, secret.encode())) == []

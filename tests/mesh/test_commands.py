"""Commands of a server's own file, over real daemons and the real command line."""

from __future__ import annotations

import os

from waiting import wait_for


def allow(mesh, server: str, name: str, kind: str, text: str) -> None:
    """Adds an entry to the file of a server; it is read at the next start."""
    with (mesh.state(server) / "config.toml").open("a", encoding="utf-8") as file:
        file.write(f'\n[commands.{name}]\nkind = "{kind}"\nargv = ["/bin/sh", "-c", \'{text}\']\n')


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_dump_of_one_server_is_stored_at_another_and_fed_to_a_command_of_a_third(process_mesh, tmp_path):
    """Names travel, nothing else: what is in no file of the server concerned is refused at once."""
    mesh = process_mesh(0)
    mesh.init("alpha")
    mesh.run("alpha")
    for name in ("beta", "gamma"):
        mesh.join(name)
    pid = tmp_path / "pid"
    allow(mesh, "beta", "numbers", "dump", "seq 1 300000; echo said >&2")
    allow(mesh, "beta", "broken", "dump", "echo half; exit 3")
    allow(mesh, "beta", "slow", "dump", f"echo $$ > {pid}; sleep 600")
    allow(mesh, "beta", "before", "pre", f"echo before >> {tmp_path}/order")
    allow(mesh, "beta", "after", "post", f"echo after >> {tmp_path}/order")
    allow(mesh, "gamma", "take", "restore", f"cat > {tmp_path}/taken")
    mesh.run_all("beta", "gamma")
    mesh.wait_connected("alpha", "beta", "gamma")
    (mesh.folder / "disk").mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(mesh.folder / "disk"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("a file")

    refused = [
        ("backup", "beta:@absent", "--to", "any"),
        ("backup", "beta:@before", "--to", "any"),
        ("backup", "alpha:@numbers", "--to", "any"),
        ("backup", f"beta:{tmp_path}/data", "--to", "any", "--pre", "numbers"),
    ]
    for argv in refused:
        assert mesh.cli("alpha", *argv).error_code == "command-not-allowed", argv
    assert mesh.cli("alpha", "backup", "beta:@../x", "--to", "any").error_code == "invalid-value"

    result = mesh.ok(
        "alpha", "backup", "beta:@numbers", f"beta:{tmp_path}/data", "--to", "any", "--pre", "before", "--post", "after",
        "--wait",
    )  # fmt: skip
    assert result["state"] == "succeeded", result
    assert (tmp_path / "order").read_text() == "before\nafter\n"
    (row,) = mesh.ok("alpha", "set", "list")["sets"]
    assert "/@dumps/numbers" in row["paths"] and row["files"] == 2

    not_there = mesh.cli("alpha", "restore", row["id"], "--into-command", "take")
    assert not_there.error_code == "command-not-allowed"
    assert mesh.cli("alpha", "restore", row["id"], "/@dumps/numbers").error_code == "usage"
    back = mesh.ok("alpha", "restore", row["id"], "--into-command", "gamma:take", "--wait")
    assert back["state"] == "succeeded", back
    taken = (tmp_path / "taken").read_text().split()
    assert taken == [str(number) for number in range(1, 300001)]

    failed = mesh.cli("alpha", "backup", "beta:@broken", "--to", "any", "--wait")
    assert failed.status == 1 and len(mesh.ok("alpha", "set", "list")["sets"]) == 1

    mesh.ok("alpha", "backup", "beta:@slow", "--to", "any")
    wait_for(lambda: pid.exists() and pid.read_text().strip(), 30.0, what="the slow dump runs")
    mesh.kill("beta")
    wait_for(lambda: not is_alive(int(pid.read_text())), 30.0, what="it ends with the killed daemon")

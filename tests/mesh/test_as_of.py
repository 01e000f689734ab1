"""Points in time and single files, with real daemons: which set has what was there, and one file's bytes."""

from __future__ import annotations

import os
import subprocess
import time

from mesh.process import ProcessMesh
from mesh.test_spine import disk, with_pool


def cat(mesh: ProcessMesh, at: str, *argv: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        mesh.command(at, "cat", *argv), capture_output=True, check=False, env=mesh.environment(), timeout=60
    )


def wait_for_the_next_second(ended: str) -> None:
    """Instants are shown by whole seconds: two sets of one second could not be told apart."""
    while time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) <= ended:
        time.sleep(0.05)


def test_a_restore_as_of_a_time_takes_the_newest_set_that_can_be_read(process_mesh, tmp_path):
    tree = tmp_path / "data"
    tree.mkdir()
    file = tree / "notes"
    file.write_text("first")
    mesh = process_mesh(3)
    with_pool(mesh, "beta", "gamma")
    first = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "device:disk-beta", "--wait")
    ended = {row["id"]: row["ended"] for row in mesh.sets()}
    wait_for_the_next_second(ended[first["set"]])
    between = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    wait_for_the_next_second(between)
    file.write_text("second")
    (tree / "later").write_text("x")
    second = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "device:disk-gamma", "--wait")

    def back(*more: str):
        base = tmp_path / f"back-{time.monotonic_ns()}"
        answer = mesh.cli("alpha", "restore", f"alpha:{file}", *more, "--to", f"beta:{base}", "--wait")
        return answer, base / str(file).lstrip("/")

    answer, where = back()
    assert (answer.status, where.read_text()) == (0, "second"), answer
    assert f"set {second['set']} of alpha" in answer.stderr
    assert "on the device disk-gamma of gamma" in answer.stderr
    (went,) = answer.document["destinations"]
    assert went == {"source": "alpha", "source_path": str(file), "server": "beta", "path": str(where)}
    answer, where = back("--as-of", between)
    assert (answer.status, where.read_text()) == (0, "first"), answer
    assert f"set {first['set']} of alpha" in answer.stderr

    too_early = mesh.cli("alpha", "restore", f"alpha:{file}", "--as-of", "2001-01-01T00:00Z", "--to", "beta:/tmp/x")
    assert (too_early.status, too_early.error_code) == (5, "not-found")
    not_yet = mesh.cli("alpha", "restore", f"alpha:{tree}/later", "--as-of", between, "--to", "beta:/tmp/x")
    assert (not_yet.status, not_yet.error_code) == (5, "path-not-in-set")
    elsewhere = mesh.cli("alpha", "restore", "alpha:/nobody/backed/this/up", "--to", "beta:/tmp/x")
    assert (elsewhere.status, elsewhere.error_code) == (5, "not-found")
    alone = mesh.cli("alpha", "restore", first["set"], "--as-of", between)
    assert alone.status == 2, alone

    # the newest set lies where nobody reaches it now: the next one is taken, and it says so
    mesh.terminate("gamma")
    answer, where = back("--timeout", "30s")
    assert (answer.status, where.read_text()) == (0, "first"), answer
    assert f"the newer set {second['set']}" in answer.stderr
    mesh.terminate("beta")
    nobody = cat(mesh, "alpha", f"alpha:{file}", "--timeout", "3s")
    assert nobody.returncode == 3, nobody
    assert b"disk-beta" in nobody.stderr


def test_cat_prints_one_file_byte_for_byte_and_its_exit_status_can_be_relied_on(process_mesh, tmp_path):
    tree = tmp_path / "data"
    tree.mkdir()
    content = os.urandom(9_500_003)
    (tree / "large").write_bytes(content)
    (tree / "empty").touch()
    os.link(tree / "large", tree / "second name")
    (tree / "link").symlink_to("large")
    with (tree / "sparse").open("wb") as sparse:
        sparse.seek(3_000_000)
        sparse.write(b"\r\n\x00\x1a behind a hole")
        sparse.truncate(5_000_000)
    odd = os.fsencode(tree) + b"/not utf-8 \xff"
    with open(odd, "wb") as file:
        file.write(b"odd")
    mesh = process_mesh(2)
    with_pool(mesh, "beta")
    made = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "any", "--wait")["set"]

    for name in ("large", "second name", "empty", "sparse"):
        got = cat(mesh, "alpha", made[:20], f"{tree}/{name}")
        assert (got.returncode, got.stderr) == (0, b""), got.stderr
        assert got.stdout == (tree / name).read_bytes(), name
    assert cat(mesh, "alpha", made, "--escaped", f"{tree}/not utf-8 \\xff").stdout == b"odd"
    newest = cat(mesh, "alpha", f"alpha:{tree}/large")
    assert newest.stdout == content
    assert made.encode() in newest.stderr

    for path, code, status in (("link", b"symlink", 2), ("", b"directory", 2), ("nothing", b'no "', 5)):
        refused = cat(mesh, "alpha", made, f"{tree}/{path}")
        assert (refused.returncode, refused.stdout) == (status, b""), refused
        assert code in refused.stderr
    large = f"{tree}/large"
    mesh.audited(what="file.open", outcome="done", enough=lambda rows: any(r["fields"]["path"] == large for r in rows))

    # what is damaged is not passed off as the file
    for pack in (disk(mesh, "beta") / "packs" / "d").rglob("*"):
        if pack.is_file():
            data = bytearray(pack.read_bytes())
            data[len(data) // 2] ^= 1
            pack.chmod(0o600)
            pack.write_bytes(data)
    mesh.restart("beta")
    mesh.wait_connected("beta")
    broken = cat(mesh, "alpha", made, f"{tree}/large")
    assert broken.returncode == 1
    assert b"damaged" in broken.stderr
    assert content.startswith(broken.stdout)
    assert len(broken.stdout) < len(content)


def test_a_set_that_turned_out_damaged_is_passed_over_and_restored_by_its_id_all_the_same(process_mesh, tmp_path):
    tree = tmp_path / "data"
    tree.mkdir()
    (tree / "whole").write_bytes(os.urandom(300_000))
    mesh = process_mesh(2)
    with_pool(mesh, "beta")
    backup = ("backup", f"alpha:{tree}", "--to", "any", "--wait")
    first = mesh.ok("alpha", *backup)["set"]
    packs = {path for path in (disk(mesh, "beta") / "packs" / "d").rglob("*") if path.is_file()}
    (tree / "hit").write_bytes(os.urandom(300_000))
    second = mesh.ok("alpha", *backup)["set"]
    (new,) = {path for path in (disk(mesh, "beta") / "packs" / "d").rglob("*") if path.is_file()} - packs
    data = bytearray(new.read_bytes())
    data[len(data) // 2] ^= 1
    new.chmod(0o600)
    new.write_bytes(data)
    assert mesh.cli("alpha", "verify", second, "--wait").status == 1

    base = tmp_path / "back"
    answer = mesh.cli("alpha", "restore", f"alpha:{tree}", "--to", f"beta:{base}", "--wait")
    assert (answer.status, answer.document["state"]) == (0, "succeeded"), answer
    assert f"set {first} of alpha" in answer.stderr
    assert f"the newer set {second}" in answer.stderr
    assert f"{tree}/hit" in answer.stderr
    only = mesh.cli("alpha", "restore", f"alpha:{tree}/hit", "--to", f"beta:{base}", "--wait")
    assert (only.status, only.error_code) == (1, "none-whole"), "the set before did not have it yet"
    assert f"caso-mesh restore {second} {tree}/hit" in only.document["error"]["hint"]
    broken = mesh.cli("alpha", "restore", second, "--to", f"beta:{base}", "--strip", "--wait")
    assert (broken.status, broken.document["state"]) == (7, "succeeded-with-exceptions"), broken
    assert [row["path"] for row in broken.document["exceptions"]] == [f"{tree}/hit"]
    assert (base / "whole").read_bytes() == (tree / "whole").read_bytes()
    assert {row["id"]: row["damaged"] for row in mesh.sets()} == {first: False, second: True}

"""Sources that change or refuse while they are read, and targets that lead elsewhere: what is not as it was is named, the
rest is kept, and nothing is written outside."""

from __future__ import annotations

import os
import pathlib
import threading

from mesh.process import ProcessMesh
from mesh.trees import assert_equal, make_large_tree, make_tree

MEGABYTE = 1_000_000


def with_device(mesh: ProcessMesh) -> pathlib.Path:
    disk = mesh.folder / "disk"
    disk.mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(disk))
    return disk


def test_a_file_that_grows_while_it_is_read_is_kept_as_far_as_it_went_and_named(process_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=50)
    mesh = process_mesh(1)
    with_device(mesh)
    growing = tree / "growing"
    growing.write_bytes(os.urandom(20 * MEGABYTE))
    done = threading.Event()

    def grow() -> None:
        with growing.open("ab", buffering=0) as file:
            while not done.wait(0.0005):
                file.write(b"one more line\n")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        answer = mesh.cli("alpha", "backup", f"alpha:{tree}", "--to", "device:disk", "--wait")
    finally:
        done.set()
        writer.join()
    assert (answer.status, answer.document["state"]) == (7, "succeeded-with-exceptions"), str(answer)
    [exception] = answer.document["exceptions"]
    assert exception["path"] == str(growing)
    assert "changed-while-read" in exception["reason"]
    back = mesh.folder / "back"
    mesh.ok("alpha", "restore", answer.document["set"], "--to", f"alpha:{back}", "--strip", "--wait")
    kept = (back / "growing").read_bytes()
    assert len(kept) >= 20 * MEGABYTE
    assert growing.read_bytes().startswith(kept)
    growing.unlink()
    (back / "growing").unlink()
    os.utime(back, ns=(tree.stat().st_atime_ns, tree.stat().st_mtime_ns))
    assert_equal(tree, back)


def test_a_file_rewritten_while_it_is_read_is_named_and_read_whole_by_the_next_backup(process_mesh, tmp_path):
    """In place and of the same size: only its times tell. Beside it a file that shrinks and grows again."""
    tree = make_tree(tmp_path / "data", files=50)
    mesh = process_mesh(1)
    with_device(mesh)
    rewritten, shrinking = tree / "rewritten", tree / "shrinking"
    rewritten.write_bytes(os.urandom(20 * MEGABYTE))
    shrinking.write_bytes(os.urandom(20 * MEGABYTE))
    done = threading.Event()

    def rewrite() -> None:
        with rewritten.open("r+b", buffering=0) as one, shrinking.open("r+b", buffering=0) as two:
            number = 0
            while not done.wait(0.0005):
                os.pwrite(one.fileno(), os.urandom(16), number * 997 * 4096 % (20 * MEGABYTE - 16))
                two.truncate(MEGABYTE + number)
                os.pwrite(two.fileno(), b"end", 20 * MEGABYTE - 3)
                number += 1

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        answer = mesh.cli("alpha", "backup", f"alpha:{tree}", "--to", "device:disk", "--wait")
    finally:
        done.set()
        writer.join()
    assert (answer.status, answer.document["state"]) == (7, "succeeded-with-exceptions"), str(answer)
    named = {row["path"]: row["reason"] for row in answer.document["exceptions"]}
    # the other one may have been read between two of its changes
    assert {str(rewritten)} <= set(named) <= {str(rewritten), str(shrinking)}
    assert all("changed-while-read" in reason for reason in named.values())
    words = ("backup", f"alpha:{tree}", "--to", "device:disk", "--type", "incremental", "--wait")
    made = mesh.ok("alpha", *words)
    assert made["state"] == "succeeded"
    back = mesh.folder / "back"
    mesh.ok("alpha", "restore", made["set"], "--to", f"alpha:{back}", "--strip", "--wait")
    assert_equal(tree, back)


def test_files_that_vanish_while_a_backup_runs_cost_themselves_only_and_are_named(process_mesh, tmp_path):
    tree = make_large_tree(tmp_path / "data")
    mesh = process_mesh(1)
    disk = with_device(mesh)
    begun = mesh.begin("alpha", "backup", f"alpha:{tree}", "--to", "device:disk", "--wait")
    last = sorted(tree.iterdir())[-1]
    with mesh.freeze("alpha", disk):
        last.unlink()
    answer = begun.end()
    back = mesh.folder / "back"
    assert answer.document["state"] in {"succeeded", "succeeded-with-exceptions"}, str(answer)
    named = {pathlib.Path(row["path"]).name for row in answer.document["exceptions"]}
    mesh.ok("alpha", "restore", answer.document["set"], "--to", f"alpha:{back}", "--strip", "--wait")
    there = {path.name for path in back.iterdir()}
    assert there | named >= {path.name for path in tree.iterdir()}
    # either it had been read before, or the walk had its name and says that it is gone: as an exception, or in the log if
    # it was gone before anything else was known of it
    lines = mesh.ok("alpha", "job", "log", answer.document["run"])["attempts"][0]["lines"]
    noted = any(last.name in line["text"] and "vanished" in line["text"] for line in lines)
    assert (last.name in named or noted) != (last.name in there)


def test_a_restore_through_a_link_that_leads_elsewhere_is_refused_and_writes_nothing_there(process_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=50)
    mesh = process_mesh(1)
    with_device(mesh)
    made = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "device:disk", "--wait")
    back, elsewhere = mesh.folder / "back", mesh.folder / "elsewhere"
    back.mkdir()
    elsewhere.mkdir()
    (back / "odd").symlink_to(elsewhere)
    answer = mesh.cli(
        *("alpha", "restore", made["set"], "--to", f"alpha:{back}", "--strip", "--overwrite", "never", "--wait")
    )
    assert answer.document["state"] == "succeeded-with-exceptions", str(answer)
    assert str(tree / "odd") in {row["path"] for row in answer.document["exceptions"]}
    assert list(elsewhere.iterdir()) == []
    assert (back / "odd").is_symlink()
    # with leave to overwrite, the link gives way to the folder; where it led, nothing happens
    again = mesh.cli(
        *("alpha", "restore", made["set"], "--to", f"alpha:{back}", "--strip", "--overwrite", "always", "--wait")
    )
    assert again.document["state"] == "succeeded", str(again)
    assert list(elsewhere.iterdir()) == []
    assert_equal(tree, back)

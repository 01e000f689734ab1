"""Synthetic fulls, with real daemons: made where the newest set lies, without the source."""

from __future__ import annotations

import os
import shutil

from mesh.test_spine import restored, with_pool
from mesh.trees import assert_equal


def test_a_synthetic_full_of_paths_and_of_a_list_restores_alone_while_the_source_is_away(process_mesh, tmp_path):
    tree = tmp_path / "data"
    tree.mkdir()
    for number in range(5):
        (tree / f"{number}").write_bytes(os.urandom(200_000))
    mesh = process_mesh(2)
    with_pool(mesh, "beta")
    mesh.ok("alpha", "selection", "create", "home", f"alpha:{tree}")
    mesh.ok("alpha", "policy", "create", "nightly")
    template = ("alpha", "policy", "template", "add", "nightly")
    mesh.ok(*template, "daily", "--type", "incremental", "--to", "pool:vaults", "--media-set", "keep-infinitely")
    mesh.ok(*template, "weekly", "--type", "synthetic")
    mesh.ok("alpha", "associate", "home", "nightly")
    mesh.ok("alpha", "job", "run", "home.nightly.daily", "--wait")
    (tree / "new").write_bytes(os.urandom(100_000))
    daily = mesh.ok("alpha", "job", "run", "home.nightly.daily", "--wait")
    kept = tmp_path / "kept"
    shutil.copytree(tree, kept, symlinks=True)
    shutil.rmtree(tree)

    by_path = mesh.ok("alpha", "synthetic", f"alpha:{tree}", "--wait")
    by_list = mesh.ok("alpha", "synthetic", "home", "--verify", "--wait")
    by_policy = mesh.ok("alpha", "job", "run", "home.nightly.weekly", "--wait")
    rows = {row["id"]: row for row in mesh.sets()}
    for made in (by_path, by_list, by_policy):
        assert (made["state"], made["server"], made["device"]) == ("succeeded", "beta", "disk-beta"), made
        assert (made["bytes_read"], made["bytes_stored"]) == (0, 0), made
        row = rows[made["set"]]
        assert (row["type"], row["made_of"], row["ended"]) == ("full", daily["set"], rows[daily["set"]]["ended"])
    assert {rows[made["set"]]["media_set"] for made in (by_path, by_list)} == {"keep-infinitely"}
    nothing = mesh.cli("alpha", "synthetic", "alpha:/nowhere")
    assert (nothing.status, nothing.error_code) == (5, "not-found"), nothing
    # the incrementals that it stands for are gone
    listed = mesh.ok("alpha", "catalog", "ls", by_policy["set"], str(tree))
    assert len(listed["entries"]) == 6, listed
    assert_equal(kept, restored(mesh, by_policy["set"], "beta", tree))

"""The catalog measured at size: the material repeats, and all that it is asked is answered."""

from __future__ import annotations

import hashlib
import pathlib

import pytest
from bench import catalog, catalog_material


def digests(folder: pathlib.Path) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.segment"))]


def test_the_same_sets_are_made_again_and_have_as_many_versions_as_were_asked_for(tmp_path: pathlib.Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    made = catalog_material.make(tmp_path / "a", 5000, 12)
    assert made == catalog_material.make(tmp_path / "b", 5000, 12)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert len(made.sets) == 12 and 4800 < made.versions < 5200
    assert sum(each.removed for each in made.sets) > 0 and {each.kind for each in made.sets} == {"full", "incremental"}


def test_a_small_catalog_is_measured_from_taking_in_to_a_set_without_changes(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status = catalog.main(["--versions", "4000", "--sets", "8", "--folder", str(tmp_path)])
    shown = capfd.readouterr().out
    assert status in (0, 1), shown  # a machine that is busy may miss a goal
    for title in ("taken in, all", "on disk", "list a folder", "versions of a path", "find what is not there"):
        assert title in shown
    for line in shown.splitlines():
        if line.startswith(("no change", "find a name", "find in a path", "versions of a path")):
            assert "; 0 each" not in line, line

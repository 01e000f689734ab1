"""What a backup leaves out by size and by the mark of caches: what a person chose, on either way to the device."""

from __future__ import annotations

from job_site import run, run_pair

from caso_mesh.model.states import AttemptState, BackupType

TAG = b"Signature: 8a477f597d28d172789f06886806bc55"


def tree_of(tmp_path):
    tree = tmp_path / "tree"
    (tree / "cache").mkdir(parents=True)
    (tree / "cache" / "CACHEDIR.TAG").write_bytes(TAG)
    (tree / "cache" / "object").write_bytes(b"o")
    (tree / "large").write_bytes(b"x" * 1001)
    (tree / "small").write_bytes(b"x" * 1000)
    return tree


def names(out):
    return sorted(path.name for path in out.rglob("*") if path.is_file())


async def test_large_files_and_caches_are_left_out_if_asked_and_nothing_else(site, runner, runners, tmp_path):
    tree = tree_of(tmp_path)
    chosen = {"larger_than": 1000, "exclude_caches": True}
    plain = await run(runner, site.task(site.backup_spec(tree)))
    heard = await run(runner, site.task(site.backup_spec(tree, **chosen)))
    far, _ = await run_pair(site, runners, site.backup_spec(tree, source=site.beta, **chosen))
    for each, expected in (
        (plain, ["CACHEDIR.TAG", "large", "object", "small"]),
        (heard, ["small"]),
        (far, ["small"]),
    ):
        assert each.ended.state is AttemptState.SUCCEEDED, each.lines
        out = tmp_path / each.set.id
        back = await run(runner, site.task(site.restore_spec(each.set.id, out)))
        assert back.ended.state is AttemptState.SUCCEEDED and names(out) == expected


async def test_a_set_with_other_filters_is_nothing_to_build_on(site, runner, tmp_path):
    """Else files that were left out before would never be read."""
    tree = tree_of(tmp_path)
    first = await run(runner, site.task(site.backup_spec(tree, larger_than=1000)))
    second = await run(runner, site.task(site.backup_spec(tree, larger_than=2000, type_=BackupType.INCREMENTAL)))
    assert second.set.parent is None and second.set.type is BackupType.FULL
    assert (first.set.files, second.set.files) == (3, 4)

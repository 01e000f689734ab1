"""Where a restore puts what it brings back, as it is told at its end and by ``job show``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from admin.admin_world import admin_world

from caso_mesh.model import facts
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model.errors import NotFound
from caso_mesh.model.selections import spread
from caso_mesh.model.states import AttemptState

pytestmark = pytest.mark.jumping
ROOTS = (b"srv/data", b"srv/logs", b"@dumps/db")


@pytest.mark.parametrize(
    ("asked", "places"),
    [
        (
            {"to": ("beta", b"/back")},
            {
                "/@dumps/db": "beta:/back/@dumps/db",
                "/srv/data": "beta:/back/srv/data",
                "/srv/logs": "beta:/back/srv/logs",
            },
        ),
        (
            {"to": ("beta", b"/back"), "strip": True},
            {"/@dumps/db": "beta:/back/db", "/srv/data": "beta:/back", "/srv/logs": "beta:/back"},
        ),
        ({"to": ("beta", b"/back"), "strip": True, "paths": (b"/srv/data/a/b",)}, {"/srv/data/a/b": "beta:/back/a/b"}),
        ({"to": ("beta", b"/"), "paths": (b"/srv/data/\xff",)}, {"/srv/data/\\xff": "beta:/srv/data/\\xff"}),
        ({}, {"/srv/data": "alpha:/srv/data", "/srv/logs": "alpha:/srv/logs"}),
        ({"into_command": ("beta", "load"), "paths": (b"/@dumps/db",)}, {"/@dumps/db": "beta:@load"}),
    ],
)
async def test_each_path_is_told_with_where_it_goes(tmp_path: Path, asked: Any, places: dict[str, str]) -> None:
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(attempt, vault="v-beta", roots=ROOTS)
        await w.report("beta", *w.success(attempt, backup))
        run = (await w.ask("restore", q.RestoreRequest(backup.id, **asked))).run
        restored = await w.delegated(run)
        detail = await w.ask("job.show", q.JobName(run))
        assert {each.source_path: f"{each.server}:{each.path}" for each in detail.destinations} == places
        assert {each.source for each in detail.destinations} == {"alpha"}
        await w.report("beta", w.end(restored, AttemptState.SUCCEEDED))
        progress = await w.ask("run.follow", q.RunFollow(run, 30.0, True))
        assert progress.result.destinations == detail.destinations
        # what was in the set is not known any more; where all of it went to is
        await w.report("beta", facts.SetDeleted(backup.id, "dev-beta", "ann", "r"))
        with pytest.raises(NotFound):
            await w.ask("restore", q.RestoreRequest(backup.id))
        if "to" in asked and "paths" not in asked:
            (left,) = (await w.ask("job.show", q.JobName(run))).destinations
            assert left == o.Destination("", None, "beta", "/back")


async def test_of_thousands_of_paths_a_hundred_are_told_and_of_a_backup_none(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(attempt, vault="v-beta")
        await w.report("beta", *w.success(attempt, backup))
        assert (await w.ask("job.show", q.JobName(attempt.run))).destinations == ()
        listed, selection = spread([f"srv/{number:05}".encode() for number in range(3000)])
        request = q.RestoreRequest(backup.id, paths=listed, selection=selection, to=("beta", b"/back"))
        run = (await w.ask("restore.selected", request)).run
        told = (await w.ask("job.show", q.JobName(run))).destinations
        assert (len(told), told[0].path, told[-1].path) == (100, "/back/srv/00000", "/back/srv/00099")

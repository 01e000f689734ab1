"""Restores of paths by the thousand: told in a bounded way, and exactly those come back."""

from __future__ import annotations

import pytest
from mesh.trees import make_tree

from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import selections
from caso_mesh.model.errors import CasoError, UsageError

pytestmark = pytest.mark.jumping


async def restored(mesh, set_id, wanted, to, **more):
    listed, selection = selections.spread([bytes(path).lstrip(b"/") for path in wanted])
    assert selection and not listed
    request = q.RestoreRequest(set_id, selection=selection, to=to, **more)
    submitted = await mesh.call("alpha", "restore.selected", request, o.Submitted)
    return submitted, await mesh.result(submitted.run)


@pytest.mark.parametrize("server", ["beta", "alpha"])
async def test_exactly_the_selected_files_come_back_here_and_at_another_server(memory_mesh, tmp_path, server):
    mesh = await memory_mesh(2)
    await mesh.add_device("beta")
    tree = make_tree(tmp_path / "data", files=700)
    backup = await mesh.result((await mesh.backup("beta", tree, "server:beta")).run)
    files = sorted(path for path in tree.rglob("file-*"))
    wanted = files[::2]
    submitted, result = await restored(mesh, backup.set, wanted, (server, bytes(tmp_path / "back")))
    assert result.state == "succeeded", result
    back = tmp_path / "back" / str(tree).lstrip("/")
    assert sorted(back.rglob("file-*")) == [back / path.relative_to(tree) for path in wanted]
    assert all((back / path.relative_to(tree)).read_bytes() == path.read_bytes() for path in wanted)
    spec = (await mesh.call("alpha", "job.show", q.JobName(submitted.run), o.JobDetail)).spec
    assert spec["selected"] == len(wanted) and len(spec["paths"]) == 100


async def test_a_selection_that_is_none_is_refused_and_does_not_restore_everything(memory_mesh, tmp_path):
    mesh = await memory_mesh(1)
    await mesh.add_device("alpha")
    tree = make_tree(tmp_path / "data", files=5)
    backup = await mesh.result((await mesh.backup("alpha", tree, "server:alpha")).run)
    for selection in (b"", b"noise"):
        request = q.RestoreRequest(backup.set, selection=selection, to=("alpha", bytes(tmp_path / "back")))
        with pytest.raises(CasoError) as refused:
            await mesh.call("alpha", "restore.selected", request, o.Submitted)
        assert isinstance(refused.value, UsageError) or refused.value.code == "data-damaged"
    assert not (tmp_path / "back").exists()

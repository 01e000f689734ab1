"""What tests of catalog modes share: asking the way people do, and waiting until a mode is reached."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from mesh.inside import InsideMesh
from msgspec import Struct
from waiting import wait_for_async

from caso_mesh.model import browsing as b
from caso_mesh.model import catalogs as c
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import CasoError
from caso_mesh.model.listing import CatalogFind


class Browsed(Struct, frozen=True):
    """All that people see of the files of some sets."""

    folders: tuple[tuple[str, ...], ...]
    found: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str, int], ...]


def small_tree(root: pathlib.Path) -> pathlib.Path:
    """A few files in a few folders, one of them ``odd``, and ``changed``."""
    for name in ("changed", "a.txt", "odd/large", "odd/b.txt", "deep/er/c.txt", "deep/er/still/d.txt"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"once {name}")
    (root / "empty").mkdir()
    return root


async def admin_at(mesh: InsideMesh, name: str, *among: str) -> None:
    """Until one of ``among`` is in office, as ``name`` sees it."""

    async def found() -> bool:
        try:
            return (await mesh.call(name, "status", q.Nothing(), v.StatusView)).admin in among
        except CasoError:
            return False

    await wait_for_async(found, 120.0, every_s=0.2, what=f"one of {among} is in office")


async def set_mode(mesh: InsideMesh, mode: str | None, server: str | None = "beta", *, at: str = "alpha") -> None:
    await mesh.call(at, "settings.set", q.SettingSet("catalog-mode", mode, server=server), v.SettingList)


async def mode_of(mesh: InsideMesh, server: str = "beta", *, at: str = "alpha") -> c.CatalogModeView:
    view = await mesh.call(at, "catalog.modes", c.CatalogModesRequest(server), c.CatalogModes)
    return view.servers[0]


async def settled(
    mesh: InsideMesh, server: str = "beta", *, sets: int | None = None, at: str = "alpha", timeout_s: float = 120.0
) -> c.CatalogModeView:
    async def done() -> c.CatalogModeView | None:
        view = await mode_of(mesh, server, at=at)
        return view if view.state == "settled" and sets in {None, view.sets} else None

    return await wait_for_async(done, timeout_s, every_s=0.2, what=f"the catalogs of {server} are settled")  # type: ignore[return-value]


async def ls(mesh: InsideMesh, set_id: str, path: pathlib.Path, *, at: str = "alpha", **more: object) -> b.EntryList:
    request = b.CatalogList(set_id, bytes(path), **more)  # type: ignore[arg-type]
    return await mesh.call(at, "catalog.ls", request, b.EntryList)


async def find(mesh: InsideMesh, glob: str, *, at: str = "alpha", by: str | None = None, **more: object) -> b.MatchList:
    request = CatalogFind(glob.encode(), **more)  # type: ignore[arg-type]
    return await mesh.call(at, "catalog.find", request, b.MatchList, by=by)


async def versions(mesh: InsideMesh, source: str, path: pathlib.Path, *, at: str = "alpha") -> b.VersionList:
    return await mesh.call(at, "catalog.versions", b.CatalogVersions(source, bytes(path)), b.VersionList)


async def browsed(
    mesh: InsideMesh, sets: Sequence[str], tree: pathlib.Path, name: str, *, source: str = "beta", at: str = "alpha"
) -> Browsed:
    """Folders of each set, a search, and the versions of one file."""
    folders = [
        tuple(f"{each.type} {each.size} {each.mtime_ns} {each.mode} {each.path}" for each in entries)
        for set_id in sets
        for path in (tree, tree / "odd")
        if (entries := (await ls(mesh, set_id, path, at=at)).entries)
    ]
    found = (await find(mesh, f"*{tree.name}*", at=at)).matches
    states = (await versions(mesh, source, tree / name, at=at)).versions
    return Browsed(
        tuple(folders),
        tuple((each.path, each.set) for each in found),
        tuple((each.first_set, each.last_set, each.sets) for each in states),
    )

"""``caso-mesh kit``: recovery kits. The passphrase and the kit's private key never leave this machine in the clear."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Struct

from caso_mesh.cli import output
from caso_mesh.cli.client import ask, connect
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.cli.passphrase import PassphraseFile, choose, from_file, open_kit
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import AlreadyExists, CasoError, KitDamaged, KitForeign, RootKeyGone, UsageError

if TYPE_CHECKING:
    from caso_mesh.identity.kit import Kit, KitKeys, Secrets

app = Group(name="kit", help="Recovery kits: what is needed when no server is left.")


class KitMade(Struct, frozen=True):
    """``passphrase`` is there only if it was made here: it is shown this once. ``missing`` are devices that the kit does
    not open yet; they are completed when they return."""

    id: str
    mesh: str
    file: str
    passphrase: str | None
    devices: tuple[str, ...]
    missing: tuple[str, ...]


@app.command
def create(
    file: Annotated[Path, Parameter(name="FILE", help="Where to write the kit; it must not exist yet.")],
    /,
    *,
    passphrase_file: PassphraseFile = None,
    from_: Annotated[
        Path | None, Parameter(name="--from", help="An earlier kit: the root key is taken from it.")
    ] = None,
    from_passphrase_file: Annotated[
        Path | None, Parameter(help="Read the passphrase of that earlier kit from this file.")
    ] = None,
    common: Common = DEFAULTS,
) -> None:
    """Make a recovery kit: with it and its passphrase, a device alone is enough to restore.

    Without a passphrase (asked for at a terminal, or in a file) one of 128 bits is made and shown once.
    """
    from caso_mesh.identity import kit as kits

    if os.path.lexists(file):
        raise AlreadyExists(kind="file", name=file)
    if not file.parent.is_dir():
        raise UsageError(detail=f"There is no folder {file.parent}")
    earlier = open_kit(from_, from_passphrase_file) if from_ is not None else None
    chosen = from_file(passphrase_file) if passphrase_file is not None else choose()
    if chosen is not None and len(chosen) < kits.SHORT_PASSPHRASE:
        output.warning("a short passphrase is soon guessed by whoever finds the file")
    made = None if chosen is not None else kits.make_passphrase()
    keys = kits.new_keys()
    id_ = _new_id()
    with connect(common) as client:
        material = client.call(
            "kit.create", q.KitCreate(id_, keys.public_key, with_root_key=earlier is None), q.KitMaterial
        )
        secrets = kits.open_secrets(material.sealed, keys, kit=id_, mesh=material.mesh)
        kit = _assemble(id_, keys, material, secrets, earlier, from_)
        passphrase = chosen if chosen is not None else made or ""
        kits.write(file, kits.encode(kit, passphrase))
        if kits.decode(kits.read(file), passphrase, path=file) != kit:
            raise KitDamaged(path=file, detail="what was written is not what is read")
        try:
            check = kits.check_of(material.root, secrets)
            view = client.call("kit.confirm", q.KitConfirm(id_, check, earlier is None), v.KitView)
        except CasoError:
            # the administrator may have taken it all the same, and then this file counts
            output.warning(f"{file} was written, but the mesh has not confirmed it: keep it until another one is made")
            if made is not None:
                output.note(f"Its passphrase: {made}")
            raise
    result = KitMade(id_, material.mesh_name, str(file), made, view.devices, view.missing)
    output.show(result, common.json, _show_made)


def _new_id() -> str:
    from caso_mesh.model.ids import make_id_source

    return make_id_source(time.time_ns, os.urandom)()


def _assemble(
    id_: str, keys: KitKeys, material: q.KitMaterial, secrets: Secrets, earlier: Kit | None, path: Path | None
) -> Kit:
    from caso_mesh.identity import kit as kits

    root_key = secrets.root_key
    if earlier is not None:
        if (earlier.mesh, earlier.root) != (material.mesh, material.root):
            raise KitForeign(kit=earlier.mesh, path=path, vault=material.mesh)
        if not earlier.root_key:
            raise RootKeyGone(server="that earlier kit")
        root_key = earlier.root_key
    return kits.Kit(
        id=id_,
        mesh=material.mesh,
        mesh_name=material.mesh_name,
        root=material.root,
        root_key=root_key,
        id_key=secrets.id_key,
        private_key=keys.private_key,
        created_at_ns=time.time_ns(),
    )


def _show_made(view: KitMade) -> None:
    output.line(f"The recovery kit of the mesh {view.mesh} is in {view.file}; it was opened again and is whole.")
    if view.passphrase is not None:
        output.line(f"Its passphrase, shown this once:   {view.passphrase}")
    output.line("Keep both off this mesh, and not in one place: together they open every device of it.")
    for device in view.missing:
        output.warning(f"the device {device} cannot be reached now; the kit opens it once it has returned")


@app.command(name="list")
def list_(*, common: Common = DEFAULTS) -> None:
    """List the recovery kits that were made."""
    output.show(ask(common, "kit.list", q.Nothing(), v.KitList), common.json, _show_list)


def _show_list(view: v.KitList) -> None:
    output.table(
        view.kits,
        ("kit", lambda row: row.id),
        ("made", lambda row: row.created),
        ("by", lambda row: row.created_by),
        ("confirmed", lambda row: row.confirmed),
        ("opens", lambda row: row.devices),
        ("not yet", lambda row: row.missing),
        empty="There is no recovery kit: if this mesh is lost, its backups are lost with it. Make one: caso-mesh kit create FILE",
    )

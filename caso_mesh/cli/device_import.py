"""``caso-mesh device import``: a device of another mesh is taken over. Its recovery kit is opened here and stays here: the mesh
is handed what opens this one device, sealed to the server that has it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import Client, connect
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.cli.passphrase import KitFile, PassphraseFile, open_kit
from caso_mesh.model import importing as i
from caso_mesh.model import views as v
from caso_mesh.model.errors import KitForeign, KitIncomplete, NoKey, ObjectMissing, PeerMalformed

if TYPE_CHECKING:
    from caso_mesh.identity.kit import Kit


def add_to(app: Group) -> None:
    app.command(name="import")(import_)


def import_(
    name: Annotated[str, Parameter(name="NAME", help="Name of the device here.")],
    /,
    *,
    server: Annotated[str, Parameter(help="The server that has the folder.")],
    path: Annotated[str, Parameter(help="The folder on that server, with the vault of the other mesh.")],
    kit: KitFile,
    passphrase_file: PassphraseFile = None,
    concurrency: Annotated[int, Parameter(help="How many jobs may read it at once.")] = 1,
    common: Common = DEFAULTS,
) -> None:
    """Take over a device that another mesh wrote, for reading: its sets are browsed, verified, restored and copied from here.

    It takes the recovery kit of that mesh, which stays on this machine. Nothing is written to the device.
    """
    opened = open_kit(kit, passphrase_file)
    with connect(common) as client:
        request, notes = _request(client, opened, name, server, path, concurrency)
        view = client.call("device.import", request, v.DeviceView)
    for note in notes:
        output.warning(note)
    output.show(view, common.json, _one)


def _one(view: v.DeviceView) -> None:
    places = ", ".join(f"{server}:{path}" for server, path in view.paths.items())
    output.line(f"device {view.name} is {view.state} from the mesh {view.mesh}, at {places}, with {view.sets} sets")
    output.note(f"Its servers are called NAME@{view.mesh} here; caso-mesh set list shows their sets.")


def _request(
    client: Client, kit: Kit, name: str, server: str, path: str, concurrency: int
) -> tuple[i.DeviceImport, list[str]]:
    """What opens the device, sealed to the server that has it, with what a person should know of it."""
    # these take long to load
    from caso_mesh.identity.imported import ForeignKeys, seal_foreign
    from caso_mesh.jobs.offline import roster_of
    from caso_mesh.vault.header import read_header
    from caso_mesh.vault.keys import load_keys

    found = client.call("device.look", i.DeviceLook(server, path), i.ForeignVault)
    if found.mesh != kit.mesh:
        raise KitForeign(kit=kit.mesh_name, path=path, vault=found.mesh)
    vault = _Far(client, found, server, path)
    header = read_header(vault)
    if header is None or (header.vault, header.mesh) != (found.vault, kit.mesh):
        raise PeerMalformed(peer=server, detail="it describes another vault than it has")
    try:
        keys = load_keys(vault, kit.id, kit.unwrap, kit.id_key)
    except NoKey:
        raise KitIncomplete(kit=kit.id, path=path) from None
    notes: list[str] = []
    signers = roster_of(vault, kit, notes)
    copies = seal_foreign(
        ForeignKeys(keys.id_key, keys.content_keys),
        {found.node: found.encryption_key},
        vault=found.vault,
        randomness=os.urandom,
    )
    request = i.DeviceImport(name, server, path, found.vault, kit.mesh, kit.mesh_name, copies, signers, concurrency)
    return request, notes


class _Far:
    """The objects of the vault that a kit opens, read by way of the mesh. See ``vault.backend.Readable``."""

    def __init__(self, client: Client, found: i.ForeignVault, server: str, path: str) -> None:
        self._client = client
        self._found = found
        self._server = server
        self._path = path
        self._sizes = dict((*found.keys, *found.copies))
        self._read: dict[str, bytes] = {}

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        return ((name, size) for name, size in sorted(self._sizes.items()) if name.startswith(prefix))

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name not in self._read:
            self._read[name] = self._whole(name)
        content = self._read[name][offset:]
        return content if length is None else content[:length]

    def _whole(self, name: str) -> bytes:
        """All of an object. Those that hold keys are small, and many are read at once."""
        keys = [each for each, _ in self._found.keys if each not in self._read and each != name]
        also = keys if name.startswith("keys/") else []
        content = b""
        while not content or len(content) < self._sizes.get(name, 0):
            request = i.DeviceRead(self._server, self._path, self._found.vault, (name, *also), len(content))
            objects = self._client.call("device.read", request, i.ForeignObjects).objects
            piece = objects.pop(name, b"")
            self._read.update(objects)
            if not piece:
                raise ObjectMissing(name=name)
            content += piece
            also = []
            if name not in self._sizes:
                break  # the header, which is in one piece
        return content

"""``caso-mesh join``: membership by a join link."""

from __future__ import annotations

import shlex
from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.init import DEFAULT_LISTEN, AdvertiseOption, ListenOption, PresetOption, ServerOption
from caso_mesh.cli.options import JsonOption, OwnStateOption, default_state


async def join(
    link: Annotated[str, Parameter(name="LINK", help='What "caso-mesh token create" printed.')],
    /,
    *,
    server: ServerOption,
    state: OwnStateOption = None,
    listen: ListenOption = DEFAULT_LISTEN,
    advertise: AdvertiseOption = (),
    preset: PresetOption = "lan",
    never_admin: Annotated[bool, Parameter(negative=(), help="This server shall never administer the mesh.")] = False,
    json: JsonOption = False,
) -> None:
    """Make this server a member of a mesh, by a join link."""
    from caso_mesh.daemon import join_mesh

    folder = state if state is not None else default_state()
    mesh = await join_mesh(
        link=link,
        server=server,
        state=folder,
        listen=listen,
        advertise=advertise,
        preset=preset,
        never_admin=never_admin,
    )
    if json:
        output.document({"mesh": mesh, "server": server, "state": str(folder)})
        return
    output.line(f"{server} is a member of the mesh {mesh}, in {folder}.")
    output.line(f"Start it:              caso-mesh run --state {shlex.quote(str(folder))}")
    output.line("Or start it at boot:   caso-mesh service install")

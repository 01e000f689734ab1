"""``caso-mesh join``: membership by a join link."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.init import DEFAULT_LISTEN, AdvertiseOption, ListenOption, PresetOption
from caso_mesh.cli.next_steps import start_it
from caso_mesh.cli.options import JsonOption, OwnStateOption, default_state
from caso_mesh.model.errors import UsageError


async def join(
    link: Annotated[str, Parameter(name="LINK", help='What "caso-mesh token create" printed.')],
    /,
    *,
    server: Annotated[
        str | None, Parameter(help="Name of this server in the mesh; without it that of --replaces.")
    ] = None,
    state: OwnStateOption = None,
    listen: ListenOption = DEFAULT_LISTEN,
    advertise: AdvertiseOption = (),
    preset: PresetOption = "lan",
    never_admin: Annotated[bool, Parameter(negative=(), help="This server shall never administer the mesh.")] = False,
    replaces: Annotated[
        str | None,
        Parameter(
            help="Take the place of this server, which is lost: its name, jobs, pools, devices, sets and history."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make this server a member of a mesh, by a join link."""
    from caso_mesh.founding import join_mesh

    name = server or replaces
    if name is None:
        raise UsageError(detail="Give --server NAME, or --replaces NAME of the server in whose place this one is")
    if replaces not in {None, name}:
        raise UsageError(detail=f"What takes the place of {replaces} is called {replaces}: leave --server away")

    folder = state if state is not None else default_state()
    mesh = await join_mesh(
        link=link,
        server=name,
        state=folder,
        listen=listen,
        advertise=advertise,
        preset=preset,
        never_admin=never_admin,
        replaces=replaces or "",
        warn=output.warning,
    )
    if json:
        output.document({"mesh": mesh, "server": name, "state": str(folder)})
        return
    output.line(f"{name} is a member of the mesh {mesh}, in {folder}.")
    for line in start_it(folder):
        output.line(line)

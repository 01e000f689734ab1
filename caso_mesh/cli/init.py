"""``caso-mesh init``: a new mesh of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from caso_mesh.cli import output
from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.next_steps import at, start_it
from caso_mesh.cli.options import JsonOption, OwnStateOption, default_state

MeshOption = Annotated[str, Parameter(help="Name of the new mesh.")]
ServerOption = Annotated[str, Parameter(help="Name of this server in the mesh.")]
ListenOption = Annotated[str, Parameter(help="HOST:PORT where this server listens; port 0 takes a free one.")]
AdvertiseOption = Annotated[
    tuple[str, ...],
    Parameter(
        name="--advertise",
        negative=(),
        help="HOST:PORT where others reach it, if not at its interfaces; may be repeated.",
    ),
]
PresetOption = Annotated[Literal["local", "lan", "wan"], Parameter(help="The network this server is in.")]
#: Where a server listens that is not told where.
DEFAULT_LISTEN = "0.0.0.0:7300"


async def init(
    *,
    mesh: MeshOption,
    server: ServerOption,
    state: OwnStateOption = None,
    listen: ListenOption = DEFAULT_LISTEN,
    advertise: AdvertiseOption = (),
    preset: PresetOption = "lan",
    ca: Annotated[Path | None, Parameter(help="Use the certification authority in this folder.")] = None,
    json: JsonOption = False,
) -> None:
    """Make a new mesh with this server as its first, and the certificate of its operator."""
    from caso_mesh.founding import init_mesh

    folder = state if state is not None else default_state()
    await init_mesh(mesh=mesh, server=server, state=folder, listen=listen, advertise=advertise, preset=preset, ca=ca)
    if json:
        output.document({"mesh": mesh, "server": server, "state": str(folder)})
        return
    output.line(f"The mesh {mesh} has its first server, {server}, in {folder}.")
    for line in start_it(folder):
        output.line(line)
    output.line(
        f"Then a recovery kit:   caso-mesh kit create FILE{at(folder)}, and keep it elsewhere: backups are lost without one"
    )
    output.line(
        f"Then add a server:     caso-mesh token create{at(folder)}, and on that server caso-mesh join LINK --server NAME"
    )

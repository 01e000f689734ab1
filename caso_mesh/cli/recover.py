"""``caso-mesh recover``: the administrator rebuilt on a bare machine, out of one device and a recovery kit."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.init import AdvertiseOption
from caso_mesh.cli.next_steps import start_it
from caso_mesh.cli.options import JsonOption, OwnStateOption, default_state
from caso_mesh.cli.passphrase import KitFile, PassphraseFile, open_kit
from caso_mesh.model.errors import UsageError
from caso_mesh.model.units import format_instant


class _Clock:
    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_s(self) -> float:
        return time.monotonic()


async def recover(
    *devices: Annotated[
        Path, Parameter(name="DEVICE-PATH", help="Folder of a device of the mesh; of several, the newest copy counts.")
    ],
    kit: KitFile,
    state: OwnStateOption = None,
    listen: Annotated[
        str | None, Parameter(help="HOST:PORT where this server listens; without it: the port it had before.")
    ] = None,
    advertise: AdvertiseOption = (),
    lineage: Annotated[
        int, Parameter(help="At least this lineage: only if the mesh was rebuilt before from a newer copy.")
    ] = 0,
    made_by: Annotated[
        str | None,
        Parameter(help="Whose copies of the mesh count, where they contradict each other: the last administrator."),
    ] = None,
    no_catalog: Annotated[
        bool, Parameter(negative=(), help="Do not rebuild the catalog of files from the devices: quicker.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    json: JsonOption = False,
) -> None:
    """Rebuild the administrator of a mesh on a bare machine. No server has to join again.

    The machine that was lost must not come back: its orders are refused from now on.
    """
    from caso_mesh.recovery import recover_mesh

    if not devices:
        raise UsageError(detail="Name at least one DEVICE-PATH")
    folder = state if state is not None else default_state()
    began = time.monotonic()
    done = await recover_mesh(
        open_kit(kit, passphrase_file),
        [str(device) for device in devices],
        folder,
        listen=listen,
        advertise=advertise,
        least_lineage=lineage,
        made_by=made_by,
        with_catalog=not no_catalog,
        clock=_Clock(),
        say=(lambda text: None) if json else output.note,
    )
    made = format_instant(done.made_at_ns)
    if json:
        output.document(
            {
                "mesh": done.mesh,
                "server": done.server,
                "state": str(folder),
                "listen": done.listen,
                "lineage": done.lineage,
                "copy": made,
                "servers": done.servers,
                "sets": done.sets,
                "seconds": round(time.monotonic() - began, 3),
                "notes": done.notes,
            }
        )
        return
    for note in done.notes:
        output.warning(note)
    output.line(f"{done.server}, the administrator of the mesh {done.mesh}, is rebuilt in {folder} as of {made}.")
    for line in start_it(folder):
        output.line(line)
    output.line(
        f"Its other servers ({len(done.servers) - 1}) link again by themselves. Do not start the lost machine again."
    )

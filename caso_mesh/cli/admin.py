"""``caso-mesh admin``: the office of the administrator."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common, JsonOption, OwnStateOption, confirm, default_state, interactive
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import Refused, UsageError
from caso_mesh.model.units import parse_duration_s

app = Group(name="admin", help="The office of the administrator: hand it over, take it over, rotate the CA.")


@app.command
def transfer(
    *,
    to: Annotated[
        str | None, Parameter(name="--to", help="The voter that is to take it; else the one that is furthest.")
    ] = None,
    common: Common = DEFAULTS,
) -> None:
    """Hand the office over to another voter, for instance before this machine is switched off."""
    view = ask(common, "admin.transfer", q.AdminTransfer(to), v.Done)
    output.show(
        view, common.json, lambda _: output.line(f"{to} has the office" if to else "the office was handed over")
    )


@app.command(name="rotate-ca")
def rotate_ca(
    *,
    overlap: Annotated[str, Parameter(help="How long everybody has to learn of the new one: 7d or more.")] = "8d",
    urgent: Annotated[
        bool, Parameter(negative=(), help="A key was stolen: switch at once. Who is away meanwhile is shut out.")
    ] = False,
    common: Common = DEFAULTS,
) -> None:
    """Give the mesh a new certification authority: a new root, new issuing certificates, new certificates for all.

    First everybody learns to trust it; after the overlap it signs, and what the old one signed is renewed by itself and
    believed for eight days more. Make a recovery kit after the switch. "caso-mesh admin ca" says who lacks it.
    """
    request = q.CaRotate(parse_duration_s(overlap), urgent)
    output.show(ask(common, "ca.rotate", request, v.CaView), common.json, _ca)


@app.command
def ca(*, common: Common = DEFAULTS) -> None:
    """The certification authority of the mesh, its last rotation, and who lacks the new one."""
    output.show(ask(common, "ca.show", q.Nothing(), v.CaView), common.json, _ca)


_CA_STAGES = {
    "never": "It was never rotated.",
    "announced": "A new one is announced; it signs from {switch_at} on. Not told yet: {lacking}.",
    "switched": "It was rotated {switch_at}. The old one is believed until {until}. Not renewed yet: {lacking}.",
    "finished": "It was rotated {switch_at}; the old one is not believed any more.",
}


def _ca(view: v.CaView) -> None:
    output.line(f"Root: SHA-256 {view.root}")
    lacking = ", ".join(view.lacking) or "nobody"
    output.line(_CA_STAGES[view.rotation].format(switch_at=view.switch_at, until=view.until, lacking=lacking))


@app.command
async def takeover(
    *,
    state: OwnStateOption = None,
    yes: Annotated[bool, Parameter(negative=(), help="Do not ask.")] = False,
    json: JsonOption = False,
) -> None:
    """Make this server the administrator without a majority: where two servers are all there is, and the other is lost.

    The daemon must be stopped. What the lost administrator had decided and not told this server is gone; should it come
    back, its orders are refused, and it becomes a member.
    """
    from caso_mesh.machine import SystemClock
    from caso_mesh.takeover import take_over

    question = "The administrator is lost for good, or stays switched off until this server is up. Take over?"
    if not yes:
        if not interactive():
            raise UsageError(detail="--yes is needed: it makes this server the administrator without asking any other")
        if not confirm(question):
            raise Refused(detail="nothing was changed")
    done = await take_over(state if state is not None else default_state(), clock=SystemClock())
    output.show(
        done,
        json,
        lambda done: output.line(f"{done.server} is the administrator, in lineage {done.lineage}. Start its daemon"),
    )

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

app = Group(name="admin", help="The office of the administrator: hand it over, take it over.")


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

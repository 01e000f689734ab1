"""``caso-mesh associate``: jobs out of a selection list and a policy."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.options import DEFAULTS, NOT_LOCAL, Common, Local
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import UsageError


def associate(
    selection: Annotated[str, Parameter(name="LIST", help="Name of the selection list.")],
    policy: Annotated[str, Parameter(name="POLICY", help="Name of the policy.")],
    /,
    *,
    remove: Annotated[
        bool, Parameter(negative=(), help="Take them apart: the jobs go, their history and backup sets stay.")
    ] = False,
    local: Local = NOT_LOCAL,
    common: Common = DEFAULTS,
) -> None:
    """Make one job of each template of a policy for a selection list."""
    if local.local and not remove:
        raise UsageError(detail="By itself a server makes no jobs of policies: copy them to it (caso-mesh copy to)")
    call = "dissociate" if remove else "associate"
    view = ask(common, local.call(call), q.AssociationEdit(selection, policy), v.PolicyView)

    def told(view: v.PolicyView) -> None:
        if remove:
            output.line(f"{selection} is not backed up by the policy {policy} any more")
        else:
            mine = [job for job in view.jobs if job.startswith(f"{selection}.")] or list(view.jobs)
            output.line(f"jobs: {output.cell(mine)}")

    output.show(view, common.json, told)

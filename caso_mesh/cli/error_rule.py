"""``caso-mesh error-rule``: what becomes of jobs that failed."""

from __future__ import annotations

from typing import Annotated, Literal

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import InvalidValue
from caso_mesh.model.rules import ErrorRule, Then
from caso_mesh.model.units import parse_duration_s

app = Group(name="error-rule", help="What becomes of jobs that failed: try again, hold, wait.")

Name = Annotated[str, Parameter(name="NAME", help="Name of the rule.")]


@app.command
def create(
    name: Name,
    /,
    *,
    error: Annotated[
        tuple[str, ...],
        Parameter(
            negative=(), help="An error, or a category of errors, as in help errors; may be given more than once."
        ),
    ],
    retries: Annotated[int, Parameter(help="How often it is tried again.")] = 2,
    every: Annotated[str, Parameter(help="How long after a failure, as in 10m.")] = "10m",
    then: Annotated[
        Literal["hold", "wait"],
        Parameter(help="When the retries are used up: hold the job, or fail and wait for the next due time."),
    ] = "wait",
    any_time: Annotated[
        bool, Parameter(negative=(), help="Try again outside the window of the selection list, too.")
    ] = False,
    common: Common = DEFAULTS,
) -> None:
    """Make a rule: jobs that failed with such an error are tried again."""
    try:
        every_s = parse_duration_s(every)
    except ValueError:
        raise InvalidValue(value=every, what="pause", expected="Use a duration, as in 10m") from None
    rule = ErrorRule(name, error, retries, every_s, Then(then), any_time)
    view = ask(common, "error-rule.create", q.ErrorRuleCreate(rule), v.Done)
    output.show(view, common.json, lambda _: output.line(f"error rule {name} was made"))


@app.command(name="list")
def list_(*, common: Common = DEFAULTS) -> None:
    """List the rules. Of two that fit an error the one that names it counts, then the first by name."""
    view = ask(common, "error-rule.list", q.Nothing(), v.ErrorRuleList)
    output.show(view, common.json, _list)


def _list(view: v.ErrorRuleList) -> None:
    output.table(
        view.rules,
        ("name", lambda row: row.name),
        ("errors", lambda row: row.errors),
        ("retries", lambda row: row.retries),
        ("every", lambda row: output.duration(row.every_s)),
        ("then", lambda row: row.then.value),
        ("outside the window", lambda row: row.any_time),
    )


@app.command
def delete(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Delete a rule; what it holds stays on hold."""
    view = ask(common, "error-rule.delete", q.Named(name), v.Done)
    output.show(view, common.json, lambda _: output.line(f"error rule {name} was deleted"))

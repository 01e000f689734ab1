"""``caso-mesh error-rule``: what becomes of jobs that failed."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec.structs import replace

from caso_mesh.cli import output
from caso_mesh.cli.client import ask, connect
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, NOT_LOCAL, Common, Local
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import NotFound, UsageError
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
    rule = ErrorRule(name, error, retries, parse_duration_s(every), Then(then), any_time)
    view = ask(common, "error-rule.create", q.ErrorRuleCreate(rule), v.Done)
    output.show(view, common.json, lambda _: output.line(f"error rule {name} was made"))


@app.command
def edit(
    name: Name,
    /,
    *,
    error: Annotated[
        tuple[str, ...],
        Parameter(negative=(), help="The errors, or categories of errors, instead; may be given more than once."),
    ] = (),
    retries: Annotated[int | None, Parameter(help="How often it is tried again.")] = None,
    every: Annotated[str | None, Parameter(help="How long after a failure, as in 10m.")] = None,
    then: Annotated[Literal["hold", "wait"] | None, Parameter(help="When the retries are used up.")] = None,
    any_time: Annotated[bool | None, Parameter(help="Try again outside the window of the selection list, too.")] = None,
    common: Common = DEFAULTS,
) -> None:
    """Change a rule; what it has tried or holds by now stays as it is."""
    given = {
        "errors": error or None,
        "retries": retries,
        "every_s": None if every is None else parse_duration_s(every),
        "then": None if then is None else Then(then),
        "any_time": any_time,
    }
    values = {key: value for key, value in given.items() if value is not None}
    if not values:
        raise UsageError(detail="Say what to change, as in --retries 3")
    with connect(common) as client:
        rules = client.call("error-rule.list", q.Nothing(), v.ErrorRuleList).rules
        old = next((rule for rule in rules if rule.name == name), None)
        if old is None:
            raise NotFound(kind="error-rule", name=name)
        view = client.call("error-rule.set", q.ErrorRuleCreate(replace(old, **values)), v.Done)
    output.show(view, common.json, lambda _: output.line(f"error rule {name} was changed"))


@app.command(name="list")
def list_(*, local: Local = NOT_LOCAL, common: Common = DEFAULTS) -> None:
    """List the rules. Of two that fit an error the one that names it counts, then the first by name."""
    view = ask(common, local.call("error-rule.list"), q.Nothing(), v.ErrorRuleList)
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
        empty="No error rules: what failed has failed. A new one: caso-mesh error-rule create NAME --error device-full --retries 3",
    )


@app.command
def delete(name: Name, /, *, local: Local = NOT_LOCAL, common: Common = DEFAULTS) -> None:
    """Delete a rule; what it holds stays on hold."""
    view = ask(common, local.call("error-rule.delete"), q.Named(name), v.Done)
    output.show(view, common.json, lambda _: output.line(f"error rule {name} was deleted"))

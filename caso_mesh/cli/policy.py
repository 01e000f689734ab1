"""``caso-mesh policy``: policies, their templates and the rules between them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec.structs import replace

from caso_mesh.cli import output
from caso_mesh.cli.client import ask, connect
from caso_mesh.cli.grammar import Group, Parameter, shared
from caso_mesh.cli.options import DEFAULTS, NOT_LOCAL, Common, Local
from caso_mesh.cli.scheduling import UNSET, CancelAfter, CatchUp, ExcludeDays, Schedule, StartWindow
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.documents import PolicyDoc, TemplateDoc
from caso_mesh.model.errors import AlreadyExists, NotFound, UsageError

app = Group(name="policy", help="Policies: templates, and rules between them.")
templates = app.group(name="template", help="The templates of a policy.")
rules = app.group(name="rule", help="The rules between the templates of a policy.")

Name = Annotated[str, Parameter(name="NAME", help="Name of the policy.")]
Template = Annotated[str, Parameter(name="TEMPLATE", help="Name of the template.")]
NewName = Annotated[str, Parameter(name="NEW", help="The new name.")]
Rule = Annotated[
    str,
    Parameter(
        name="RULE",
        help='As in "on conflict full supersedes incremental", "on conflict full then verify", "when full starts start '
        'copy" (starts, completes, succeeds or fails), "full must complete first".',
    ),
]


@app.command(name="list")
def list_(*, local: Local = NOT_LOCAL, common: Common = DEFAULTS) -> None:
    """List the policies."""
    output.show(ask(common, local.call("policy.list"), q.Nothing(), v.PolicyViews), common.json, _list)


def _list(view: v.PolicyViews) -> None:
    output.table(
        view.policies,
        ("name", lambda row: row.name),
        ("templates", lambda row: list(row.definition.templates)),
        ("rules", lambda row: len(row.definition.rules)),
        ("selection lists", lambda row: row.selections),
        empty="No policies to show. A new one: caso-mesh policy create NAME --zone ZONE",
    )


@app.command
def show(name: Name, /, *, local: Local = NOT_LOCAL, common: Common = DEFAULTS) -> None:
    """Show a policy, its selection lists and the jobs that were made."""
    output.show(ask(common, local.call("policy.show"), q.Named(name), v.PolicyView), common.json, _show)


def _show(view: v.PolicyView) -> None:
    policy = view.definition
    output.details(
        ("name", view.name),
        ("created", f"{view.created} by {view.created_by}"),
        ("zone", policy.zone),
        ("conflict within", policy.conflict_within),
        *(("rule", rule) for rule in policy.rules),
        ("selection lists", view.selections),
        ("jobs", view.jobs or None),
    )
    if policy.templates:
        output.line("")
        output.table(
            policy.templates.items(),
            ("template", lambda row: row[0]),
            ("type", lambda row: row[1].type),
            ("to", lambda row: row[1].to),
            ("schedule", lambda row: row[1].schedule),
            ("media set", lambda row: None if row[1].type == "verify" else row[1].media_set),
            ("options", lambda row: _options(row[1])),
        )
    for name, template in policy.templates.items():
        if not template.schedule and not any(rule.split()[-2:] == ["start", name] for rule in policy.rules):
            output.warning(
                f"{name} has no schedule, and no rule starts it: it runs only by caso-mesh job run. A schedule: "
                f"caso-mesh policy template edit {view.name} {name} --schedule 'daily 22:00'"
            )


def _options(template: TemplateDoc) -> list[str]:
    """What is not as usual, as options are written."""
    shown = {
        "second-to": template.second_to,
        "zone": template.zone,
        "exclude-day": ", ".join(template.exclude_days),
        "calendar": ", ".join(template.calendars),
        "start-window": template.start_window,
        "cancel-after": template.cancel_after,
        "priority": template.priority,
        "pre": template.pre,
        "post": template.post,
        "logon": template.logon,
        "snapshot": None if template.snapshot == "never" else template.snapshot,
    }
    flags = {
        "catch-up": template.catch_up,
        "no-verify": not template.verify and template.type != "verify",
        "post-always": template.post_always,
        "ignore-exit-codes": template.ignore_exit_codes,
        "allow-shrink": template.allow_shrink,
    }
    return [f"{key}={value}" for key, value in shown.items() if value] + [key for key, on in flags.items() if on]


@app.command
def create(
    name: Name,
    /,
    *,
    zone: Annotated[
        str | None, Parameter(help="Time zone of its schedules, as in Europe/Berlin (default: UTC).")
    ] = None,
    common: Common = DEFAULTS,
) -> None:
    """Make a policy; give it templates with "policy template add"."""
    view = ask(common, "policy.create", q.PolicyCreate(name, PolicyDoc(zone=zone)), v.PolicyView)
    output.show(view, common.json, _show)


@app.command
def edit(
    name: Name,
    /,
    *,
    conflict_within: Annotated[
        str | None, Parameter(help="Runs that are due less than this apart conflict, as in 1h.")
    ] = None,
    zone: Annotated[str | None, Parameter(help="Time zone of the schedules of all templates.")] = None,
    common: Common = DEFAULTS,
) -> None:
    """Change what holds for all templates of a policy."""

    def change(policy: PolicyDoc) -> PolicyDoc:
        if conflict_within is not None:
            policy = replace(policy, conflict_within=conflict_within)
        if zone is not None:
            own = {name: replace(template, zone=None) for name, template in policy.templates.items()}
            policy = replace(policy, zone=zone, templates=own)
        return policy

    _change(common, name, change)


@app.command
def rename(name: Name, new: NewName, /, *, common: Common = DEFAULTS) -> None:
    """Rename a policy; its jobs keep their history."""
    output.show(ask(common, "policy.rename", q.Renamed(name, new), v.PolicyView), common.json, _show)


@app.command
def copy(name: Name, new: NewName, /, *, common: Common = DEFAULTS) -> None:
    """Copy a policy; the copy has no selection lists."""
    output.show(ask(common, "policy.copy", q.Renamed(name, new), v.PolicyView), common.json, _show)


@app.command
def delete(name: Name, /, *, local: Local = NOT_LOCAL, common: Common = DEFAULTS) -> None:
    """Delete a policy that is associated with no selection list."""
    view = ask(common, local.call("policy.delete"), q.Named(name), v.Done)
    output.show(view, common.json, lambda _: output.line(f"policy {name} was deleted"))


# --- templates ---

Type = Annotated[
    Literal["full", "incremental", "differential", "copy", "verify", "duplicate", "synthetic"] | None,
    Parameter(
        help="What it does. A verify reads back the newest set of each server, a duplicate copies it to another device, "
        "a synthetic makes a full one of it without reading the source."
    ),
]
To = Annotated[str | None, Parameter(help="Where: any, device:NAME, devices:POOL, server:NAME or pool:NAME.")]
Zone = Annotated[str | None, Parameter(help="Time zone of its schedule, if it is another one than that of the policy.")]
Calendars = Annotated[
    tuple[str, ...],
    Parameter(name="--calendar", negative=(), help="A calendar of days without a run; may be repeated; or none."),
]
MediaSet = Annotated[str | None, Parameter(help="Media set: decides how long the sets are kept.")]
Priority = Annotated[str | None, Parameter(help="Who goes first (else as the selection list says); or none.")]
Verify = Annotated[bool | None, Parameter(help="Read the set back and check it after writing (default).")]
Pre = Annotated[str | None, Parameter(help="Command of each source's own file to run before it is read; or none.")]
Post = Annotated[str | None, Parameter(help="Command of each source's own file to run once it was read; or none.")]
Logon = Annotated[
    str | None, Parameter(help="Logon information that the commands of --pre and --post are given; or none.")
]
PostAlways = Annotated[bool | None, Parameter(help="Run the command of --post even if the backup fails.")]
IgnoreExitCodes = Annotated[bool | None, Parameter(help="Go on when the command of --pre or --post fails.")]
Snapshot = Annotated[
    Literal["never", "auto", "required"] | None, Parameter(help="Read from a snapshot of the file system.")
]
SecondTo = Annotated[
    str | None, Parameter(help="Where a second device is, for the same: the source is read once. As --to; or none.")
]
AllowShrink = Annotated[bool | None, Parameter(help="Accept over 90 % less than the last set of the same paths.")]


@shared
@dataclass(frozen=True)
class TemplateOptions:
    """What a template does; what is not given stays as it is, or as usual."""

    type: Type = None
    to: To = None
    second_to: SecondTo = None
    schedule: Schedule = None
    zone: Zone = None
    exclude_day: ExcludeDays = ()
    calendar: Calendars = ()
    start_window: StartWindow = None
    cancel_after: CancelAfter = None
    catch_up: CatchUp = None
    media_set: MediaSet = None
    priority: Priority = None
    verify: Verify = None
    pre: Pre = None
    post: Post = None
    logon: Logon = None
    post_always: PostAlways = None
    ignore_exit_codes: IgnoreExitCodes = None
    snapshot: Snapshot = None
    allow_shrink: AllowShrink = None

    def given(self) -> dict[str, Any]:
        """The values of options that were given, by the names of a template's fields."""
        names = {"exclude_day": "exclude_days", "calendar": "calendars"}
        values = {names.get(each.name, each.name): getattr(self, each.name) for each in dataclasses.fields(self)}
        given = {key: value for key, value in values.items() if value not in (None, ())}
        taken_back = {key: None for key, value in given.items() if value == UNSET}
        emptied = {key: () for key, value in given.items() if value == (UNSET,)}
        return {**given, **taken_back, **emptied}


NOTHING_SAID = TemplateOptions()


@templates.command
def add(
    name: Name,
    template: Template,
    /,
    *,
    options: TemplateOptions = NOTHING_SAID,
    common: Common = DEFAULTS,
) -> None:
    """Add a template; each associated selection list gets a job of it."""
    does = options.type
    if does is None:
        raise UsageError(detail="Say what it does, with --type")

    def change(policy: PolicyDoc) -> PolicyDoc:
        if template in policy.templates:
            raise AlreadyExists(kind="template", name=template)
        made = replace(TemplateDoc(does), **options.given())
        return replace(policy, templates={**policy.templates, template: made})

    _change(common, name, change)


@templates.command(name="edit")
def edit_(
    name: Name,
    template: Template,
    /,
    *,
    options: TemplateOptions = NOTHING_SAID,
    common: Common = DEFAULTS,
) -> None:
    """Change a template; its jobs follow, runs that are open go on as they began."""

    def change(policy: PolicyDoc) -> PolicyDoc:
        if template not in policy.templates:
            raise NotFound(kind="template", name=template)
        made = replace(policy.templates[template], **options.given())
        return replace(policy, templates={**policy.templates, template: made})

    _change(common, name, change)


@templates.command(name="copy")
def copy_(
    name: Name,
    template: Template,
    new: Annotated[str, Parameter(name="NEW", help="Name of the copy.")],
    /,
    *,
    common: Common = DEFAULTS,
) -> None:
    """Copy a template, without the rules about it; each associated selection list gets a job of the copy."""

    def change(policy: PolicyDoc) -> PolicyDoc:
        if template not in policy.templates:
            raise NotFound(kind="template", name=template)
        if new in policy.templates:
            raise AlreadyExists(kind="template", name=new)
        return replace(policy, templates={**policy.templates, new: policy.templates[template]})

    _change(common, name, change)


@templates.command(name="remove")
def remove(name: Name, template: Template, /, *, common: Common = DEFAULTS) -> None:
    """Remove a template with its jobs and the rules about it; history and sets stay."""

    def change(policy: PolicyDoc) -> PolicyDoc:
        if template not in policy.templates:
            raise NotFound(kind="template", name=template)
        left = {key: value for key, value in policy.templates.items() if key != template}
        kept = tuple(rule for rule in policy.rules if template not in rule.split())
        return replace(policy, templates=left, rules=kept)

    _change(common, name, change)


# --- rules ---


@rules.command(name="add")
def add_rule(name: Name, rule: Rule, /, *, common: Common = DEFAULTS) -> None:
    """Add a rule between two templates."""
    _change(common, name, lambda policy: replace(policy, rules=(*policy.rules, rule)))


@rules.command(name="remove")
def remove_rule(name: Name, rule: Rule, /, *, common: Common = DEFAULTS) -> None:
    """Remove a rule, written as "policy show" has it."""
    plain = " ".join(rule.split())

    def change(policy: PolicyDoc) -> PolicyDoc:
        if plain not in policy.rules:
            raise NotFound(kind="rule", name=plain)
        return replace(policy, rules=tuple(each for each in policy.rules if each != plain))

    _change(common, name, change)


def _change(common: Common, name: str, change: Any) -> None:
    """What one command changes, unless somebody else did so meanwhile."""
    with connect(common) as client:
        old = client.call("policy.show", q.Named(name), v.PolicyView).definition
        view = client.call("policy.set", q.PolicySet(name, change(old), before=old), v.PolicyView)
    output.show(view, common.json, _show)

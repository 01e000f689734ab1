"""``caso-mesh notify``: whom the administrator tells of what, and by which ways."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec.structs import replace

from caso_mesh.cli import named, output
from caso_mesh.cli.client import ask, connect
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.named import Name
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import notice_docs as d
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import UsageError

app = Group(name="notify", help="Mail and webhooks: recipients, groups, rules, the mail server, a test.")
recipients = app.group(name="recipient", help="Recipients: mail addresses and webhooks.")
groups = app.group(name="group", help="Groups of recipients.")
rules = app.group(name="rule", help="Rules: which alerts and ends of runs are told to whom.")
smtp = app.group(name="smtp", help="The server that takes the mail of the mesh.")


Logon = Annotated[str | None, Parameter(help='By the secret of this logon it is signed; "" = not signed.')]
Hourly = Annotated[int | None, Parameter(help="At most so many messages in an hour; the rest is one message.")]
Summary = Annotated[bool | None, Parameter(help="Whether it gets the summary of each morning (summary-at).")]
Alerts = Annotated[
    tuple[str, ...],
    Parameter(name="--alert", negative=(), help="A type or a category of alerts; may be repeated (help alerts)."),
]
Ends = Annotated[
    tuple[str, ...],
    Parameter(name="--end", negative=(), help="An end of runs, as in failed or missed; may be repeated."),
]
To = Annotated[tuple[str, ...], Parameter(name="--to", negative=(), help="A recipient or a group; may be repeated.")]
Servers = Annotated[
    tuple[str, ...], Parameter(name="--server", negative=(), help="Only what is about this server; may be repeated.")
]
Pools = Annotated[
    tuple[str, ...], Parameter(name="--pool", negative=(), help="Only what is about this pool; may be repeated.")
]
Jobs = Annotated[
    tuple[str, ...], Parameter(name="--job", negative=(), help="Only what is about this job; may be repeated.")
]
Policies = Annotated[
    tuple[str, ...], Parameter(name="--policy", negative=(), help="Or about jobs of this policy; may be repeated.")
]
Lists = Annotated[
    tuple[str, ...],
    Parameter(name="--list", negative=(), help="Or about jobs of this selection list; may be repeated."),
]


# --- what recipients, groups and rules share ---


def _narrowed(doc: d.NoticeRuleDoc) -> tuple[str, ...]:
    kinds = (
        ("server", doc.servers),
        ("pool", doc.pools),
        ("job", doc.jobs),
        ("policy", doc.policies),
        ("list", doc.lists),
    )
    return tuple(f"{kind} {name}" for kind, names in kinds for name in names)


_RECIPIENT = named.Kind(
    group=recipients,
    name="recipient",
    call="recipient",
    edit=d.RecipientEdit,
    views=d.RecipientViews,
    rows=lambda view: view.recipients,
    columns=(
        ("name", lambda row: row.name),
        ("to", lambda row: row.definition.mail or row.definition.url),
        ("signed by", lambda row: row.definition.logon),
        ("an hour", lambda row: row.definition.hourly),
        ("summary", lambda row: row.definition.summary),
        ("waiting", lambda row: row.waiting),
        ("problem", lambda row: row.problem),
    ),
    made="was added; try it: caso-mesh notify test {name}",
    empty="No recipients: nobody is told of anything. A first one: caso-mesh notify recipient create NAME --mail ADDRESS (or --url URL)",
    listing="List the recipients, what waits for them, and why the last message did not arrive.",
    deletion="Delete a recipient that no group and no rule names.",
)
_GROUP = named.Kind(
    group=groups,
    name="group",
    call="recipient-group",
    edit=d.RecipientGroupEdit,
    views=d.RecipientGroupViews,
    rows=lambda view: view.groups,
    columns=(("name", lambda row: row.name), ("members", lambda row: row.definition.members)),
    made="was made",
    empty="No groups to show. A new one: caso-mesh notify group create NAME RECIPIENT RECIPIENT",
    listing="List the groups of recipients.",
    deletion="Delete a group that no rule names; its members stay.",
)
_RULE = named.Kind(
    group=rules,
    name="rule",
    call="notify-rule",
    edit=d.NoticeRuleEdit,
    views=d.NoticeRuleViews,
    rows=lambda view: view.rules,
    columns=(
        ("name", lambda row: row.name),
        ("to", lambda row: row.definition.to),
        ("alerts", lambda row: row.definition.alerts),
        ("ends", lambda row: row.definition.ends),
        ("over", lambda row: row.definition.over),
        ("only about", lambda row: _narrowed(row.definition)),
    ),
    made="was made",
    empty="No rules to show: as long as there are no recipients, nobody is told. A first one: caso-mesh notify recipient create NAME",
    listing="List the rules. While there is none, the one that is shown as standard holds.",
    deletion="Delete a rule.",
)


for _kind in (_RECIPIENT, _GROUP, _RULE):
    named.add_commands(_kind)


# --- recipients ---


@recipients.command(name="create")
def create_recipient(
    name: Name,
    /,
    *,
    mail: Annotated[str, Parameter(help="A mail address.")] = "",
    url: Annotated[str, Parameter(help="Or where a webhook listens.")] = "",
    logon: Logon = None,
    hourly: Hourly = None,
    summary: Summary = None,
    common: Common = DEFAULTS,
) -> None:
    """Add a recipient. Until there is a rule it is told of every alert that needs attention or is an error."""
    doc = d.RecipientDoc(mail, url, logon or None)
    doc = replace(doc, hourly=doc.hourly if hourly is None else hourly, summary=not url if summary is None else summary)
    named.create(_RECIPIENT, name, doc, common)


@recipients.command(name="edit")
def edit_recipient(
    name: Name,
    /,
    *,
    mail: Annotated[str | None, Parameter(help="A mail address.")] = None,
    url: Annotated[str | None, Parameter(help="Or where a webhook listens.")] = None,
    logon: Logon = None,
    hourly: Hourly = None,
    summary: Summary = None,
    common: Common = DEFAULTS,
) -> None:
    """Change a recipient. What waits for it goes to the new address."""
    with connect(common) as client:
        old: d.RecipientDoc = named.definition(_RECIPIENT, name, client)
        if mail is not None or url is not None:
            old = replace(old, mail=mail or "", url=url or "")
        doc = d.RecipientDoc(
            old.mail,
            old.url,
            old.logon if logon is None else logon or None,
            old.hourly if hourly is None else hourly,
            old.summary if summary is None else summary,
        )
        named.change(_RECIPIENT, name, doc, common, client)


# --- groups ---


@groups.command(name="create")
def create_group(
    name: Name,
    /,
    *members: Annotated[str, Parameter(name="RECIPIENT", help="Its members.")],
    common: Common = DEFAULTS,
) -> None:
    """Put recipients under one name."""
    named.create(_GROUP, name, d.RecipientGroupDoc(members), common)


@groups.command(name="edit")
def edit_group(
    name: Name,
    /,
    *members: Annotated[str, Parameter(name="RECIPIENT", help="Its members from now on.")],
    common: Common = DEFAULTS,
) -> None:
    """Replace the members of a group."""
    with connect(common) as client:
        named.change(_GROUP, name, d.RecipientGroupDoc(members), common, client)


# --- rules ---


@rules.command(name="create")
def create_rule(
    name: Name,
    /,
    *,
    to: To,
    alert: Alerts = (),
    end: Ends = (),
    server: Servers = (),
    pool: Pools = (),
    job: Jobs = (),
    policy: Policies = (),
    list_: Lists = (),
    over: Annotated[bool, Parameter(help="Tell as well when what an alert told of is over.")] = False,
    common: Common = DEFAULTS,
) -> None:
    """Say who is told of which alerts and ends of runs, from now on."""
    doc = d.NoticeRuleDoc(to, alert, end, server, pool, job, policy, list_, over)
    named.create(_RULE, name, doc, common)


@rules.command(name="edit")
def edit_rule(
    name: Name,
    /,
    *,
    to: To = (),
    alert: Alerts = (),
    end: Ends = (),
    server: Servers = (),
    pool: Pools = (),
    job: Jobs = (),
    policy: Policies = (),
    list_: Lists = (),
    over: Annotated[bool | None, Parameter(help="Tell as well when what an alert told of is over.")] = None,
    everywhere: Annotated[bool, Parameter(negative=(), help="Not narrowed down any more, but as said here.")] = False,
    common: Common = DEFAULTS,
) -> None:
    """Change a rule: what is given replaces what was. It holds for what happens from then on."""
    with connect(common) as client:
        old: d.NoticeRuleDoc = named.definition(_RULE, name, client)
        if everywhere:
            old = replace(old, servers=(), pools=(), jobs=(), policies=(), lists=())
        if alert or end:
            old = replace(old, alerts=(), ends=())
        doc = d.NoticeRuleDoc(
            to or old.to,
            alert or old.alerts,
            end or old.ends,
            server or old.servers,
            pool or old.pools,
            job or old.jobs,
            policy or old.policies,
            list_ or old.lists,
            old.over if over is None else over,
        )
        named.change(_RULE, name, doc, common, client)


# --- the mail server ---


@smtp.command(name="show")
def show_server(*, common: Common = DEFAULTS) -> None:
    """Show the mail server."""
    output.show(ask(common, "mail-server.show", q.Nothing(), d.MailServerView), common.json, _server)


def _server(view: d.MailServerView) -> None:
    if view.mail_server is None:
        output.line("There is no mail server.")
        return
    output.details(
        ("host", view.mail_server.host),
        ("port", view.mail_server.port or "the usual one"),
        ("tls", view.mail_server.tls),
        ("from", view.mail_server.sender),
        ("logon", view.mail_server.logon),
        ("CA", "its own" if view.mail_server.ca else None),
        ("changed", f"{view.changed} by {view.changed_by}"),
    )


@smtp.command(name="set")
def set_server(
    host: Annotated[str, Parameter(name="HOST", help="Name or address of the mail server.")],
    /,
    *,
    sender: Annotated[str, Parameter(name="--from", help="The address that mail of the mesh comes from.")],
    port: Annotated[int, Parameter(help="Its port; without, the usual one: 587, 465 with implicit, else 25.")] = 0,
    tls: Annotated[
        Literal["starttls", "starttls-if-offered", "implicit", "none"],
        Parameter(help="starttls is required unless it says otherwise; a logon is only given to a checked server."),
    ] = "starttls",
    logon: Annotated[
        str | None, Parameter(help="The logon that it wants; one made with logon create --voters.")
    ] = None,
    ca: Annotated[Path | None, Parameter(help="A file of certificates (PEM) that are believed of it instead.")] = None,
    common: Common = DEFAULTS,
) -> None:
    """Say which server takes the mail of the mesh. Whoever is in office uses it."""
    text = ""
    if host.count(":") == 1:
        raise UsageError(detail=f"HOST is a name or an address alone: {host.replace(':', ' --port ')}")
    if ca is not None:
        try:
            text = ca.read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(detail=f"The certificates cannot be read from {ca}: {error}") from None
    doc = d.MailServerDoc(host, sender, port, tls, logon, text)
    view = ask(common, "mail-server.set", d.MailServerSet(doc), v.Done)
    output.show(
        view, common.json, lambda _: output.line(f"mail goes by {host}; try it: caso-mesh notify test RECIPIENT")
    )


@smtp.command(name="clear")
def clear_server(*, common: Common = DEFAULTS) -> None:
    """Have no mail server any more."""
    view = ask(common, "mail-server.set", d.MailServerSet(None), v.Done)
    output.show(view, common.json, lambda _: output.line("there is no mail server any more"))


# --- a test ---


@app.command(name="test")
def try_(
    name: Annotated[str, Parameter(name="NAME", help="A recipient or a group.")],
    /,
    *,
    common: Common = DEFAULTS,
) -> int:
    """Send something now, and say what the receiving servers answer. Exit status 1 if one did not take it."""
    view = ask(common, "notify.test", d.NoticeTest(name), d.NoticesTested)
    output.show(view, common.json, _tested)
    return 0 if all(row.arrived for row in view.results) else 1


def _tested(view: d.NoticesTested) -> None:
    output.table(
        view.results,
        ("recipient", lambda row: row.recipient),
        ("arrived", lambda row: row.arrived),
        ("what it said", lambda row: row.answer or row.problem),
    )

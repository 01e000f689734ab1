"""``caso-mesh logon``: users and secrets for the commands of servers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from caso_mesh.cli import hidden, output
from caso_mesh.cli.client import Client, ask, connect
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common, interactive
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import NotFound, UsageError
from caso_mesh.model.logons import LONGEST_SECRET

if TYPE_CHECKING:
    from caso_mesh.model.documents import LogonDoc

app = Group(name="logon", help="Logon information: users and secrets for the commands of servers.")

Name = Annotated[str, Parameter(name="NAME", help="Name of the logon.")]
SecretFile = Annotated[
    Path | None,
    Parameter(
        name="--secret-file",
        help='Read the secret from this file ("-": standard input), without the end of its line; else it is asked for.',
    ),
]


@app.command(name="list")
def list_(*, common: Common = DEFAULTS) -> None:
    """List the logons and who may use them. Nobody is ever shown a secret."""
    output.show(ask(common, "logon.list", q.Nothing(), v.LogonList), common.json, _list)


def _list(view: v.LogonList) -> None:
    output.table(
        view.logons,
        ("name", lambda row: row.name),
        ("user", lambda row: row.definition.user),
        ("servers", lambda row: row.definition.servers),
        ("pools", lambda row: row.definition.pools),
        ("voters", lambda row: row.definition.voters),
        ("have it", lambda row: row.there),
        ("wait for it", lambda row: row.lacking),
        ("changed", lambda row: f"{row.changed} by {row.changed_by}"),
        empty="No logons to show. A new one: caso-mesh logon create NAME --user USER --server SERVER",
    )


def _one(view: v.LogonView) -> None:
    output.details(
        ("logon", view.name),
        ("user", view.definition.user),
        ("servers", view.definition.servers or None),
        ("pools", view.definition.pools or None),
        ("voters", view.definition.voters or None),
        ("have it", view.there or None),
        ("wait for it", view.lacking or None),
    )


@app.command
def create(
    name: Name,
    /,
    *,
    user: Annotated[str, Parameter(help="Whom the commands log on as.")],
    server: Annotated[
        tuple[str, ...], Parameter(name="--server", negative=(), help="A server that may use it; may be repeated.")
    ] = (),
    pool: Annotated[
        tuple[str, ...], Parameter(name="--pool", negative=(), help="All servers of this pool may; may be repeated.")
    ] = (),
    voters: Annotated[
        bool, Parameter(negative=(), help="All voters may, as for the mail server: any of them may be in office.")
    ] = False,
    secret_file: SecretFile = None,
    common: Common = DEFAULTS,
) -> None:
    """Keep a user and a secret for the commands of servers. The secret is sealed here, to each of them."""
    users = q.LogonUsers(server, pool, voters)
    if not server and not pool and not voters:
        raise UsageError(detail="Say who may use it, with --server, --pool or --voters")
    with connect(common) as client:
        sealed = _sealed(client, name, users, _secret(name, secret_file))
        view = client.call("logon.create", q.LogonCreate(name, user, users, sealed), v.LogonView)
    output.show(view, common.json, _one)


@app.command(name="set")
def set_(
    name: Name,
    /,
    *,
    user: Annotated[str | None, Parameter(help="Whom the commands log on as.")] = None,
    add_server: Annotated[
        tuple[str, ...], Parameter(name="--add-server", negative=(), help="One more server; may be repeated.")
    ] = (),
    remove_server: Annotated[
        tuple[str, ...], Parameter(name="--remove-server", negative=(), help="A server less; may be repeated.")
    ] = (),
    add_pool: Annotated[
        tuple[str, ...], Parameter(name="--add-pool", negative=(), help="One more pool; may be repeated.")
    ] = (),
    remove_pool: Annotated[
        tuple[str, ...], Parameter(name="--remove-pool", negative=(), help="A pool less; may be repeated.")
    ] = (),
    voters: Annotated[bool | None, Parameter(help="Whether all voters may.")] = None,
    new_secret: Annotated[bool, Parameter(negative=(), help="Ask for another secret.")] = False,
    secret_file: SecretFile = None,
    common: Common = DEFAULTS,
) -> None:
    """Change a logon: its user, its secret, who may use it. Jobs that begin afterwards are given what it is then."""
    with connect(common) as client:
        rows = client.call("logon.list", q.Nothing(), v.LogonList).logons
        old = next((row.definition for row in rows if row.name == name), None)
        if old is None:
            raise NotFound(kind="logon", name=name)
        users = _users(old, (add_server, remove_server), (add_pool, remove_pool), voters)
        sealed = None
        if new_secret or secret_file is not None:
            sealed = _sealed(client, name, users, _secret(name, secret_file))
        request = q.LogonSet(name, old.user if user is None else user, users, sealed, before=old)
        view = client.call("logon.set", request, v.LogonView)
    output.show(view, common.json, _one)


_Changes = tuple[tuple[str, ...], tuple[str, ...]]


def _users(old: LogonDoc, servers: _Changes, pools: _Changes, voters: bool | None) -> q.LogonUsers:
    """Who may use it after some were added and others removed."""
    changed: list[tuple[str, ...]] = []
    for kind, now, (more, less) in (("server", old.servers, servers), ("pool", old.pools, pools)):
        for each in less:
            if each not in now:
                raise NotFound(kind=kind, name=f"{each} among those that may use it")
        changed.append(tuple(each for each in dict.fromkeys((*now, *more)) if each not in less))
    now_servers, now_pools = changed
    return q.LogonUsers(now_servers, now_pools, old.voters if voters is None else voters)


@app.command
def delete(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Delete a logon that nothing uses, with all copies of its secret."""
    view = ask(common, "logon.delete", q.Named(name), v.Done)
    output.show(view, common.json, lambda _: output.line(f"logon {name} was deleted"))


def _sealed(client: Client, name: str, users: q.LogonUsers, secret: str) -> q.SealedLogon:
    """Sealed on this machine: what travels, and what is kept, opens only on the servers that may use it."""
    from caso_mesh.identity.logons import seal_logon

    recipients = client.call("logon.recipients", users, v.LogonRecipients)
    version = os.urandom(10).hex()
    copies = seal_logon(
        secret, recipients.keys, mesh=recipients.mesh, name=name, version=version, randomness=os.urandom
    )
    return q.SealedLogon(version, copies)


def _secret(name: str, path: Path | None) -> str:
    """Out of a file, or asked for twice. Raises ``UsageError``."""
    if path is not None:
        text = hidden.read_text(path, "secret", LONGEST_SECRET + 3)
        return _checked(text.removesuffix("\n").removesuffix("\r"), path)
    if not interactive():
        raise UsageError(detail="There is nobody to ask for the secret: give --secret-file")
    return _checked(hidden.ask_twice(f"Secret of the logon {name}: ", "secret"), "what was typed")


def _checked(secret: str, where: object) -> str:
    """One line, as an environment variable holds it."""
    if not secret or len(secret.encode()) > LONGEST_SECRET or any(each in secret for each in "\n\r\0"):
        raise UsageError(detail=f"{where} is no secret: use one line of at most {LONGEST_SECRET} bytes")
    return secret

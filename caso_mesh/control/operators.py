"""Commands about people: inviting operators, admitting the keys that they made, revoking them."""

from __future__ import annotations

import msgspec

from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect, Put
from caso_mesh.model.commands import AdmitOperator, InviteOperator, RevokeOperator
from caso_mesh.model.errors import (
    AlreadyExists,
    Conflict,
    InvalidValue,
    JoinLinkExpired,
    JoinLinkInvalid,
    JoinLinkUsed,
    NotFound,
    NotOnRoster,
)
from caso_mesh.model.ids import check_name
from caso_mesh.model.mesh import JoinToken, Operator, OperatorGrant
from caso_mesh.model.states import Role


def invite_operator(state: ControlState, command: InviteOperator, context: Context) -> Effect:
    """``AlreadyExists`` for the name of an operator or of somebody who is invited, ``NotFound`` for a server or pool."""
    grant = command.grant
    check_name(grant.name, "operator")
    if len(command.digest) != 32:
        raise InvalidValue(value=command.digest.hex(), what="digest of a link", expected="It has 32 bytes")
    for server in grant.servers:
        state.server(server)
    for pool in grant.pools:
        state.pool_named(pool)
    invited = (token for token in open_invitations(state, context.at_ns) if token.grant == grant)
    if any(token.digest == command.digest for token in invited):
        return Effect()
    _check_free(state, grant.name, context.at_ns)
    token = JoinToken(command.digest, command.expires_at_ns, created_by=context.who, grant=grant)
    return Effect(None, (Put("tokens", token.digest, token),))


def admit_operator(state: ControlState, command: AdmitOperator, context: Context) -> Effect:
    """The same key again gets the same answer. ``JoinLinkInvalid``, ``JoinLinkUsed``, ``JoinLinkExpired``,
    ``NotOnRoster`` for a revoked key, ``AlreadyExists`` for a name or a key in use."""
    token = state.tokens.get(command.token)
    if token is None:
        raise JoinLinkInvalid(detail="it is not known here")
    grant = token.grant
    if grant is None:
        raise JoinLinkInvalid(detail="it is for a server, not for an operator")
    if command.operator in state.removed:
        raise NotOnRoster(peer=grant.name)
    if token.used_by is not None:
        if token.used_by != command.operator or command.operator not in state.operators:
            raise JoinLinkUsed
        return Effect({"operator": command.operator})
    if context.at_ns > token.expires_at_ns:
        raise JoinLinkExpired
    if command.operator in state.operators or command.operator in state.servers:
        raise AlreadyExists(kind="operator", name=grant.name)
    if any(other.name == grant.name for other in state.operators.values()):
        raise AlreadyExists(kind="operator", name=grant.name)
    changes = (
        Put("tokens", token.digest, msgspec.structs.replace(token, used_by=command.operator)),
        Put("operators", command.operator, _operator(state, command, grant, context.at_ns)),
    )
    return Effect({"operator": command.operator}, changes)


def revoke_operator(state: ControlState, command: RevokeOperator, context: Context) -> Effect:
    """``NotFound``; ``Conflict`` for the last one who may administer the mesh."""
    operator = next((each for each in state.operators.values() if each.name == command.name), None)
    if operator is None:
        invited = [
            each for each in open_invitations(state, context.at_ns) if each.grant and each.grant.name == command.name
        ]
        if not invited:
            raise NotFound(kind="operator", name=command.name)
        return Effect(None, tuple(Put("tokens", each.digest, None) for each in invited))
    others = [each for each in state.operators.values() if each.role is Role.ADMIN and each.id != operator.id]
    if operator.role is Role.ADMIN and not others:
        raise Conflict(
            detail=f"{operator.name} is the last operator who may administer the mesh; make another one first"
        )
    return Effect(
        {"operator": operator.id},
        (Put("operators", operator.id, None), Put("removed", operator.id, operator.name)),
    )


def open_invitations(state: ControlState, now_ns: int) -> list[JoinToken]:
    """Invitations that may still be followed, by name."""
    found = [
        token
        for token in state.tokens.values()
        if token.grant is not None and token.used_by is None and token.expires_at_ns >= now_ns
    ]
    return sorted(found, key=lambda token: (token.grant.name if token.grant else "", token.digest))


def _check_free(state: ControlState, name: str, now_ns: int) -> None:
    taken = {each.name for each in state.operators.values()}
    taken |= {token.grant.name for token in open_invitations(state, now_ns) if token.grant}
    if name in taken:
        raise AlreadyExists(kind="operator", name=name)


def _operator(state: ControlState, command: AdmitOperator, grant: OperatorGrant, now_ns: int) -> Operator:
    """What was granted and is still there: servers and pools that left since give nothing."""
    everywhere = not grant.servers and not grant.pools
    return Operator(
        name=grant.name,
        id=command.operator,
        public_key=command.public_key,
        role=grant.role if everywhere else None,
        created_at_ns=now_ns,
        server_roles=tuple((server, grant.role) for server in grant.servers if server in state.servers),
        pool_roles=tuple((pool, grant.role) for pool in grant.pools if pool in state.pools),
    )

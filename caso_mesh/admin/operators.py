"""Operators: invited by a link, admitted with a key that they made themselves, revoked once for the whole mesh."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from caso_mesh.admin.join_secrets import JoinSecrets, audited
from caso_mesh.admin.ports import Answer, Caller, Facts, Submit, done_before
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.operators import open_invitations
from caso_mesh.identity import enrolment, tokens
from caso_mesh.identity.authority import Authority
from caso_mesh.identity.certificates import fingerprint
from caso_mesh.identity.roster import Peer
from caso_mesh.model import joining as j
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.commands import AdmitOperator, InviteOperator, RevokeOperator
from caso_mesh.model.errors import InvalidValue, JoinLinkInvalid
from caso_mesh.model.ids import node_id
from caso_mesh.model.mesh import JoinToken, Operator, OperatorGrant
from caso_mesh.model.units import format_instant
from caso_mesh.sealing.signing import can_verify

_ADDRESSES_IN_LINK = 8


class Operators:
    """Answers of the administrator. ``addresses`` are its own."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        submit: Submit,
        facts: Facts,
        secrets: JoinSecrets,
        authority: Authority,
        addresses: Callable[[], tuple[str, ...]],
        noted: Callable[..., Awaitable[None]],
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._noted = noted
        self._keeper = keeper
        self._submit = submit
        self._facts = facts
        self._secrets = secrets
        self._authority = authority
        self._addresses = addresses
        self._clock = clock
        self._randomness = randomness

    def handlers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return {
            "operator.create": self._create,
            "operator.list": self._list,
            "operator.revoke": self._revoke,
            "operator.renew": self._renew,
        }

    async def _create(self, caller: Caller, request: q.OperatorCreate) -> v.OperatorInvited:
        """Raises ``AlreadyExists``, ``NotFound`` for a server or pool, ``InvalidName``, ``InvalidValue``."""
        state = self._keeper.state
        secret, expires = self._secrets.make(caller, request.ttl_s)
        servers = tuple(dict.fromkeys(state.server_named(name).id for name in request.servers))
        pools = tuple(dict.fromkeys(state.pool_named(name).name for name in request.pools))
        grant = OperatorGrant(request.name, request.role, servers, pools)
        command = InviteOperator(tokens.digest(secret), expires, grant)
        await self._submit(command, who=caller.who, request_id=caller.request_id)
        link = tokens.make_link(
            mesh=state.info().id,
            root_fingerprint=fingerprint(self._authority.root),
            addresses=self._reached()[:_ADDRESSES_IN_LINK],
            secret=secret,
            expires_at_ns=expires,
            kind="operator",
        )
        return v.OperatorInvited(
            name=grant.name,
            role=grant.role.value,
            servers=tuple(state.name_of(each) for each in servers),
            pools=pools,
            link=link,
            expires=format_instant(expires) or "",
        )

    def _reached(self) -> tuple[str, ...]:
        """Where servers of the mesh are reached: this one, then the other voters, then all others."""
        others = sorted(self._keeper.state.server_list(), key=lambda server: not server.voter)
        firsts = [server.addresses[0] for server in others if server.addresses]
        return tuple(dict.fromkeys((*self._addresses()[:2], *firsts)))

    async def admit(self, peer: Peer, request: j.OperatorRequest, link: Any) -> j.OperatorReply:
        """Somebody shows the secret of an invitation and the key that he made. Raises the ``JoinLink...`` errors,
        ``RateLimited``, ``InvalidValue`` for a key of another kind."""
        source, token = str(link.remote_address), tokens.digest(request.secret)
        invitation = self._keeper.state.tokens.get(token)
        who = invitation.grant.name if invitation is not None and invitation.grant is not None else "anonymous"
        async with audited(self._facts, who, "enrol.operator", source):
            return await self._admit(request, token, source.rpartition(":")[0])

    async def _admit(self, request: j.OperatorRequest, token: bytes, host: str) -> j.OperatorReply:
        self._secrets.shown(token, host)
        state, mesh = self._keeper.state, self._keeper.state.info().id
        if state.tokens.get(token) is None:
            raise JoinLinkInvalid(detail="it is not known here")
        if not can_verify(request.public_key):
            raise InvalidValue(value="the key", what="operator", expected="It is one that signs")
        if not enrolment.check_operator(request.public_key, request.signature, mesh=mesh, binding=token):
            raise JoinLinkInvalid(detail="who shows it did not prove that he holds his key")
        id_ = node_id(request.public_key)
        # committed first, signed then: the same key that asks again gets the same answer
        await self._submit(AdmitOperator(token, id_, request.public_key), who="operator-link")
        anchors = tuple(anchor.certificate for anchor in state.roster().anchors)
        await self._noted(id_)
        return j.OperatorReply(
            name=state.operators[id_].name,
            certificate=self._certificate(request.public_key),
            anchors=anchors,
            addresses=self._reached(),
            proof=enrolment.prove_anchors(token, anchors[0], anchors[1:], request.public_key),
        )

    def _certificate(self, public_key: bytes) -> tuple[bytes, ...]:
        now_ns = self._clock.now_ns()
        return self._authority.chain(
            self._authority.issue_operator(public_key, now_ns=now_ns, randomness=self._randomness)
        )

    async def _renew(self, caller: Caller, request: q.Nothing) -> n.OperatorRenewReply:
        """For an operator whose key lies in no state folder that a daemon looks after."""
        reply = n.OperatorRenewReply(self._certificate(caller.person.public_key))
        await self._noted(caller.person.id)
        return reply

    async def _revoke(self, caller: Caller, request: q.OperatorName) -> v.Done:
        """Raises ``NotFound``, ``Conflict`` for the last one who may administer the mesh."""
        if done_before(self._keeper, caller) is None:
            await self._submit(RevokeOperator(request.name), who=caller.who, request_id=caller.request_id)
        return v.Done()

    async def _list(self, caller: Caller, request: q.Nothing) -> v.OperatorList:
        state = self._keeper.state
        active = [self._view(operator) for operator in state.operator_list()]
        invited = [self._invited(token) for token in open_invitations(state, self._clock.now_ns())]
        return v.OperatorList(tuple(sorted((*active, *invited), key=lambda row: row.name)))

    def _view(self, operator: Operator) -> v.OperatorView:
        state = self._keeper.state
        return v.OperatorView(
            name=operator.name,
            id=operator.id,
            state="active",
            role=operator.role.value if operator.role else None,
            on={state.name_of(server): role.value for server, role in operator.server_roles},
            on_pools={pool: role.value for pool, role in operator.pool_roles},
            created=format_instant(operator.created_at_ns),
            home=state.name_of(operator.home) if operator.home else None,
        )

    def _invited(self, token: JoinToken) -> v.OperatorView:
        grant, state = token.grant, self._keeper.state
        assert grant is not None
        role = grant.role.value
        return v.OperatorView(
            name=grant.name,
            id=None,
            state="invited",
            role=None if grant.servers or grant.pools else role,
            on={state.name_of(server): role for server in grant.servers},
            on_pools=dict.fromkeys(grant.pools, role),
            expires=format_instant(token.expires_at_ns),
        )

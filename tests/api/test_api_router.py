"""Who may call what: roles and scopes, signatures, forwarding, the audit log."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import dataclasses
import enum
import itertools
import typing
from collections.abc import AsyncIterator, Iterator
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
import pytest_asyncio
from mesh.clock import VirtualClock
from msgspec.structs import replace

from caso_mesh.admin.ports import Caller
from caso_mesh.api.router import Router
from caso_mesh.identity.keys import SigningKey
from caso_mesh.identity.requests import sign_request
from caso_mesh.identity.roster import ANONYMOUS, Peer
from caso_mesh.model import facts
from caso_mesh.model import joining as j
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.audit import CATEGORIES, Change, category_of
from caso_mesh.model.calls import CALLS, Call
from caso_mesh.model.errors import (
    CasoError,
    NoAdmin,
    NotFound,
    NotOnRoster,
    OutsideScope,
    PeerMalformed,
    Refused,
    RemovedFromMesh,
    RequestRefused,
    RoleTooLow,
    StateFull,
    TimedOut,
    UnknownCall,
)
from caso_mesh.model.mesh import Anchor, MeshInfo, Roster, RosterRow
from caso_mesh.model.states import Role
from caso_mesh.server.refusals import Refusals
from caso_mesh.wire.codec import pack, to_wire

pytestmark = pytest.mark.jumping

BOSS, LOCAL, VIEWER, STRANGER = (SigningKey.create() for _ in range(4))
ALPHA, BETA = SigningKey.create(), SigningKey.create()


@dataclasses.dataclass
class End:
    """The other end of a link."""

    peer: Peer
    remote_address: str = "192.0.2.9:5"


class Recorder:
    def __init__(self) -> None:
        self.facts: list[Any] = []
        self.fails: CasoError | None = None

    async def append(self, *new: facts.Fact) -> None:
        if self.fails is not None:
            raise self.fails
        self.facts += new


class Way:
    """The way to the administrator."""

    def __init__(self, peer: Peer | None = None) -> None:
        self.peer = peer
        self.asked: list[tuple[str, Any]] = []
        self.hangs = False
        #: Who is in office after that one.
        self.next: Way | None = None

    def get(self) -> Any:
        if self.peer is None:
            raise NoAdmin(server="alpha")
        return self if self.next is None else self.next.get()

    async def call(self, method: str, params: Any = None, *, timeout_s: float | None = None) -> Any:
        self.asked.append((method, params))
        if self.hangs:
            await asyncio.Event().wait()
        return {"forwarded": True}


class Office:
    def __init__(self) -> None:
        self.callers: list[Caller] = []
        self.answer: Any = v.Done()
        self.changes: list[Change] = []
        self.people_handlers = dict.fromkeys(
            (
                "backup",
                "restore",
                "server.set-state",
                "server.remove",
                "token.create",
                "set.list",
                "job.list",
                "operator.renew",
            ),
            self._any,
        )
        self.node_handlers = {"server.heartbeat": self._node, "enrol.join": self._node, "identity.renew": self._node}

    async def _any(self, caller: Caller, request: Any) -> Any:
        self.callers.append(caller)
        if isinstance(self.answer, BaseException):
            raise self.answer
        if self.answer == "slow":
            await asyncio.sleep(1000)
        return self.answer

    @contextlib.contextmanager
    def noting(self, request_id: str) -> Iterator[list[Change]]:
        yield self.changes

    async def concerned(self, call: Call, request: Any) -> frozenset[str]:
        """All that is named, by the names of the two servers; the set ``s`` is of beta."""
        ids, found = {"alpha": ALPHA.id, "beta": BETA.id, "s": BETA.id}, set[str]()
        for field, _ in call.scope:
            value = getattr(request, field)
            names = (
                [value]
                if isinstance(value, str)
                else [pair[0] for pair in value]
                if field == "sources"
                else value[:1]
                if value
                else []
            )
            for name in names:
                if name not in ids:
                    raise NotFound(kind="server", name=name)
                found.add(ids[name])
        return frozenset(found)

    async def _node(self, peer: Peer, request: Any, link: Any) -> Any:
        return v.Done()


class Desk:
    def __init__(self) -> None:
        self.clock = VirtualClock(asyncio.get_running_loop())
        self.recorder, self.way, self.office = Recorder(), Way(), Office()
        nodes = [RosterRow(key.id, name, "node", key.public_key) for name, key in (("alpha", ALPHA), ("beta", BETA))]
        people = [
            RosterRow(BOSS.id, "boss", "operator", BOSS.public_key, role=Role.ADMIN),
            RosterRow(VIEWER.id, "vera", "operator", VIEWER.public_key, role=Role.VIEWER),
            RosterRow(
                LOCAL.id, "local-beta", "operator", LOCAL.public_key, role=Role.VIEWER,
                server_roles=((BETA.id, Role.OPERATOR),),
            ),
        ]  # fmt: skip
        self.roster = Roster(MeshInfo("mesh-1", "home", 1), (), (*nodes, *people))
        self.router = Router(
            server_name="alpha",
            own=ALPHA.id,
            local={
                "status": self._status,
                "peer.add": self._status,
                "link.hello": self._status,
                "consensus.message": self._status,
            },
            roster=lambda: self.roster,
            admin=self.way,
            facts=self.recorder,
            refusals=Refusals(self.recorder, self.clock),
            clock=self.clock,
            caller=Caller,
        )
        self.router.office = self.office
        self._ids = itertools.count(1)

    async def _status(self, peer: Peer, request: Any, link: Any) -> Any:
        return v.Done()

    def signed(self, key: SigningKey, name: str, request: Any, *, id: str | None = None, **other: Any) -> n.SignedCall:
        at_ns = other.pop("at_ns", self.clock.now_ns())
        made = sign_request(
            key, mesh=other.pop("mesh", "mesh-1"), call=name, params=pack(to_wire(request)),
            request_id=f"r{next(self._ids)}" if id is None else id, now_ns=at_ns,
        )  # fmt: skip
        fields = {f: getattr(made, f) for f in ("call", "params", "request_id", "operator", "at_ns", "signature")}
        return n.SignedCall(**(fields | other))

    async def ask(self, key: SigningKey, name: str, request: Any, *, via: Peer | None = None, **other: Any) -> Any:
        signed = self.signed(key, name, request, **other)
        return await self.router.call(End(via or person(key)), "call.signed", to_wire(signed))

    def audits(self) -> list[tuple[str, str, str]]:
        return [(each.who, each.what, each.outcome) for each in self.recorder.facts]


def person(key: SigningKey) -> Peer:
    return Peer(key.id, "somebody", "operator")


def machine(key: SigningKey = BETA, **fields: Any) -> Peer:
    return Peer(key.id, "beta", "node", **fields)


@pytest_asyncio.fixture
async def desk() -> AsyncIterator[Desk]:
    yield Desk()


BACKUP = q.BackupRequest(sources=(("beta", b"/srv"),), target="any")


@pytest.mark.parametrize(
    ("key", "name", "request_", "allowed"),
    [
        (BOSS, "server.remove", q.ServerName("beta"), True),
        (LOCAL, "set.list", q.SetListRequest(), True),
        (LOCAL, "backup", BACKUP, True),
        (LOCAL, "backup", q.BackupRequest(sources=(("beta", b"/a"), ("alpha", b"/a")), target="any"), False),
        (LOCAL, "backup", q.BackupRequest(sources=(), target="any"), False),
        (LOCAL, "backup", q.BackupRequest(sources=(("nobody", b"/a"),), target="any"), False),
        (LOCAL, "restore", q.RestoreRequest("s", to=("beta", b"/x")), True),
        (LOCAL, "restore", q.RestoreRequest("s", to=("alpha", b"/x")), False),
        (LOCAL, "restore", q.RestoreRequest("s"), True),
        (LOCAL, "restore", q.RestoreRequest("of-alpha", to=("beta", b"/x")), False),
        (LOCAL, "server.set-state", q.ServerSetState("beta", "paused"), True),
        (LOCAL, "server.set-state", q.ServerSetState("alpha", "paused"), False),
        (LOCAL, "server.remove", q.ServerName("beta"), False),
        (LOCAL, "peer.add", q.PeerAdd("a:1"), False),
        (VIEWER, "status", q.Nothing(), True),
        (VIEWER, "backup", BACKUP, False),
    ],
)
async def test_roles_hold_where_they_were_given(
    desk: Desk, key: SigningKey, name: str, request_: Any, allowed: bool
) -> None:
    if allowed:
        await desk.ask(key, name, request_)
        return
    with pytest.raises((RoleTooLow, OutsideScope)) as refused:
        await desk.ask(key, name, request_)
    assert desk.audits()[-1][1:] == (name, refused.value.code)
    # what is not there is refused as what is others' is: nobody learns which it was
    assert refused.value.code == (
        "role-too-low" if key is VIEWER or name in {"server.remove", "peer.add"} else "outside-scope"
    )
    assert desk.office.callers == []


async def test_a_server_hands_calls_on_but_cannot_make_change_or_age_one(desk: Desk) -> None:
    assert await desk.ask(BOSS, "set.list", q.SetListRequest(), via=machine()) == {}
    for wrong in ({"signature": b"x" * 64}, {"mesh": "another"}, {"at_ns": desk.clock.now_ns() - 3600 * 10**9}):
        with pytest.raises(RequestRefused):
            await desk.ask(BOSS, "server.remove", q.ServerName("beta"), via=machine(), **wrong)
    with pytest.raises(NotOnRoster):
        await desk.ask(STRANGER, "set.list", q.SetListRequest(), via=machine())
    assert {outcome for _, _, outcome in desk.audits()} == {"request-refused", "not-on-roster"}


@pytest.mark.parametrize("request_", [q.PeerAdd("attacker:1"), q.Nothing()])
async def test_what_a_server_answers_for_itself_is_not_taken_from_another_server(desk: Desk, request_: Any) -> None:
    """Such a call names no server: a member kept that of an operator to itself, and had every other server dial an address."""
    name = "peer.add" if isinstance(request_, q.PeerAdd) else "status"
    with pytest.raises(Refused, match="not by way of another"):
        await desk.ask(BOSS, name, request_, via=machine())
    assert desk.audits() == [("beta", name, "refused")]
    assert await desk.ask(BOSS, name, request_) == {}


async def test_a_replayed_call_carries_the_same_request_id(desk: Desk) -> None:
    for _ in range(2):
        await desk.ask(BOSS, "backup", BACKUP, id="same")
    await desk.ask(BOSS, "server.remove", q.ServerName("beta"), id="same")
    first, again, other = (caller.request_id for caller in desk.office.callers)
    assert first == again != other
    for bad in ("", "x" * 1000):
        with pytest.raises(PeerMalformed):
            await desk.ask(BOSS, "backup", BACKUP, id=bad)


async def test_people_call_only_with_a_signature_and_only_what_is_for_people(desk: Desk) -> None:
    with pytest.raises(RoleTooLow):
        await desk.router.call(End(person(BOSS)), "server.remove", {"name": "beta"})
    with pytest.raises(RoleTooLow):
        await desk.router.call(End(ANONYMOUS), "server.heartbeat", {})
    for name in ("journal.push", "no-such-call", "x" * 100_000):
        with pytest.raises(UnknownCall):
            await desk.ask(BOSS, name, q.Nothing())
    with pytest.raises(UnknownCall):
        await desk.router.call(End(machine()), "set.list-all", {})


async def test_an_expired_certificate_may_only_be_renewed(desk: Desk) -> None:
    with pytest.raises(RoleTooLow):
        await desk.router.call(End(machine(expired=True)), "link.hello", {})
    assert await desk.router.call(End(machine(expired=True)), "identity.renew", {}) == {}
    boss = replace(person(BOSS), expired=True)
    assert await desk.ask(BOSS, "operator.renew", q.Nothing(), via=boss) == {}
    for key, via in ((BOSS, boss), (VIEWER, machine(expired=True))):
        with pytest.raises(Refused, match="has expired"):
            await desk.ask(key, "set.list", q.SetListRequest(), via=via)
    with pytest.raises(Refused, match="has expired"):
        await desk.ask(VIEWER, "operator.renew", q.Nothing(), via=machine(expired=True))


async def test_voters_whose_certificates_have_all_expired_may_elect_and_nothing_else(desk: Desk) -> None:
    anchors = (Anchor(b"root"), Anchor(b"of alpha", ALPHA.id), Anchor(b"of beta", BETA.id))
    old = End(machine(expired=True))
    for some in (anchors[:2], (anchors[0], anchors[2])):
        desk.roster = Roster(desk.roster.mesh, some, desk.roster.rows)
        with pytest.raises(RoleTooLow):
            await desk.router.call(old, "consensus.message", {"lineage": 1, "data": b""})
    desk.roster = Roster(desk.roster.mesh, anchors, desk.roster.rows)
    for call, params in (("consensus.message", {"lineage": 1, "data": b""}), ("link.hello", HELLO)):
        assert await desk.router.call(old, call, params) == {}
    with pytest.raises(RoleTooLow):
        await desk.router.call(old, "server.heartbeat", {})


async def test_who_was_removed_is_refused_on_the_link_he_has(desk: Desk) -> None:
    assert await desk.router.call(End(machine()), "identity.renew", {}) == {}
    rows = tuple(row for row in desk.roster.rows if row.id != BETA.id)
    desk.roster = Roster(desk.roster.mesh, (), rows, (BETA.id,))
    with pytest.raises(RemovedFromMesh):
        await desk.router.call(End(machine()), "identity.renew", {})


async def test_who_was_revoked_while_his_call_waited_is_shown_nothing(desk: Desk) -> None:
    """Following a run, or its log, waits for up to an hour: what came after he was revoked was shown to him."""
    desk.office.answer, everybody = "slow", desk.roster
    without = tuple(row for row in everybody.rows if row.id != VIEWER.id)
    lower = tuple(replace(row, role=None) if row.id == VIEWER.id else row for row in everybody.rows)
    for roster, error in (
        (Roster(everybody.mesh, (), without, (VIEWER.id,)), RemovedFromMesh),
        (Roster(everybody.mesh, (), lower), RoleTooLow),
    ):
        desk.roster = everybody
        asked = asyncio.create_task(desk.ask(VIEWER, "set.list", q.SetListRequest(), timeout_s=2000.0))
        await asyncio.sleep(10)
        desk.roster = roster
        with pytest.raises(error):
            await asked
        assert desk.audits()[-1][1:] == ("set.list", error.code)
    # others wait on, whoever comes and goes
    desk.roster = everybody
    asked = asyncio.create_task(desk.ask(BOSS, "set.list", q.SetListRequest(), timeout_s=2000.0))
    await asyncio.sleep(10)
    desk.roster = Roster(everybody.mesh, (), without, (VIEWER.id,))
    await asked


async def test_without_an_office_a_persons_call_is_handed_on_once(desk: Desk) -> None:
    """A server that had been elected, and whose office had not begun, once called itself without end."""
    desk.router.office = None
    with pytest.raises(NoAdmin):
        await desk.ask(BOSS, "set.list", q.SetListRequest())
    desk.way.peer = machine()
    assert await desk.ask(BOSS, "set.list", q.SetListRequest()) == {"forwarded": True}
    with pytest.raises(NoAdmin):
        await desk.ask(BOSS, "set.list", q.SetListRequest(), via=machine())
    assert await desk.router.call(End(ANONYMOUS), "enrol.join", _JOIN) == {"forwarded": True}
    with pytest.raises(NoAdmin):
        await desk.router.call(End(machine()), "enrol.join", _JOIN)
    desk.way.peer = machine(ALPHA)
    for call in (desk.ask(BOSS, "set.list", q.SetListRequest()), desk.router.call(End(ANONYMOUS), "enrol.join", _JOIN)):
        with pytest.raises(NoAdmin):
            await call


async def test_a_call_that_waits_at_an_administrator_that_is_none_any_more_is_handed_to_the_next_one(
    desk: Desk,
) -> None:
    """Where it was cut off it does not say so: whoever had asked waited for the end of the link."""
    desk.router.office, desk.way.peer, desk.way.hangs = None, machine(), True
    loop, later = asyncio.get_running_loop(), Way(Peer("gamma", "gamma", "node"))
    asking = asyncio.ensure_future(desk.ask(BOSS, "set.list", q.SetListRequest(), timeout_s=15.0, id="same"))
    await asyncio.sleep(3.0)
    assert not asking.done()
    desk.way.next, began = later, loop.time()
    assert await asking == {"forwarded": True}
    assert loop.time() - began < 1.0
    (first,), (again,) = ([params for _, params in way.asked] for way in (desk.way, later))
    assert again["request_id"] == first["request_id"] == "same"
    assert 11.0 < again["timeout_s"] < 12.5


HELLO = to_wire(n.HelloRequest("beta", "1", (), None, None, 0))
_JOIN = to_wire(j.JoinRequest(b"s", "d", b"k", b"e", b"o", (), "1", b"s"))


async def test_the_audit_log_says_what_came_of_it_and_no_secrets(desk: Desk) -> None:
    await desk.ask(BOSS, "backup", BACKUP)
    desk.office.answer = v.TokenView("caso-mesh:join:secret", "soon")
    await desk.ask(BOSS, "token.create", q.TokenCreate())
    desk.office.answer = ValueError("a mistake of ours")
    with pytest.raises(ValueError, match="mistake"):
        await desk.ask(BOSS, "backup", BACKUP)
    desk.office.answer = "slow"
    with pytest.raises(TimedOut):
        await desk.ask(BOSS, "backup", BACKUP, timeout_s=1.0)
    cut = asyncio.get_running_loop().create_task(desk.ask(BOSS, "backup", BACKUP))
    await asyncio.sleep(1)
    cut.cancel()
    await asyncio.wait([cut])
    assert [outcome for _, _, outcome in desk.audits()] == ["done", "done", "internal-error", "timed-out", "unknown"]
    assert "secret" not in repr(desk.recorder.facts)


def sample(kind: Any, depth: int = 0) -> Any:
    """A value of a type, as small as it may be."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = get_type_hints(kind)
        fields = [field for field in msgspec.structs.fields(kind) if field.required]
        return kind(**{field.name: sample(hints[field.name]) for field in fields})
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return next(iter(kind))
    arguments = get_args(kind)
    match get_origin(kind):
        case typing.Literal:
            return arguments[0]
        case builtins.tuple:
            return () if arguments[-1] is Ellipsis else tuple(map(sample, arguments))
        case builtins.dict:
            return {}
        case None:
            return {str: "x", int: 1, float: 1.0, bool: False, bytes: b"x", type(None): None, Any: None}[kind]
        case _:
            return sample(arguments[0])


CHANGING = [call for call in CALLS if call.changes and call.role is not None]


@pytest.mark.parametrize("call", CHANGING, ids=lambda call: call.name)
async def test_every_call_that_changes_something_leaves_a_record_done_or_refused(desk: Desk, call: Call) -> None:
    """The whole table: who, what, with what outcome, from where, in a category that is explained."""
    request, failure = sample(call.request), StateFull(state="s")
    desk.office.changes = [Change("pool west", "servers", [], ["alpha"])]
    outcomes = iter([None, failure])

    async def answer(*asked: Any) -> Any:
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome
        return v.Done()

    desk.office.people_handlers[call.name] = answer
    desk.router._local = {**desk.router._local, call.name: answer}
    desk.router._own_work = {call.name: answer}
    await desk.ask(BOSS, call.name, request)
    with pytest.raises(StateFull):
        await desk.ask(BOSS, call.name, request)
    done, failed = desk.recorder.facts
    assert category_of(call.name) in CATEGORIES
    assert (done.who, done.what, done.outcome, done.source) == ("boss", call.name, "done", "192.0.2.9:5")
    assert (failed.who, failed.what, failed.outcome) == ("boss", call.name, failure.code)
    assert {done.category, failed.category} == {category_of(call.name)}
    assert done.changed == (tuple(desk.office.changes) if call.place == "admin" else ())
    with pytest.raises(Refused):
        await desk.ask(VIEWER, call.name, request)
    with pytest.raises(Refused):
        await desk.ask(STRANGER, call.name, request)
    refused = desk.recorder.facts[2:]
    # whoever is not on the roster is refused before anybody reads what he wants
    assert [(each.what, each.category) for each in refused] == [(call.name, "security"), ("call.signed", "security")]
    assert refused[0].outcome in {"role-too-low", "outside-scope"}
    assert {each.source for each in refused} == {"192.0.2.9:5"}


def test_every_category_is_of_a_call_or_of_what_servers_write_down_themselves() -> None:
    asked = {category_of(call.name) for call in CALLS if call.changes}
    assert asked <= CATEGORIES.keys()
    assert CATEGORIES.keys() - asked == {"security", "mesh", "recover", "journal"}


async def test_a_timeout_that_is_no_number_is_no_endless_one(desk: Desk) -> None:
    desk.office.answer = "slow"
    for seconds in (float("nan"), -1.0, 0.0):
        with pytest.raises(TimedOut):
            await desk.ask(BOSS, "set.list", q.SetListRequest(), timeout_s=seconds)


async def test_what_was_done_is_done_though_its_record_had_no_room(desk: Desk) -> None:
    desk.recorder.fails = StateFull(state="s")
    assert await desk.ask(BOSS, "backup", BACKUP) == {}


async def test_whoever_is_refused_without_end_does_not_fill_the_audit_log(desk: Desk) -> None:
    for number in range(500):
        with pytest.raises(RoleTooLow):
            await desk.router.call(End(ANONYMOUS), "server.heartbeat", {})
        with pytest.raises(RoleTooLow):
            await desk.router.call(End(Peer("", f"n{number}", "anonymous")), "journal.cursors", {})
    assert len(desk.recorder.facts) <= 60
    await asyncio.sleep(61)
    with pytest.raises(RoleTooLow):
        await desk.router.call(End(ANONYMOUS), "server.heartbeat", {})
    assert desk.recorder.facts[-1].fields["repeated"] == 499

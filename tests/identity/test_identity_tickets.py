"""Tickets and signed requests: nobody but the one they were made for gets anywhere with them."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from caso_mesh.identity import tickets
from caso_mesh.identity.keys import NodeKeys, SigningKey
from caso_mesh.identity.requests import SignedRequest, check_request, sign_request
from caso_mesh.model.errors import NotOnRoster, RemovedFromMesh, RequestRefused, TicketInvalid
from caso_mesh.model.mesh import MeshInfo, Roster, RosterRow
from caso_mesh.model.states import Role

NOW = 1_800_000_000_000_000_000
SECOND = 10**9
ADMIN, SOURCE, WRITER, OTHER = (NodeKeys.create() for _ in range(4))
PATHS = tickets.digest_of_paths([b"srv/data"])


class Door:
    """A server that checks tickets and remembers what it admitted."""

    def __init__(self) -> None:
        self.nonces: set[bytes] = set()

    def seen(self, nonce: bytes) -> bool:
        known = nonce in self.nonces
        self.nonces.add(nonce)
        return known

    def check(self, data: bytes, **changes: Any) -> tickets.Ticket:
        given: dict[str, Any] = {
            "issuer_public_key": ADMIN.public_key,
            "attempt": "job@1#1",
            "this_node": SOURCE.id,
            "other_node": WRITER.id,
            "paths_digest": PATHS,
            "now_ns": NOW,
            "known_term": (1, 5),
        }
        return tickets.check(data, seen=self.seen, **(given | changes))


def ticket(keys: NodeKeys = ADMIN, **changes: Any) -> bytes:
    given: dict[str, Any] = {
        "attempt": "job@1#1",
        "part": SOURCE.id,
        "dialler": WRITER.id,
        "acceptor": SOURCE.id,
        "paths": PATHS,
        "lineage": 1,
        "term": 5,
        "index": 77,
        "now_ns": NOW,
        "randomness": os.urandom,
        "life_s": 60.0,
    }
    return tickets.issue(keys, **(given | changes))


def test_a_ticket_admits_once() -> None:
    door, data = Door(), ticket()
    assert door.check(data).index == 77
    with pytest.raises(TicketInvalid, match="used before"):
        door.check(data)
    assert door.check(ticket())


def test_either_end_may_check_the_other() -> None:
    assert Door().check(ticket(), this_node=WRITER.id, other_node=SOURCE.id)


@pytest.mark.parametrize(
    ("ticket_of", "said"),
    [
        ({"attempt": "job@1#2"}, "another attempt"),
        ({"dialler": OTHER.id}, "other servers"),
        ({"acceptor": OTHER.id}, "other servers"),
        ({"acceptor": WRITER.id}, "other servers"),
        ({"paths": tickets.digest_of_paths([b"srv"])}, "other paths"),
        ({"paths": b""}, "other paths"),
        ({"term": 4}, "earlier term"),
        ({"lineage": 0, "term": 9}, "earlier term"),
        ({"now_ns": NOW - 61 * SECOND}, "expired"),
        ({"now_ns": NOW + 31 * SECOND}, "in the future"),
        ({"keys": OTHER}, "not issued by the administrator"),
        ({"randomness": lambda size: b""}, "nonce"),
    ],
)
def test_a_ticket_for_anything_else_is_refused_and_not_used_up(ticket_of: dict[str, Any], said: str) -> None:
    door = Door()
    with pytest.raises(TicketInvalid, match=said) as refused:
        door.check(ticket(**ticket_of))
    assert refused.value.fields["attempt"] == "job@1#1"
    assert not door.nonces


def test_a_borrowed_ticket_is_refused_and_still_admits_its_owner() -> None:
    door, data = Door(), ticket()
    with pytest.raises(TicketInvalid, match="other servers"):
        door.check(data, other_node=OTHER.id)
    assert door.check(data)


def test_a_ticket_of_a_later_term_or_lineage_is_as_good() -> None:
    assert Door().check(ticket(term=6))
    assert Door().check(ticket(lineage=2, term=1))


def test_a_ticket_that_was_changed_or_signed_by_somebody_else_is_refused() -> None:
    door = Door()
    outer = msgspec.msgpack.decode(ticket())
    inner = msgspec.msgpack.decode(outer["ticket"]) | {"expires_at_ns": NOW * 2}
    for changed in (
        outer | {"ticket": msgspec.msgpack.encode(inner)},
        outer | {"signature": bytes(64)},
        outer | {"signature": b""},
        outer | {"signature": OTHER.sign("ticket/1", outer["ticket"])},
        outer | {"signature": ADMIN.sign("another-domain", outer["ticket"])},
    ):
        with pytest.raises(TicketInvalid, match="signature"):
            door.check(msgspec.msgpack.encode(changed))
    assert not door.nonces


@given(st.binary(max_size=200))
def test_no_bytes_break_the_check(data: bytes) -> None:
    with pytest.raises(TicketInvalid):
        Door().check(data)


def test_a_ticket_that_is_far_too_long_or_deep_is_refused() -> None:
    for data in (b"\x91" * 4096, bytes(1 << 20), b"\x82\xa6ticket" + b"\x91" * 4000):
        with pytest.raises(TicketInvalid):
            Door().check(data)


def test_lists_of_paths_are_framed() -> None:
    digests = {
        tickets.digest_of_paths(paths)
        for paths in ([], [b""], [b"a", b"b"], [b"ab"], [b"b", b"a"], [b"a\x00b"], [b"a", b"", b"b"])
    }
    assert len(digests) == 7


def test_who_issued_a_ticket_can_be_read_before_it_is_believed() -> None:
    assert tickets.read_unchecked(ticket(OTHER)).issuer == OTHER.id


# --- requests --------------------------------------------------------------------------------------------------------

OPERATOR = SigningKey.create()
ROSTER = Roster(
    MeshInfo("m" * 26, "lab", NOW),
    (),
    (
        RosterRow(OPERATOR.id, "anna", "operator", OPERATOR.public_key, role=Role.OPERATOR),
        RosterRow(SOURCE.id, "alpha", "node", SOURCE.public_key),
    ),
)


def request(key: SigningKey = OPERATOR, *, mesh: str = "m" * 26, at_ns: int = NOW) -> SignedRequest:
    return sign_request(key, mesh=mesh, call="job.run", params=b"\x81\xa1a\x01", request_id="r1", now_ns=at_ns)


def test_a_request_is_the_operators_wherever_it_was_forwarded() -> None:
    sent = msgspec.convert(msgspec.to_builtins(request(), builtin_types=(bytes,)), SignedRequest)
    peer = check_request(ROSTER, sent, NOW + 599 * SECOND)
    assert (peer.name, peer.kind, peer.role, peer.expired) == ("anna", "operator", Role.OPERATOR, False)


def test_a_p256_operator_signs_as_well() -> None:
    key = SigningKey(ec.generate_private_key(ec.SECP256R1()))
    row = RosterRow(key.id, "bert", "operator", key.public_key, role=Role.VIEWER)
    roster = Roster(ROSTER.mesh, (), (row,))
    assert check_request(roster, request(key), NOW).name == "bert"


@pytest.mark.parametrize(
    "changed",
    [
        {"call": "set.delete"},
        {"params": b"\x81\xa1a\x02"},
        {"request_id": "r2"},
        {"request_id": "\udc80"},
        {"at_ns": NOW + 1},
        {"signature": b""},
        {"signature": bytes(64)},
    ],
)
def test_a_node_that_forwards_a_request_cannot_change_it(changed: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused, match="signature"):
        check_request(ROSTER, msgspec.structs.replace(request(), **changed), NOW)


def test_a_request_is_refused_when_old_early_or_for_another_mesh() -> None:
    for at_ns in (NOW - 601 * SECOND, NOW + 601 * SECOND):
        with pytest.raises(RequestRefused, match="too long ago"):
            check_request(ROSTER, request(at_ns=at_ns), NOW)
    with pytest.raises(RequestRefused, match="signature"):
        check_request(ROSTER, request(mesh="other"), NOW)


def test_only_operators_that_are_on_the_roster_now_sign_requests() -> None:
    with pytest.raises(NotOnRoster):
        check_request(ROSTER, request(SigningKey.create()), NOW)
    with pytest.raises(RequestRefused, match="only operators"):
        check_request(ROSTER, request(SOURCE.signing), NOW)
    with pytest.raises(RemovedFromMesh):
        check_request(msgspec.structs.replace(ROSTER, removed=(OPERATOR.id,)), request(), NOW)
    # to claim to be anna is not enough
    forged = msgspec.structs.replace(request(SigningKey.create()), operator=OPERATOR.id)
    with pytest.raises(RequestRefused, match="signature"):
        check_request(ROSTER, forged, NOW)

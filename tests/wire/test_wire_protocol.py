"""The dialogue without any I/O: two ends, messages handed over by hand."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caso_mesh.model.errors import Canceled, Conflict, Misuse, PeerFault, UnknownError
from caso_mesh.wire import codec
from caso_mesh.wire import protocol as p
from caso_mesh.wire.limits import Limits

LIMITS = Limits(max_calls=3, max_streams=2, stream_window_bytes=300_000)


def pair() -> tuple[p.Connection, p.Connection]:
    a = p.Connection(dialled=True, limits=LIMITS, nonce=bytes(16), peer="b")
    b = p.Connection(dialled=False, limits=LIMITS, nonce=bytes(16), peer="a")
    assert isinstance(b.receive(a.hello()), p.Hello)
    assert isinstance(a.receive(b.hello()), p.Hello)
    return a, b


def test_a_call_and_its_answer():
    a, b = pair()
    id, message = a.request("m", {"x": 1})
    assert b.receive(message) == p.RequestReceived(id, "m", {"x": 1})
    assert a.receive(b.respond(id, {"y": 2})) == p.ResponseReceived(id, None, {"y": 2})
    assert a.calls_in_flight == b.calls_unanswered == 0


def test_an_answer_that_crosses_with_its_cancel_is_fine_and_a_second_answer_is_not():
    a, b = pair()
    id, message = a.request("m", None)
    b.receive(message)
    cancel, answer = a.cancel(id), b.respond(id, 1)
    assert b.receive(cancel) is None
    assert a.receive(answer) == p.ResponseReceived(id, None, 1)
    with pytest.raises(PeerFault):
        a.receive(answer)
    with pytest.raises(Misuse):
        b.respond(id, 1)
    with pytest.raises(Misuse):
        a.cancel(id)


def test_more_calls_or_streams_than_allowed_are_a_fault():
    a, b = pair()
    for _ in range(3):
        b.receive(a.request("m", None)[1])
    with pytest.raises(PeerFault, match="3 calls"):
        b.receive(a.request("m", None)[1])
    a, b = pair()
    for _ in range(2):
        b.receive(a.open_stream("m", None)[1])
    with pytest.raises(PeerFault, match="2 streams"):
        b.receive(a.open_stream("m", None)[1])


def test_an_error_of_a_newer_peer_keeps_its_code():
    a, b = pair()
    id, message = a.request("m", None)
    b.receive(message)
    b.respond(id, None)
    event = a.receive(codec.pack([1, id, {"code": "from-the-future", "fields": {"x": 1}}, None]))
    assert isinstance(event, p.ResponseReceived)
    assert isinstance(event.error, UnknownError)
    assert event.error.fields["peer_code"] == "from-the-future"


def test_credit_is_kept_and_given_back():
    a, b = pair()
    id, message = a.open_stream("m", None)
    b.receive(message)
    piece = bytes(200_000)
    b.receive(a.stream_data(id, piece))
    with pytest.raises(Misuse):
        a.stream_data(id, piece)
    credit = b.stream_consumed(id, p.piece_cost(piece))
    assert credit is not None
    assert a.receive(credit) == p.StreamCredit(id)
    assert a.credit(id) == 300_000
    b.receive(a.stream_data(id, piece))
    with pytest.raises(PeerFault, match="without credit"):
        b.receive(codec.pack([3, id, 1, piece]))


def test_many_empty_pieces_cost_credit():
    a, b = pair()
    id, message = a.open_stream("m", None)
    b.receive(message)
    with pytest.raises(PeerFault, match="without credit"):
        for _ in range(10_000):
            b.receive(codec.pack([3, id, 1, b""]))


def test_a_message_before_the_hello_is_our_misuse():
    a = p.Connection(dialled=True, limits=LIMITS, nonce=bytes(16), peer="b")
    with pytest.raises(Misuse):
        a.request("m", None)
    with pytest.raises(Misuse):
        pair()[0].notify("m", [1])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "hello",
    [
        {"protocol": 0},
        {"nonce": b"short"},
        {"max_message_bytes": 10},
        {"max_calls": 0},
        {"max_streams": -1},
        {"stream_window_bytes": 1},
        {"protocol": "1"},
    ],
)
def test_a_hello_out_of_bounds_is_a_fault(hello):
    a = p.Connection(dialled=True, limits=LIMITS, nonce=bytes(16), peer="b")
    fields = codec.unpack(p.Connection(dialled=False, limits=LIMITS, nonce=bytes(16), peer="a").hello(), max_bytes=1000)
    with pytest.raises(PeerFault):
        a.receive(codec.pack([5, fields[1] | hello]))


class End:
    """One end that does whatever it may, at random."""

    def __init__(self, connection: p.Connection) -> None:
        self.connection = connection
        self.outgoing: deque[bytes] = deque()
        self.calls: list[int] = []
        self.served: list[int] = []
        self.streams: list[int] = []
        self.unread: list[tuple[int, int]] = []

    def act(self, rng: random.Random) -> None:
        c = self.connection
        match rng.randrange(10):
            case 0 if c.calls_in_flight < LIMITS.max_calls:
                id, message = c.request("m", {})
                self.calls.append(id)
                self.outgoing.append(message)
            case 1 if self.calls:
                id = self.calls.pop(rng.randrange(len(self.calls)))
                self.outgoing.append(c.cancel(id))
            case 2 if self.served:
                id = self.served.pop(rng.randrange(len(self.served)))
                self.outgoing.append(c.respond(id, 1) if rng.random() < 0.5 else c.fail(id, Conflict(detail="x")))
            case 3 if sum(1 for s in self.streams if s % 2 == c._next_stream % 2 and c.is_open(s)) < LIMITS.max_streams:
                id, message = c.open_stream("s", None)
                self.streams.append(id)
                self.outgoing.append(message)
            case 4 | 5 if self.streams:
                id, size = rng.choice(self.streams), rng.randrange(200_000)
                if c.credit(id) >= size + 64:
                    self.outgoing.append(c.stream_data(id, bytes(size)))
            case 6 if self.unread:
                id, cost = self.unread.pop(0)
                self._send(c.stream_consumed(id, cost))
            case 7 if self.streams:
                id = rng.choice(self.streams)
                if c.credit(id):
                    self.outgoing.append(c.stream_finish(id))
            case 8 if self.streams and rng.random() < 0.5:
                self._send(c.stream_abort(rng.choice(self.streams), Canceled(who="x")))
            case 9 if self.streams:
                self._send(c.stream_stop(rng.choice(self.streams)))

    def take(self, message: bytes) -> None:
        match self.connection.receive(message):
            case p.RequestReceived(id=id):
                self.served.append(id)
            case p.ResponseReceived(id=id) if id in self.calls:
                self.calls.remove(id)
            case p.StreamOpened(id=id):
                self.streams.append(id)
            case p.StreamData(id=id, data=data):
                self.unread.append((id, p.piece_cost(data)))
            case p.StreamAborted(answer=answer) | p.StreamStopped(answer=answer):
                self._send(answer)

    def settle(self) -> None:
        for id in self.served:
            self.outgoing.append(self.connection.respond(id, None))
        self.served.clear()
        for id in self.streams:
            self._send(self.connection.stream_abort(id, Canceled(who="x")))

    def _send(self, message: bytes | None) -> None:
        if message is not None:
            self.outgoing.append(message)


@pytest.mark.parametrize("seed", range(100))
def test_two_honest_ends_never_blame_each_other_whatever_crosses(seed):
    """Messages of both directions cross in every way; nothing may be taken for a fault, and nothing stays behind."""
    rng = random.Random(seed)
    a, b = (End(connection) for connection in pair())
    for _ in range(300):
        end, other = (a, b) if rng.random() < 0.5 else (b, a)
        if rng.random() < 0.5 and end.outgoing:
            other.take(end.outgoing.popleft())
        else:
            end.act(rng)
    for _ in range(2):
        while a.outgoing or b.outgoing:
            for end, other in ((a, b), (b, a)):
                while end.outgoing:
                    other.take(end.outgoing.popleft())
        a.settle()
        b.settle()
    while a.outgoing or b.outgoing:
        for end, other in ((a, b), (b, a)):
            while end.outgoing:
                other.take(end.outgoing.popleft())
    for end in (a, b):
        c = end.connection
        assert (c.calls_in_flight, c.calls_unanswered, c.streams_open) == (0, 0, 0)


@settings(deadline=None)
@given(
    st.recursive(st.integers(-1, 7) | st.none() | st.text(max_size=3) | st.binary(max_size=3), st.lists, max_leaves=8)
)
def test_any_message_is_an_event_or_a_fault(value):
    a, b = pair()
    b.receive(a.request("m", None)[1])
    b.receive(a.open_stream("s", None)[1])
    try:
        b.receive(codec.pack(value))
    except PeerFault:
        pass

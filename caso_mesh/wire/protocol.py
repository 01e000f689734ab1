"""The dialogue on one link, without sockets, tasks or clocks: messages in, events out, messages to send out.

The kinds of messages are listed in ``docs/wire.md``. Whatever the peer may not say raises a ``PeerFault``, after which
the link must be closed; whatever we may not say raises ``Misuse``. (The shape follows h11 and wsproto: our fault and
the peer's are two kinds of error.)
"""

from __future__ import annotations

from typing import Any

import msgspec

from caso_mesh.model import errors
from caso_mesh.model.errors import CasoError, Misuse, PeerFault, PeerMalformed
from caso_mesh.wire import codec
from caso_mesh.wire.limits import STREAM_PIECE_BYTES, STREAM_PIECE_OVERHEAD, Limits

#: The version of this dialogue. Both ends use the lower of the two they name.
PROTOCOL = 1

REQUEST, RESPONSE, NOTIFICATION, STREAM, CANCEL, HELLO, GOODBYE = range(7)
OPEN, DATA, CREDIT, FINISH, ABORT, STOP = range(6)

MAX_ID = (1 << 53) - 1
MAX_METHOD = 128


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """The first message of each end: who can do what. Unknown fields are ignored."""

    protocol: int
    nonce: bytes
    """16 random bytes; the session of the link is made of both ends' nonces."""
    max_message_bytes: int
    max_calls: int
    max_streams: int
    stream_window_bytes: int
    filling: bytes = b""
    """Means nothing: with it the message fills a packet of full size (``segments``)."""


class RequestReceived(msgspec.Struct, frozen=True):
    id: int
    method: str
    params: Any


class ResponseReceived(msgspec.Struct, frozen=True):
    id: int
    error: CasoError | None
    result: Any


class CancelReceived(msgspec.Struct, frozen=True):
    """The peer gave up its call ``id``, which is still unanswered; it waits for an answer all the same."""

    id: int


class NotificationReceived(msgspec.Struct, frozen=True):
    method: str
    params: Any


class StreamOpened(msgspec.Struct, frozen=True):
    id: int
    method: str
    params: Any


class StreamData(msgspec.Struct, frozen=True):
    id: int
    data: bytes


class StreamCredit(msgspec.Struct, frozen=True):
    id: int


class StreamFinished(msgspec.Struct, frozen=True):
    id: int


class StreamAborted(msgspec.Struct, frozen=True):
    id: int
    error: CasoError
    answer: bytes | None
    """What must be sent back, if anything."""


class StreamStopped(msgspec.Struct, frozen=True):
    """The peer reads nothing more of the stream: this end's half has ended."""

    id: int
    answer: bytes
    """What must be sent back."""


class GoodbyeReceived(msgspec.Struct, frozen=True):
    error: CasoError | None


Event = (
    Hello
    | RequestReceived
    | ResponseReceived
    | CancelReceived
    | NotificationReceived
    | StreamOpened
    | StreamData
    | StreamCredit
    | StreamFinished
    | StreamAborted
    | StreamStopped
    | GoodbyeReceived
)


class _Half(msgspec.Struct):
    """One stream as this end sees it. It is forgotten when both ends have ended their half."""

    send_credit: int
    receive_credit: int
    consumed: int = 0
    ended: bool = False
    aborted: bool = False
    stopped: bool = False
    peer_ended: bool = False


def piece_cost(data: bytes | memoryview) -> int:
    """Bytes of credit that one piece of a stream takes."""
    return len(data) + STREAM_PIECE_OVERHEAD


def goodbye(error: CasoError | None) -> bytes:
    """The last message of an end, and all that a refused peer ever gets."""
    return codec.pack([GOODBYE, None if error is None else error.to_wire()])


class Connection:
    """One end of one link. ``dialled`` tells the two ends apart; ``peer`` names the other one in errors."""

    def __init__(self, *, dialled: bool, limits: Limits, nonce: bytes, peer: str) -> None:
        self.limits = limits
        self.peer = peer
        self.peer_hello: Hello | None = None
        self._nonce = nonce
        self._last_request = 0
        self._last_request_seen = 0
        self._waiting: set[int] = set()
        self._unanswered: set[int] = set()
        # Streams of the dialler have odd ids, those of the other end even ones: no id is ever ambiguous.
        self._next_stream, self._their_parity = (1, 0) if dialled else (2, 1)
        self._last_stream_seen = 0
        self._streams: dict[int, _Half] = {}

    # --- opening and ending ---

    def hello(self, filling_bytes: int = 0) -> bytes:
        own = self.limits
        hello = Hello(
            protocol=PROTOCOL,
            nonce=self._nonce,
            max_message_bytes=own.max_message_bytes,
            max_calls=own.max_calls,
            max_streams=own.max_streams,
            stream_window_bytes=own.stream_window_bytes,
            filling=bytes(filling_bytes),
        )
        return codec.pack([HELLO, codec.to_wire(hello)])

    # --- calls ---

    def request(self, method: str, params: Any) -> tuple[int, bytes]:
        """A new call: its id and the message to send."""
        id = self._last_request + 1
        message = self._pack([REQUEST, id, method, _own_params(params)])
        self._last_request = id
        self._waiting.add(id)
        return id, message

    def cancel(self, id: int) -> bytes:
        """Gives up an own call. Its answer still comes and has to be awaited before the id is free."""
        if id not in self._waiting:
            raise Misuse(f"call {id} is not waiting for an answer")
        return self._pack([CANCEL, id])

    def respond(self, id: int, result: Any) -> bytes:
        message = self._pack([RESPONSE, id, None, result])
        self._answer(id)
        return message

    def fail(self, id: int, error: CasoError) -> bytes:
        message = self._pack([RESPONSE, id, error.to_wire(), None])
        self._answer(id)
        return message

    def is_unanswered(self, id: int) -> bool:
        """Whether the peer still waits for the answer to its call ``id``."""
        return id in self._unanswered

    def notify(self, method: str, params: Any) -> bytes:
        return self._pack([NOTIFICATION, method, _own_params(params)])

    # --- streams ---

    def open_stream(self, method: str, params: Any) -> tuple[int, bytes]:
        """A new stream: its id and the message to send."""
        id = self._next_stream
        message = self._pack([STREAM, id, OPEN, method, _own_params(params)])
        self._next_stream += 2
        self._streams[id] = self._new_half()
        return id, message

    def credit(self, id: int) -> int:
        """Bytes (``piece_cost``) that may be sent on a stream now; 0 when it has ended."""
        half = self._streams.get(id)
        return 0 if half is None or half.ended else half.send_credit

    def stream_data(self, id: int, data: bytes | memoryview) -> bytes:
        half = self._streams.get(id)
        if half is None or half.ended:
            raise Misuse(f"stream {id} was ended by this side")
        cost = piece_cost(data)
        if len(data) > STREAM_PIECE_BYTES or cost > half.send_credit:
            raise Misuse(f"stream {id} has no credit for {len(data)} bytes")
        message = self._pack([STREAM, id, DATA, data])
        half.send_credit -= cost
        return message

    def stream_consumed(self, id: int, cost: int) -> bytes | None:
        """The reader took a piece of ``cost``: returns the message that gives credit back, when it is worth one."""
        half = self._streams.get(id)
        if half is None or half.peer_ended or half.aborted or half.stopped:
            return None
        half.consumed += cost
        if half.consumed * 2 < self.limits.stream_window_bytes:
            return None
        given, half.consumed = half.consumed, 0
        half.receive_credit += given
        return self._pack([STREAM, id, CREDIT, given])

    def stream_finish(self, id: int) -> bytes:
        half = self._streams.get(id)
        if half is None or half.ended:
            raise Misuse(f"stream {id} was ended by this side")
        half.ended = True
        self._forget_if_over(id, half)
        return self._pack([STREAM, id, FINISH])

    def stream_stop(self, id: int) -> bytes | None:
        """Nothing more will be read: the peer ends its half, and what it still sends is dropped."""
        half = self._streams.get(id)
        if half is None or half.peer_ended or half.aborted or half.stopped:
            return None
        half.stopped = True
        return self._pack([STREAM, id, STOP])

    def stream_abort(self, id: int, error: CasoError) -> bytes | None:
        """Ends both directions; ``None`` when there is nothing to end any more."""
        half = self._streams.get(id)
        if half is None or half.aborted:
            return None
        half.ended = half.aborted = True
        self._forget_if_over(id, half)
        return self._pack([STREAM, id, ABORT, error.to_wire()])

    def is_open(self, id: int) -> bool:
        """Whether a stream still needs an end from one of the two sides."""
        return id in self._streams

    @property
    def calls_in_flight(self) -> int:
        return len(self._waiting)

    @property
    def calls_unanswered(self) -> int:
        return len(self._unanswered)

    @property
    def streams_open(self) -> int:
        return len(self._streams)

    # --- what arrives ---

    def receive(self, message: bytes | memoryview) -> Event | None:
        """The event in one message, ``None`` if it needs nothing. Raises ``PeerFault``."""
        fields = codec.unpack(message, max_bytes=self.limits.max_message_bytes, peer=self.peer)
        if not isinstance(fields, list) or not fields or type(fields[0]) is not int:
            raise self._malformed("not a message")
        kind = fields[0]
        if self.peer_hello is None and kind not in (HELLO, GOODBYE):
            raise self._malformed(f"a message of kind {kind} before the hello")
        match kind, len(fields):
            case 0, 4:  # REQUEST
                return self._on_request(self._id(fields[1]), self._method(fields[2]), self._params(fields[3]))
            case 1, 4:  # RESPONSE
                return self._on_response(self._id(fields[1]), fields[2], fields[3])
            case 2, 3:  # NOTIFICATION
                return NotificationReceived(self._method(fields[1]), self._params(fields[2]))
            case 3, (3 | 4 | 5):  # STREAM
                return self._on_stream(self._id(fields[1]), fields[2:])
            case 4, 2:  # CANCEL
                id = self._id(fields[1])
                if id > self._last_request_seen:
                    raise self._fault(f"it cancels the call {id}, which it never made")
                return CancelReceived(id) if id in self._unanswered else None
            case 5, 2:  # HELLO
                return self._on_hello(fields[1])
            case 6, 2:  # GOODBYE
                return GoodbyeReceived(None if fields[1] is None else self._error(fields[1]))
            case _:
                raise self._malformed(f"a message of kind {kind} with {len(fields)} fields")

    def _on_hello(self, data: Any) -> Hello:
        if self.peer_hello is not None:
            raise self._malformed("a second hello")
        hello = codec.from_wire(data, Hello, peer=self.peer)
        least = STREAM_PIECE_BYTES + STREAM_PIECE_OVERHEAD
        if (
            hello.protocol < 1
            or len(hello.nonce) != 16
            or not 1024 <= hello.max_message_bytes < 1 << 32
            or hello.max_calls < 1
            or hello.max_streams < 0
            or hello.stream_window_bytes < least
        ):
            raise self._malformed("a hello with values out of bounds")
        self.peer_hello = hello
        return hello

    def _on_request(self, id: int, method: str, params: Any) -> RequestReceived:
        if id <= self._last_request_seen:
            raise self._fault(f"it used the call id {id} twice")
        if len(self._unanswered) >= self.limits.max_calls:
            raise self._fault(f"it made more than {self.limits.max_calls} calls at a time")
        self._last_request_seen = id
        self._unanswered.add(id)
        return RequestReceived(id, method, params)

    def _on_response(self, id: int, error: Any, result: Any) -> ResponseReceived:
        if id not in self._waiting:
            raise self._fault(f"it answers the call {id}, which does not wait for an answer")
        if error is not None and result is not None:
            raise self._malformed("an answer that is both an error and a result")
        failure = None if error is None else self._error(error)
        self._waiting.discard(id)
        return ResponseReceived(id, failure, result)

    def _on_stream(self, id: int, fields: list[Any]) -> Event | None:
        match fields:
            case [0, method, params]:  # OPEN
                return self._on_open(id, self._method(method), self._params(params))
            case [1, bytes() as data]:  # DATA
                half = self._half(id)
                if half is None or half.peer_ended:
                    raise self._fault(f"data on the stream {id}, which it ended")
                if len(data) > STREAM_PIECE_BYTES or piece_cost(data) > half.receive_credit:
                    raise self._fault(f"{len(data)} bytes on the stream {id} without credit for them")
                half.receive_credit -= piece_cost(data)
                return None if half.aborted or half.stopped else StreamData(id, data)
            case [2, int() as given] if 0 < given <= MAX_ID and type(given) is int:  # CREDIT
                half = self._half(id)
                if half is None:
                    return None  # it crossed with our end of the stream
                half.send_credit += given
                if half.send_credit > MAX_ID:
                    raise self._fault(f"absurd credit on the stream {id}")
                return StreamCredit(id)
            case [3]:  # FINISH
                half = self._half(id)
                if half is None or half.peer_ended:
                    raise self._fault(f"a second end of the stream {id}")
                half.peer_ended = True
                self._forget_if_over(id, half)
                return None if half.aborted else StreamFinished(id)
            case [4, error]:  # ABORT
                failure = self._error(error)
                half = self._half(id)
                if half is None:
                    return None  # it crossed with our end of the stream
                return self._on_abort(id, half, failure)
            case [5]:  # STOP
                half = self._half(id)
                if half is None or half.ended:
                    return None  # it crossed with our end of the stream
                half.ended = True
                self._forget_if_over(id, half)
                return StreamStopped(id, self._pack([STREAM, id, FINISH]))
            case _:
                raise self._malformed(f"a message of {len(fields)} fields about a stream")

    def _on_open(self, id: int, method: str, params: Any) -> StreamOpened:
        if id % 2 != self._their_parity or id <= self._last_stream_seen:
            raise self._fault(f"it opened a stream as {id}, which is not free")
        theirs = sum(1 for stream in self._streams if stream % 2 == self._their_parity)
        if theirs >= self.limits.max_streams:
            raise self._fault(f"it opened more than {self.limits.max_streams} streams at a time")
        self._last_stream_seen = id
        self._streams[id] = self._new_half()
        return StreamOpened(id, method, params)

    def _on_abort(self, id: int, half: _Half, error: CasoError) -> StreamAborted | None:
        was_aborted = half.aborted
        answer = None if half.ended else self._pack([STREAM, id, ABORT, error.to_wire()])
        half.ended = half.aborted = half.peer_ended = True
        self._forget_if_over(id, half)
        return None if was_aborted else StreamAborted(id, error, answer)

    # --- small parts ---

    def _half(self, id: int) -> _Half | None:
        """The stream ``id``, or ``None`` if it is over. Raises ``PeerFault`` if there never was one."""
        half = self._streams.get(id)
        if half is None:
            ours = id % 2 != self._their_parity
            if id >= self._next_stream if ours else id > self._last_stream_seen:
                raise self._fault(f"a message about the stream {id}, which never was")
        return half

    def _new_half(self) -> _Half:
        if self.peer_hello is None:
            raise Misuse("a stream before the hello")
        return _Half(send_credit=self.peer_hello.stream_window_bytes, receive_credit=self.limits.stream_window_bytes)

    def _forget_if_over(self, id: int, half: _Half) -> None:
        if half.ended and half.peer_ended:
            del self._streams[id]

    def _answer(self, id: int) -> None:
        if id not in self._unanswered:
            raise Misuse(f"call {id} does not wait for an answer")
        self._unanswered.discard(id)

    def _pack(self, fields: list[Any]) -> bytes:
        if self.peer_hello is None:
            raise Misuse("a message before the peer's hello")
        message = codec.pack(fields)
        if len(message) > self.peer_hello.max_message_bytes:
            limit = self.peer_hello.max_message_bytes
            raise Misuse(f"a message of {len(message)} bytes; {self.peer} takes {limit}")
        return message

    def _id(self, value: Any) -> int:
        if type(value) is not int or not 0 < value <= MAX_ID:
            raise self._malformed("an id that is none")
        return value

    def _method(self, value: Any) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= MAX_METHOD:
            raise self._malformed("a method that is none")
        return value

    def _params(self, value: Any) -> Any:
        if value is not None and (not isinstance(value, dict) or not all(isinstance(key, str) for key in value)):
            raise self._malformed("parameters that are not a map")
        return value

    def _error(self, value: Any) -> CasoError:
        match value:
            case {"code": str() as code, "fields": dict() as fields} if all(isinstance(name, str) for name in fields):
                return errors.from_wire({"code": code, "fields": fields})
            case _:
                raise self._malformed("an error that is none")

    def _malformed(self, detail: str) -> PeerMalformed:
        return PeerMalformed(peer=self.peer, detail=detail)

    def _fault(self, detail: str) -> PeerFault:
        return PeerFault(peer=self.peer, detail=detail)


def _own_params(params: Any) -> Any:
    if params is not None and not isinstance(params, dict):
        raise Misuse(f"parameters are a map or None, not {type(params).__name__}")
    return params

"""Bulk channels as the engines see them: calls that block, and that survive the loss of a connection.

One end of an attempt is *active*: it calls. The other answers. Each call has exactly one effect, however often the
connection is lost under it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from msgspec import Struct

from caso_mesh import __version__
from caso_mesh.identity import certificates, tickets
from caso_mesh.jobs import messages as say
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.task import FarEnd, Task
from caso_mesh.model.dialects import NEWEST, OLDEST, OWN, heard, in_common
from caso_mesh.model.errors import (
    CasoError,
    CertificateRefused,
    Misuse,
    PeerMalformed,
    TicketInvalid,
    Unavailable,
    UnknownCall,
    VersionsDiffer,
    WrongPeer,
)
from caso_mesh.model.ids import base32, node_id
from caso_mesh.model.orders import ticket_paths

#: A label of a server name has at most 63 characters, eight of which are taken.
_TOKEN_CHARACTERS = 32
#: Of what the other end calls the version of its program.
_LONGEST_VERSION = 100
#: Calls of the active end that may be unanswered, and their content in bytes: enough to be on their way at a time that a
#: long way does not slow them down (a gigabit up to 64 ms of round trip), and no more, since both ends hold it in memory.
WINDOW, WINDOW_BYTES = 32, 8 * 1024 * 1024
#: How far the newest call may be ahead of the oldest that is unanswered: where order does not matter a slow one is
#: overtaken, and the other end keeps the answers of all that overtook it.
SPAN = 4 * WINDOW
#: An end that is refused by its ticket tries again for so long: while the administrator changes, one server may have heard
#: of it and the other not yet.
TERMS_DIFFER_S = 10.0


def bulk_token(secret: bytes) -> str:
    """What names an attempt's bulk channel in the clear: it shows nothing of the secret."""
    return base32(hashlib.sha256(secret).digest())[:_TOKEN_CHARACTERS]


class Join(Struct, frozen=True):
    """The first call on each connection, and its answer: both ends show the same. ``newest`` and ``oldest``: the versions
    of the dialogue that this end speaks; ``version``: of its program, for people."""

    attempt: str
    ticket: bytes
    secret: bytes
    newest: int = 0
    oldest: int = 0
    version: str = ""


class Answering(Protocol):
    """What the other end may ask. ``ordered``: one call after the other, as they were made. ``quick``: methods that
    somebody waits for and that are answered beside all others, whatever is before them."""

    ordered: bool
    quick: frozenset[str]

    def handle(self, method: str, params: Any) -> Any:
        """The answer, packable. A ``CasoError`` goes to the caller."""
        ...


class Pending(Protocol):
    """A call under way."""

    def result(self) -> Any:
        """Waits for the answer. Raises what ``BulkChannel.call`` raises."""
        ...


class BulkChannel(Protocol):
    """The way to the other end, once both have met. Thread-safe."""

    def call(self, method: str, params: Any = None) -> Any:
        """The answer. Raises the error that the other end answers with, ``LinkLost`` when it stayed away for too long,
        ``Canceled``."""
        ...

    def start(self, method: str, params: Any = None, *, size: int = 0) -> Pending:
        """As ``call`` without waiting for the answer; waits while ``WINDOW`` are unanswered, or one of them is ``SPAN``
        behind, or their content (``size`` bytes here) would be more than ``WINDOW_BYTES``. An error of an earlier one is raised here, or by ``drain``."""
        ...

    def drain(self) -> None:
        """Until every call is answered."""
        ...

    @property
    def lost(self) -> CasoError | None:
        """Why nothing more can come, if so: the other end stayed away, or has said why it goes."""
        ...


#: Meets the other end of a task's attempt; raises ``NoDataPath`` on entering if that fails.
Meet = Callable[[Task, Desk, Answering], AbstractContextManager[BulkChannel]]


class NothingToAsk:
    """What the active end answers: nothing."""

    ordered = True
    quick: frozenset[str] = frozenset()

    def handle(self, method: str, params: Any) -> Any:
        raise Misuse("the end that calls is not called")


def as_error(error: BaseException) -> CasoError:
    """What the other end is told of any failure here."""
    return error if isinstance(error, CasoError) else Unavailable(what="the other end")


def ticket_of(task: Task, desk: Desk) -> bytes:
    """What this end shows the other one: by the term that its server knows."""
    term, order = desk.term, task.order
    return order.ticket if term is None else term.tickets.get(order.attempt, order.ticket)


def join_of(task: Task, desk: Desk) -> Join:
    """What this end shows the other one."""
    order = task.order
    return Join(order.attempt, ticket_of(task, desk), order.secret, NEWEST, OLDEST, __version__)


def agree(task: Task, desk: Desk, join: Join) -> int:
    """The version of the dialogue that both ends use. Raises ``VersionsDiffer``. One that does not say which it speaks is
    remembered on the desk: see ``explained``."""
    far = far_of(task)
    if join.newest < 1:
        desk.untold.add(far.node)
    version = in_common(OWN, heard(join.newest, join.oldest))
    if version is None:
        raise _differ(task, join)
    return version


def explained(task: Task, desk: Desk, error: CasoError) -> CasoError:
    """Why an attempt failed, for people: where one end says nothing of its version, what either end could not read is no
    fault of a peer, but of another version."""
    if task.far is None or task.far.node not in desk.untold or type(error) not in (PeerMalformed, UnknownCall):
        return error
    desk.log("info", error.message)
    return _differ(task, None)


def _differ(task: Task, join: Join | None) -> VersionsDiffer:
    far = far_of(task).name
    theirs = heard(join.newest, join.oldest) if join is not None else heard(0, 0)
    return VersionsDiffer(
        server=task.server_name,
        version=__version__,
        spoken=str(OWN),
        peer=far,
        peer_version=join.version[:_LONGEST_VERSION] if join is not None and join.version else "of an earlier time",
        peer_spoken=str(theirs),
        older=far if theirs.newest <= OWN.newest else task.server_name,
    )


def far_of(task: Task) -> FarEnd:
    if task.far is None:
        raise Misuse("this attempt has only one end")
    return task.far


def check_certificate(task: Task, certificate: bytes | None, now_ns: int) -> str:
    """The node id of the far end, if it is the one that showed ``certificate`` (TLS has checked that it holds the
    key). Raises ``CertificateRefused``, ``WrongPeer``."""
    far = far_of(task)
    if certificate is None:
        raise CertificateRefused(peer=task.server_name, detail="none was shown")
    try:
        public_key = certificates.public_key_of(certificate)
        life = certificates.life(certificate)
    except ValueError:
        raise CertificateRefused(peer=task.server_name, detail="it is not a certificate") from None
    found = node_id(public_key)
    if found != far.node or task.public_keys.get(far.node) != public_key:
        raise WrongPeer(address="the other end", found=found[:13], expected=far.name)
    anchors = task.tls.anchors if task.tls else ()
    if not any(certificates.is_ca(anchor) and certificates.signed_by(certificate, anchor) for anchor in anchors):
        raise CertificateRefused(
            peer=task.server_name, detail="nobody who may issue certificates of this mesh signed it"
        )
    if now_ns > life.not_after_ns:
        raise CertificateRefused(peer=task.server_name, detail="it has expired")
    return found


class Admission:
    """Whether the far end may take part: by ticket the first time, afterwards by the attempt's secret.

    ``told`` is what the daemon said of another term since the task was made: a change of administrator before both ends
    have met gives both a new ticket, and the one of before admits nobody any more. Who was admitted stays so.
    """

    def __init__(self, task: Task, told: Callable[[], say.Term | None] = lambda: None) -> None:
        self._task = task
        self._told = told
        self._seen: set[bytes] = set()
        self._admitted = False

    def check(self, attempt: str, ticket: bytes, secret: bytes, now_ns: int) -> None:
        """Raises ``TicketInvalid``."""
        order = self._task.order
        if attempt != order.attempt:
            raise TicketInvalid(attempt=order.attempt, detail="it is for another attempt")
        if not order.secret or not hmac.compare_digest(secret, order.secret):
            raise TicketInvalid(attempt=order.attempt, detail="whoever shows it does not know the attempt's secret")
        if self._admitted:
            return
        term = self._told()
        tickets.check(
            ticket,
            issuer_public_key=self._task.issuer_key if term is None else term.issuer_key,
            known_term=self._task.known_term if term is None else term.term,
            attempt=order.attempt,
            this_node=self._task.server,
            other_node=far_of(self._task).node,
            paths_digest=tickets.digest_of_paths(ticket_paths(order.spec, order.source)),
            now_ns=now_ns,
            seen=self._was_seen,
        )
        self._admitted = True

    def _was_seen(self, nonce: bytes) -> bool:
        seen = nonce in self._seen
        self._seen.add(nonce)
        return seen

"""The way to a daemon: finds it, dials it, signs each call with the operator's key, and repeats what may be repeated.

A call carries one request id through all repetitions, so that it takes effect once.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from caso_mesh.cli import output
from caso_mesh.cli.options import STATE_VARIABLE, Common
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model.errors import (
    UNAVAILABLE,
    CannotConnect,
    CasoError,
    CertificateRefused,
    DaemonNotRunning,
    InvalidName,
    LinkLost,
    NotFound,
    PeerFault,
    Refused,
    StateMissing,
    UsageError,
    WrongPeer,
)
from caso_mesh.model.ids import NAME, SHORT_NODE_ID, node_id

if TYPE_CHECKING:
    # Help needs no network at all.
    from caso_mesh.identity.store import OperatorIdentity
    from caso_mesh.wire.blocking import BlockingLink

T = TypeVar("T", bound=Struct)

#: Between two tries.
_PAUSE_S = 0.25
#: What the answer to a call may take beyond the time that the callee was given.
_SLACK_S = 0.5
#: Where there are several servers to ask, the next one is asked when one has had nothing to say for so long: it may be
#: on the side of a cut on which nobody is in office.
_ELSEWHERE_S = 1.0
#: A person is told after this long that nothing answers.
_PATIENCE_S = 2.0
_DIAL_TIMEOUT_S = 5.0
#: A context looks after this time whether other servers may be elected by now, whose certificates would be strange to it,
#: and whether its own certificate has to be renewed.
_ANCHORS_LAST_S = 3600.0


class Access(Struct, frozen=True):
    """How to reach a mesh, and as whom. ``state`` is the folder of the daemon, ``node`` the id it must have; both are
    ``None`` with a context, whose fixed ``addresses`` are tried in their order.
    ``stale``: the folder of a context that was not looked after for long; a daemon does that for its state folder."""

    mesh: str
    anchors: tuple[bytes, ...]
    operator: OperatorIdentity
    state: Path | None = None
    node: str | None = None
    addresses: tuple[str, ...] = ()
    stale: Path | None = None

    def where(self) -> tuple[str, ...]:
        """HOST:PORT of the daemon as of now, or of each server that may be asked. Raises ``DaemonNotRunning``."""
        if self.state is None:
            return self.addresses
        try:
            text = (self.state / "run" / "endpoint").read_text("utf-8").strip()
        except OSError:
            text = ""
        if not text:
            raise DaemonNotRunning(address=self.state, state=self.state)
        return (reachable(text),)


def reachable(address: str) -> str:
    """An address that can be dialled: a wildcard host means this machine."""
    host, _, port = address.rpartition(":")
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "[::]": "[::1]"}.get(host, host) + f":{port}"


def contexts_folder() -> Path:
    """Where an operator keeps contexts."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "caso-mesh" / "contexts"


def load_access(common: Common) -> Access:
    """What ``--state`` or ``--context`` means.

    Raises ``StateMissing``, ``StateDamaged``, ``InvalidName``, ``UsageError``, and ``Refused`` for a folder of somebody
    else.
    """
    if common.context is not None and common.state is not None:
        raise UsageError(detail="Give --state or --context, not both")
    folder = common.folder
    try:
        return _of_context(common.context) if common.context is not None else _of_state(folder)
    except PermissionError:
        detail = f"{folder} belongs to another user; run the command as that user, or name another --state"
        raise Refused(detail=f"{detail} ({STATE_VARIABLE} too)") from None


def _of_context(name: str) -> Access:
    from caso_mesh.identity.store import load_context

    if not NAME.match(name):
        raise InvalidName(name=name, kind="context")
    folder = contexts_folder() / name
    if not (folder / "endpoint").exists():
        raise NotFound(kind="context", name=name)
    context = load_context(folder)
    aged_s = time.time() - (folder / "anchors.pem").stat().st_mtime
    stale = folder if abs(aged_s) > _ANCHORS_LAST_S else None
    addresses = tuple(map(reachable, context.endpoints))
    return Access(context.mesh, context.anchors, context.operator, addresses=addresses, stale=stale)


def _of_state(folder: Path) -> Access:
    from caso_mesh.identity.store import IdentityStore

    if not (folder / "config.toml").exists():
        raise StateMissing(state=folder)
    store = IdentityStore(folder / "identity")
    try:
        return Access(
            store.load_mesh_id(), store.load_anchors(), store.load_operator(), state=folder, node=store.load_id()
        )
    except StateMissing:
        raise StateMissing(state=folder) from None


class Asked:
    """A call that is on its way: it carries one request id through all repetitions."""

    def __init__(self, name: str, params: bytes, timeout_s: float) -> None:
        self.name = name
        self.params = params
        self.request_id = os.urandom(16).hex()
        self.timeout_s = timeout_s
        self.started = time.monotonic()
        self.deadline = self.started + timeout_s
        self.link: BlockingLink | None = None
        self.number = 0

    @property
    def left_s(self) -> float:
        return self.deadline - time.monotonic()


def _renew_anchors(link: BlockingLink, folder: Path, known: tuple[bytes, ...]) -> set[bytes]:
    """Keeps the trust anchors of a context as those of its mesh, of which a server that it trusts is asked. Gives the issuing
    certificates whose certificates are to be renewed: those that end, and all when there are others than were ``known``."""
    from caso_mesh.identity.store import IdentityStore
    from caso_mesh.model.joining import AnchorsReply
    from caso_mesh.wire.codec import from_wire

    number = link.ask("enrol.anchors", {})
    reply = from_wire(link.answer(number, timeout_s=_DIAL_TIMEOUT_S), AnchorsReply)
    others = [each.certificate for each in reply.anchors if each.certificate != reply.root]
    IdentityStore(folder).save_anchors((reply.root, *others))
    ending = {each.certificate for each in reply.anchors if each.until_ns is not None}
    return ending | set(known) if {reply.root, *others} - set(known) else ending


class Client:
    """Calls to one daemon; made by ``connect``. Reconnects by itself. One thread uses it; ``abandon`` may be called by
    another."""

    def __init__(self, access: Access, timeout_s: float) -> None:
        self._access = access
        self.timeout_s = timeout_s
        self._link: BlockingLink | None = None
        self._first = 0
        self._elsewhere_s = 0.0
        self._told = False
        self._abandoned = False

    def call(self, name: str, request: Struct, reply: type[T]) -> T:
        """The reply of a call of the table.

        Raises what the call raises; what may pass by itself only after the timeout.
        """
        return self.reply(self.ask(name, request), reply)

    def ask(self, name: str, request: Struct) -> Asked:
        """Sends a call if there is a way to the daemon; ``reply`` waits for its answer, in any order."""
        from caso_mesh.wire.codec import pack, to_wire

        asked = Asked(name, pack(to_wire(request)), self.timeout_s)
        if self._link is not None and not self._link.closed:
            try:
                self._send(asked, self._link)
            except LinkLost:
                asked.link = None  # ``reply`` sends it over the next one
        return asked

    def reply(self, asked: Asked, reply: type[T]) -> T:
        """The answer to ``asked``, which is sent again if that helps. Raises as ``call`` does."""
        from caso_mesh.wire.codec import from_wire

        while True:
            try:
                return from_wire(self._answer(asked), reply)
            except CasoError as error:
                if not (error.retryable and error.exit_status == UNAVAILABLE) or self._abandoned or asked.left_s <= 0:
                    raise
                if time.monotonic() - asked.started > _PATIENCE_S:
                    self._tell(error)
                self._turn(asked)
                time.sleep(max(0.0, min(_PAUSE_S, asked.left_s)))
                asked.link = None

    def _turn(self, asked: Asked) -> None:
        """Goes on to the next of several servers, if this one was asked for long enough."""
        since_s = max(asked.started, self._elsewhere_s)
        if len(self._access.addresses) > 1 and time.monotonic() - since_s >= _ELSEWHERE_S:
            self._first, self._elsewhere_s = self._first + 1, time.monotonic()
            self.close()

    def _tell(self, error: CasoError) -> None:
        if not self._told and output.is_terminal(sys.stderr):
            output.note(f"{error.message} Waiting ...")
        self._told = True

    def _answer(self, asked: Asked) -> Any:
        link = self._linked(asked)
        if asked.link is not link:
            self._send(asked, link)
        return link.answer(asked.number, timeout_s=max(0.1, asked.left_s) + _SLACK_S)

    def _send(self, asked: Asked, link: BlockingLink) -> None:
        from caso_mesh.identity.requests import sign_request
        from caso_mesh.wire.codec import to_wire

        access, left_s = self._access, max(0.1, asked.left_s)
        signed = sign_request(
            access.operator.key,
            mesh=access.mesh,
            call=asked.name,
            params=asked.params,
            request_id=asked.request_id,
            now_ns=time.time_ns(),
        )
        params = n.SignedCall(
            signed.call, signed.params, signed.request_id, signed.operator, signed.at_ns, signed.signature, left_s
        )
        asked.number, asked.link = link.ask("call.signed", to_wire(params)), link

    def _linked(self, asked: Asked) -> BlockingLink:
        if self._link is not None and not self._link.closed:
            return self._link
        link, folder = self._dialled(asked), self._access.stale
        if folder is not None:
            ending = _renew_anchors(link, folder, self._access.anchors)
            if self._renew_certificate(link, folder, asked.left_s, ending):
                link.close()
                link = self._dialled(asked)
            self._access = replace(self._access, stale=None)
        return link

    def _dialled(self, asked: Asked) -> BlockingLink:
        access = self._access
        addresses = list(access.where())
        turn = self._first % len(addresses)
        addresses = addresses[turn:] + addresses[:turn]
        while True:
            address = addresses.pop(0)
            try:
                self._link = self._dial(address, max(0.1, asked.left_s) / (1 + len(addresses)))
                break
            except CannotConnect as error:
                if access.state is not None:
                    raise DaemonNotRunning(address=address, state=access.state) from None
                if not addresses:
                    raise CannotConnect(address=", ".join(access.addresses), detail=error.fields["detail"]) from None
        if self._abandoned:
            raise LinkLost(peer=address)
        return self._link

    def _renew_certificate(self, link: BlockingLink, folder: Path, left_s: float, ending: set[bytes]) -> bool:
        """Asks for a new certificate of the context's operator in the last third of the old one's life, or after it, and
        when its issuing certificate is one of ``ending``. Gives whether that had expired: the link was let in with it, and takes no other call."""
        from caso_mesh.identity import der
        from caso_mesh.identity.certificates import life
        from caso_mesh.identity.store import IdentityStore
        from caso_mesh.wire.codec import from_wire, pack, to_wire

        operator, now_ns = self._access.operator, time.time_ns()
        valid = life(operator.chain[0])
        third_ns = (valid.not_after_ns - valid.not_before_ns) // 3
        if now_ns < valid.not_after_ns - third_ns and not ending.intersection(operator.chain[1:]):
            return False
        asked = Asked("operator.renew", pack(to_wire(q.Nothing())), max(0.1, left_s))
        self._send(asked, link)
        try:
            reply = from_wire(link.answer(asked.number, timeout_s=asked.timeout_s + _SLACK_S), n.OperatorRenewReply)
        except CasoError:
            if now_ns > valid.not_after_ns:
                raise
            return False  # nobody is in office just now; there are days left, and the next hour asks again
        if not reply.certificate or der.public_key_of(reply.certificate[0]) != operator.key.public_key:
            raise PeerFault(peer="the administrator", detail="it sent the certificate of another operator")
        IdentityStore(folder).write_operator(operator.key, reply.certificate)
        return now_ns > valid.not_after_ns

    def _dial(self, address: str, timeout_s: float) -> BlockingLink:
        from caso_mesh.identity.tls import client_context
        from caso_mesh.wire.blocking import dial

        operator = self._access.operator
        return dial(
            address,
            tls=client_context(operator.chain_path, operator.key_path, self._access.anchors),
            authorise=lambda certificate: self._check(address, certificate),
            timeout_s=min(_DIAL_TIMEOUT_S, timeout_s),
        )

    def _check(self, address: str, certificate: bytes | None) -> str:
        """The daemon's id: an anchor of the mesh signed its certificate, and it is the one that was meant."""
        from caso_mesh.identity import der

        anchors = self._access.anchors
        if certificate is None or not any(der.signed_by(certificate, anchor) for anchor in anchors):
            raise CertificateRefused(peer="this program", detail=f"{address} is no server of this mesh")
        found, expected = node_id(der.public_key_of(certificate)), self._access.node
        if expected is not None and found != expected:
            raise WrongPeer(address=address, found=found[:SHORT_NODE_ID], expected=expected[:SHORT_NODE_ID])
        return found

    def close(self) -> None:
        """Ends the link, if there is one."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def abandon(self) -> None:
        """From another thread: what this client waits for fails soon, whatever time it has left."""
        self._abandoned = True
        link = self._link
        if link is not None:
            link.abandon()


@contextmanager
def connect(common: Common) -> Iterator[Client]:
    """A client of the daemon that the options mean; it dials at the first call.

    Raises what ``load_access`` raises, and ``InvalidValue`` for a bad timeout.
    """
    timeout_s = common.timeout_s
    client = Client(load_access(common), timeout_s)
    try:
        yield client
    finally:
        client.close()


def ask(common: Common, name: str, request: Struct, reply: type[T]) -> T:
    """One call."""
    with connect(common) as client:
        return client.call(name, request, reply)

"""The way to a daemon: finds it, dials it, signs each call with the operator's key, and repeats what may be repeated.

A call carries one request id through all repetitions, so that it takes effect once.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from caso_mesh.cli import output
from caso_mesh.cli.options import STATE_VARIABLE, Common
from caso_mesh.model import requests as q
from caso_mesh.model.errors import (
    UNAVAILABLE,
    CannotConnect,
    CasoError,
    CertificateRefused,
    DaemonNotRunning,
    InvalidName,
    Refused,
    StateMissing,
    UsageError,
    WrongPeer,
)
from caso_mesh.model.ids import NAME, SHORT_NODE_ID, node_id

if TYPE_CHECKING:
    from caso_mesh.identity.store import OperatorIdentity
    from caso_mesh.wire.link import Link

T = TypeVar("T", bound=Struct)

#: Between two tries.
_PAUSE_S = 0.25
#: What the answer to a call may take beyond the time that the callee was given.
_SLACK_S = 0.5
#: A person is told after this long that nothing answers.
_PATIENCE_S = 2.0
_DIAL_TIMEOUT_S = 5.0


class Access(Struct, frozen=True):
    """How to reach a mesh, and as whom. ``state`` is the folder of the daemon, ``node`` the id it must have; both are
    ``None`` with a context, whose fixed ``address`` is used instead."""

    mesh: str
    anchors: tuple[bytes, ...]
    operator: OperatorIdentity
    state: Path | None = None
    node: str | None = None
    address: str | None = None

    def where(self) -> str:
        """HOST:PORT of the daemon as of now. Raises ``DaemonNotRunning``."""
        if self.state is None:
            return self.address or ""
        try:
            text = (self.state / "run" / "endpoint").read_text("utf-8").strip()
        except OSError:
            text = ""
        if not text:
            raise DaemonNotRunning(address=self.state, state=self.state)
        return reachable(text)


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
    context = load_context(contexts_folder() / name)
    return Access(context.mesh, context.anchors, context.operator, address=reachable(context.endpoint))


def _of_state(folder: Path) -> Access:
    from caso_mesh.identity.store import IdentityStore

    if not (folder / "config.toml").exists():
        raise StateMissing(state=folder)
    store = IdentityStore(folder / "identity")
    try:
        return Access(
            store.load_mesh_id(), store.load_anchors(), store.load_operator(), state=folder, node=store.load_keys().id
        )
    except StateMissing:
        raise StateMissing(state=folder) from None


@contextmanager
def _no_public_authorities() -> Iterator[None]:
    """aiohttp reads every public certification authority of the machine while it is imported, for contexts that a mesh
    never uses: a tenth of what a short command costs."""
    named = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    before = {name: os.environ.get(name) for name in named}
    os.environ.update(dict.fromkeys(named, os.devnull))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Client:
    """Calls to one daemon; made by ``connect``. Reconnects by itself."""

    def __init__(self, access: Access, timeout_s: float) -> None:
        self._access = access
        self._timeout_s = timeout_s
        self._link: Link | None = None
        self._told = False

    async def call(self, name: str, request: Struct, reply: type[T]) -> T:
        """The reply of a call of the table.

        Raises what the call raises; what may pass by itself only after the timeout.
        """
        from caso_mesh.wire.codec import from_wire

        request_id = uuid.uuid4().hex
        started = time.monotonic()
        deadline = started + self._timeout_s
        while True:
            try:
                return from_wire(await self._once(name, request, request_id, deadline), reply)
            except CasoError as error:
                if not (error.retryable and error.exit_status == UNAVAILABLE):
                    raise
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise
                if time.monotonic() - started > _PATIENCE_S:
                    self._tell(error)
                await asyncio.sleep(min(_PAUSE_S, left_s))

    def _tell(self, error: CasoError) -> None:
        if not self._told and output.is_terminal(sys.stderr):
            output.note(f"{error.message} Waiting ...")
        self._told = True

    async def _once(self, name: str, request: Struct, request_id: str, deadline: float) -> Any:
        from caso_mesh.identity.requests import sign_request
        from caso_mesh.wire.codec import pack, to_wire

        link = await self._linked(deadline)
        left_s = max(0.1, deadline - time.monotonic())
        access = self._access
        signed = sign_request(
            access.operator.key,
            mesh=access.mesh,
            call=name,
            params=pack(to_wire(request)),
            request_id=request_id,
            now_ns=time.time_ns(),
        )
        params = q.SignedCall(
            signed.call, signed.params, signed.request_id, signed.operator, signed.at_ns, signed.signature, left_s
        )
        return await link.call("call.signed", to_wire(params), timeout_s=left_s + _SLACK_S)

    async def _linked(self, deadline: float) -> Link:
        if self._link is not None and not self._link.closed:
            return self._link
        from caso_mesh.identity.tls import client_context
        from caso_mesh.wire.network import ClientTls
        from caso_mesh.wire.typed import RefusesAll

        with _no_public_authorities():
            from caso_mesh.wire.websocket import WebSocketNetwork

        await self.close()
        access, operator = self._access, self._access.operator
        address = access.where()
        tls = ClientTls(lambda: client_context(operator.chain_path, operator.key_path, access.anchors))
        timeout_s = min(_DIAL_TIMEOUT_S, max(0.1, deadline - time.monotonic()))
        try:
            self._link = await WebSocketNetwork().dial(
                address,
                tls=tls,
                authorise=lambda certificate: self._check(address, certificate),
                handler=RefusesAll(),
                timeout_s=timeout_s,
            )
        except CannotConnect:
            if access.state is None:
                raise
            raise DaemonNotRunning(address=address, state=access.state) from None
        return self._link

    def _check(self, address: str, certificate: bytes | None) -> str:
        """The daemon's id: an anchor of the mesh signed its certificate, and it is the one that was meant."""
        from caso_mesh.identity.certificates import public_key_of, signed_by

        anchors = self._access.anchors
        if certificate is None or not any(signed_by(certificate, anchor) for anchor in anchors):
            raise CertificateRefused(peer="this program", detail=f"{address} is no server of this mesh")
        found, expected = node_id(public_key_of(certificate)), self._access.node
        if expected is not None and found != expected:
            raise WrongPeer(address=address, found=found[:SHORT_NODE_ID], expected=expected[:SHORT_NODE_ID])
        return found

    async def close(self) -> None:
        """Ends the link, if there is one."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()


@asynccontextmanager
async def connect(common: Common) -> AsyncIterator[Client]:
    """A client of the daemon that the options mean; it dials at the first call.

    Raises what ``load_access`` raises, and ``InvalidValue`` for a bad timeout.
    """
    timeout_s = common.timeout_s
    client = Client(load_access(common), timeout_s)
    try:
        yield client
    finally:
        await client.close()


async def ask(common: Common, name: str, request: Struct, reply: type[T]) -> T:
    """One call."""
    async with connect(common) as client:
        return await client.call(name, request, reply)

"""A state folder with real keys and certificates, and a daemon that answers what the test says."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from caso_mesh.cli.program import run_inside
from caso_mesh.identity.authority import Authority
from caso_mesh.identity.keys import NodeKeys, SigningKey
from caso_mesh.identity.requests import SignedRequest, check_request
from caso_mesh.identity.store import IdentityStore, write_context
from caso_mesh.identity.tls import server_context
from caso_mesh.model.calls import BY_NAME
from caso_mesh.model.mesh import MeshInfo, Roster, RosterRow
from caso_mesh.model.nodes import SignedCall
from caso_mesh.model.states import Role
from caso_mesh.wire.codec import from_wire, to_wire, unpack
from caso_mesh.wire.link import Link
from caso_mesh.wire.network import ServerTls
from caso_mesh.wire.websocket import WebSocketNetwork

MESH = "mesh-of-tests"
Answer = Callable[[Any], Any]


class Material:
    """Keys and certificates of one small mesh; made once per run."""

    def __init__(self) -> None:
        now = time.time_ns()
        self.keys = NodeKeys.create()
        self.operator = SigningKey.create()
        self.authority = Authority.create(mesh_id=MESH, mesh_name="tests", voter=self.keys.id, now_ns=now)
        self.chain = self.authority.chain(self.authority.issue_node(self.keys.public_key, now_ns=now))
        self.operator_chain = self.authority.chain(self.authority.issue_operator(self.operator.public_key, now_ns=now))
        self.anchors = tuple(anchor.certificate for anchor in self.authority.anchors(self.keys.id))
        self.roster = Roster(
            MeshInfo(MESH, "tests", now),
            self.authority.anchors(self.keys.id),
            (
                RosterRow(self.keys.id, "alpha", "node", self.keys.public_key, self.keys.encryption_key),
                RosterRow(self.operator.id, "root@alpha", "operator", self.operator.public_key, role=Role.ADMIN),
            ),
        )

    def write_state(self, folder: Path) -> None:
        """A state folder as ``init`` leaves it, as far as the command line looks."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "config.toml").write_text('server = "alpha"\nlisten = "127.0.0.1:0"\n')
        (folder / "run").mkdir(exist_ok=True)
        store = IdentityStore(folder / "identity")
        store.save_keys(self.keys)
        store.save_chain(self.chain)
        store.save_anchors(self.anchors)
        store.save_mesh_id(MESH)
        store.write_operator(self.operator, self.operator_chain)

    def write_context(self, folder: Path, endpoint: str) -> None:
        write_context(
            folder, endpoints=(endpoint,), mesh=MESH, anchors=self.anchors, key=self.operator, chain=self.operator_chain
        )


@functools.cache
def material() -> Material:
    return Material()


@functools.cache
def another_mesh() -> Material:
    return Material()


class Received(Struct, frozen=True):
    """One call as it arrived, its signature checked."""

    call: str
    request: Any
    request_id: str
    timeout_s: float


class FakeDaemon:
    """Answers ``call.signed``: ``answers[call]`` is a reply, an error to raise, or a function of the request.

    A list is used up from its front, its last member stays.
    """

    def __init__(self, state: Path, mesh: Material) -> None:
        self.state = state
        self.mesh = mesh
        self.answers: dict[str, Any] = {}
        self.received: list[Received] = []
        self.address = ""
        self.links: set[Link] = set()

    async def call(self, link: Link, method: str, params: Any) -> Any:
        assert method == "call.signed"
        self.links.add(link)
        signed = from_wire(params, SignedCall)
        row = check_request(
            self.mesh.roster,
            SignedRequest(
                signed.call, signed.params, signed.request_id, signed.operator, signed.at_ns, signed.signature
            ),
            time.time_ns(),
        )
        assert row.name == "root@alpha"
        call = BY_NAME[signed.call]
        request = from_wire(unpack(signed.params, max_bytes=1 << 20), call.request)
        self.received.append(Received(signed.call, request, signed.request_id, signed.timeout_s))
        answer = self.answers[signed.call]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if callable(answer) and not isinstance(answer, type):
            answer = answer(request)
            if asyncio.iscoroutine(answer):
                answer = await answer
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, call.reply)
        return to_wire(answer)

    async def notify(self, link: Link, method: str, params: Any) -> None:
        raise AssertionError(method)

    async def stream(self, link: Link, method: str, params: Any, stream: Any) -> None:
        raise AssertionError(method)

    @contextlib.asynccontextmanager
    async def listening(self, host: str = "127.0.0.1", *, certificate: Material | None = None) -> AsyncIterator[None]:
        """Answers at a free port, named in the endpoint file of the state folder."""
        shown = certificate or self.mesh
        folder = self.state.parent / f"served-{id(shown)}"
        shown.write_state(folder)
        store = IdentityStore(folder / "identity")
        tls = ServerTls(lambda: server_context(store.chain_path, store.key_path, self.mesh.anchors))
        network = WebSocketNetwork()
        async with network.listen(f"{host}:0", tls=tls, authorise=lambda _: "operator", handler=self) as listener:
            self.address = listener.address
            (self.state / "run" / "endpoint").write_text(f"{listener.address}\n")
            yield


class Result(Struct, frozen=True):
    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one document on stdout."""
        assert self.out.endswith("\n")
        assert self.out.count("\n") == 1
        return json.loads(self.out)


class Shell:
    """Runs command lines in this process, with the state folder of the fake daemon."""

    def __init__(self, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.state = state
        self._capsys = capsys

    async def __call__(self, *argv: str, state: bool = True) -> Result:
        self._capsys.readouterr()
        status = await run_inside([*argv, *(["--state", os.fspath(self.state)] if state else [])])
        out, err = self._capsys.readouterr()
        return Result(status, out, err)

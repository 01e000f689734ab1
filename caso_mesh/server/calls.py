"""The calls that every server answers for itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from caso_mesh.control.orders import shared_digest, with_change
from caso_mesh.identity.roster import Peer
from caso_mesh.model import joining as j
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import CasoError, DevicePathInvalid, InvalidValue, Refused
from caso_mesh.model.orders import Orders, OrdersChange
from caso_mesh.server.allow import AllowList, within
from caso_mesh.server.catalog_answers import CatalogAnswers
from caso_mesh.server.facts import held_piece
from caso_mesh.server.paths import check_paths
from caso_mesh.wire.network import split_address
from caso_mesh.wire.typed import ask

if TYPE_CHECKING:
    from caso_mesh.server.node import ServerNode

Handler = Callable[[Peer, Any, Any], Awaitable[Any]]

_MOST_STATIC = 100


class Calls:
    """Answers for one server node."""

    def __init__(self, node: ServerNode) -> None:
        self._node = node
        self._shared: tuple[Orders, bytes] | None = None

    def handlers(self) -> dict[str, Handler]:
        """By name of the call."""
        kits, answers = self._node.kept.kit_calls, CatalogAnswers(self._node.kept.catalogs)
        handing = kits.handing(self._check_keys)
        importing = kits.importing(self._check_device, self._node.kept.storage)
        return {
            "link.hello": self._hello,
            "server.seen": self._seen,
            "roster.get": self._roster,
            "orders.put": self._orders_put,
            "orders.change": self._orders_change,
            "catalog.read": self._catalog_read,
            "device.prepare": self._device_prepare,
            "device.proof": self._device_proof,
            "device.grant": kits.grant,
            "device.keys": handing.sealed,
            "device.rewrap": handing.rewrap,
            "device.take-keys": handing.take,
            "foreign.look": importing.look,
            "foreign.read": importing.read,
            "foreign.open": importing.open,
            "foreign.seal": importing.seal,
            "mesh.keep": kits.keep,
            "logon.grant": self._node.kept.logons.grant,
            "path.check": self._path_check,
            "catalog.make": self._catalog_make,
            "catalog.look": self._catalog_look,
            "catalog.folder": self._of_catalog(answers.folder),
            "catalog.lookup": self._of_catalog(answers.lookup),
            "catalog.search": self._of_catalog(answers.search),
            "catalog.sizes": self._of_catalog(answers.sizes),
            "catalog.history": self._of_catalog(answers.history),
            "vault.sets": self._vault_sets,
            "set.piece": self._set_piece,
            "set.folder": self._set_folder,
            "set.hold": self._set_hold,
            "attempt.watch": self._attempt_watch,
            "attempt.held": self._attempt_held,
            "enrol.anchors": self._anchors,
            "status": self._status,
            "peer.add": self._peer_add,
            "peer.list": self._peer_list,
        }

    def _only_admin(self, peer: Peer) -> None:
        if not self._node.bearings.is_admin(peer.id):
            raise Refused(detail=f"{peer.name} is not the administrator")

    async def _hello(self, peer: Peer, request: n.HelloRequest, link: Any) -> n.HelloReply:
        reply = await self._node.links.greeted(link, request)
        await self._node.pass_on(peer, request)
        return reply

    async def _seen(self, peer: Peer, request: n.ServerSeen, link: Any) -> v.Done:
        self._node.seen(request.server, request.addresses)
        return v.Done()

    async def _roster(self, peer: Peer, request: q.Nothing, link: Any) -> n.RosterNow:
        orders = self._node.orders
        return n.RosterNow(
            orders.authority, orders.admin, self._node.bearings.addresses_of(orders.admin), orders.roster
        )

    async def _orders_put(self, peer: Peer, orders: Orders, link: Any) -> v.Done:
        await self._node.take_orders(peer, orders)
        return v.Done()

    async def _orders_change(self, peer: Peer, change: OrdersChange, link: Any) -> n.OrdersTaken:
        held = self._node.orders
        if self._shared is None or self._shared[0] is not held:
            self._shared = (held, shared_digest(held))
        if change.base != self._shared[1]:
            return n.OrdersTaken(False)
        await self._node.take_orders(peer, with_change(held, change))
        return n.OrdersTaken(True)

    async def _catalog_read(self, peer: Peer, request: n.CatalogRead, link: Any) -> n.CatalogPiece:
        self._only_admin(peer)
        return await asyncio.to_thread(self._node.kept.segments.piece, request, self._node.clock.now_ns())

    async def _set_piece(self, peer: Peer, request: n.SetPiece, link: Any) -> n.SetPieceReply:
        self._only_admin(peer)
        return await self._node.kept.files.piece(request)

    async def _set_folder(self, peer: Peer, request: n.SetFolder, link: Any) -> n.SetFolderReply:
        self._only_admin(peer)
        return await self._node.kept.rebuilding.folder(request)

    async def _vault_sets(self, peer: Peer, request: n.VaultSets, link: Any) -> n.VaultSetsReply:
        self._only_admin(peer)
        return await self._node.kept.rebuilding.sets(request)

    async def _catalog_make(self, peer: Peer, request: n.CatalogMake, link: Any) -> n.CatalogMade:
        self._only_admin(peer)
        return await self._node.kept.rebuilding.make(request)

    def _of_catalog(self, answer: Callable[[Any], Awaitable[Any]]) -> Handler:
        async def asked(peer: Peer, request: Any, link: Any) -> Any:
            self._only_admin(peer)
            return await answer(request)

        return asked

    async def _catalog_look(self, peer: Peer, request: q.Nothing, link: Any) -> v.Done:
        self._only_admin(peer)
        self._node.kept.catalogs.look()
        return v.Done()

    async def _set_hold(self, peer: Peer, request: n.SetHold, link: Any) -> v.Done:
        self._only_admin(peer)
        return await self._node.kept.holding.hold(request, self._node.trust.name_of(peer.id))

    # --- devices and paths ---

    async def _device_prepare(self, peer: Peer, request: n.DevicePrepare, link: Any) -> n.DevicePrepareReply:
        self._only_admin(peer)
        node = self._node
        return await node.kept.storage.prepare(
            request, node.folder.path, node.orders.roster.mesh.id, self._check_device
        )

    async def _device_proof(self, peer: Peer, request: n.DeviceProof, link: Any) -> n.DeviceProofReply:
        self._only_admin(peer)
        return await self._node.kept.storage.proof(request, lambda path: self._check_device(path, request.device))

    def _check_keys(self, path: str, vault: str) -> None:
        """As ``_check_device``; the device with that vault may be in that folder already."""
        there = next((device.id for device in self._node.orders.devices if device.vault == vault), "")
        self._check_device(path, there)

    def _check_device(self, path: str, there: str = "") -> None:
        """A device lies where this server's own file lets things be written, and not inside of another one; the device
        ``there`` (id) may be in that folder already."""
        node = self._node
        try:
            raw = path.encode()
        except UnicodeEncodeError:
            raise DevicePathInvalid(
                path=path.encode("utf-8", "surrogatepass"), server=node.config.server, detail="it is not UTF-8"
            ) from None
        if not path.startswith("/"):
            raise DevicePathInvalid(path=path, server=node.config.server, detail="it is not an absolute path")
        real = node.places.real
        AllowList(node.config.server, (), node.config.allow.write, [str(node.folder.path)], real=real).check_write(raw)
        for device in node.orders.devices:
            place = device.path_on(node.keys.id)
            if place is not None and device.id == there and path == place.path:
                continue
            # by the last known path of that one: it may hang
            if place is not None and within(os.path.realpath(path), real(place.path)):
                raise DevicePathInvalid(
                    path=path, server=node.config.server, detail=f"it belongs to the device {device.name}"
                )

    async def _path_check(self, peer: Peer, request: n.PathCheck, link: Any) -> n.PathCheckReply:
        self._only_admin(peer)
        return await check_paths(self._node, request)

    async def _attempt_watch(self, peer: Peer, request: n.WatchAttempts, link: Any) -> v.Done:
        self._only_admin(peer)
        await self._node.attempts.watch(request.attempts, min(max(request.for_s, 0.0), 3600.0))
        return v.Done()

    async def _attempt_held(self, peer: Peer, request: n.AttemptHeld, link: Any) -> n.HeldPiece:
        self._only_admin(peer)
        return await held_piece(self._node.facts, request)

    # --- the mesh ---

    async def _anchors(self, peer: Peer, request: q.Nothing, link: Any) -> j.AnchorsReply:
        roster = self._node.orders.roster
        return j.AnchorsReply(
            mesh=roster.mesh.id,
            mesh_name=roster.mesh.name,
            node=self._node.keys.id,
            root=roster.anchors[0].certificate,
            anchors=roster.anchors,
        )

    async def _status(self, peer: Peer, request: q.Nothing, link: Any) -> v.StatusView:
        node = self._node
        admin = node.linked_admin()
        summary: n.MeshSummary | None = None
        if admin is not None:
            try:
                summary = await ask(node.links.get(admin), "mesh.summary", q.Nothing(), n.MeshSummary, timeout_s=3.0)
            except CasoError:
                admin = None
        nodes = sum(row.kind == "node" for row in node.orders.roster.rows)
        voters = tuple(node.trust.name_of(a.voter) for a in node.orders.roster.anchors if a.voter)
        return v.StatusView(
            mesh=node.orders.roster.mesh.name,
            server=node.config.server,
            admin=node.trust.name_of(admin) if admin else None,
            term=summary.term if summary else node.orders.authority.term,
            voters=summary.voters if summary else voters,
            servers=summary.servers if summary else nodes,
            running=summary.running if summary else len(node.attempts.running()),
            alerts=summary.alerts if summary else 0,
            version=node.version,
        )

    async def _peer_add(self, peer: Peer, request: q.PeerAdd, link: Any) -> v.PeerList:
        try:
            split_address(request.address)
        except ValueError as error:
            raise InvalidValue(value=request.address, what="address", expected=str(error).capitalize()) from None
        if len(self._node.bearings.static) >= _MOST_STATIC:
            raise InvalidValue(value=request.address, what="address", expected="There are too many already")
        await self._node.add_peer(request.address)
        return await self._peer_list(peer, q.Nothing(), link)

    async def _peer_list(self, peer: Peer, request: q.Nothing, link: Any) -> v.PeerList:
        node = self._node
        seen: dict[str, str] = dict.fromkeys(node.config.peers, "configuration")
        seen |= dict.fromkeys(node.bearings.static, "static")
        for id_, addresses in sorted(node.bearings.hints().items()):
            for address in addresses:
                seen.setdefault(address, f"discovery of {node.trust.name_of(id_)}")
        return v.PeerList(
            tuple(v.PeerView(address, source) for address, source in seen.items()), node.trust.name_of(node.keys.id)
        )

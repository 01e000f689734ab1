"""Multicast DNS service discovery on the LAN (RFC 6762, RFC 6763), IPv4, on each interface by its own address.

Measured facts this rests on: a browser asks four times and then falls silent, so it is begun anew every minute, as is
the announcement; a killed server stays visible for over an hour; ``Default`` as the interface fails on a machine
without a multicast route.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence

import ifaddr
import zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from caso_mesh.discovery.announcement import SERVICE, port_and_hosts, read_announcement, text_of
from caso_mesh.discovery.board import Board
from caso_mesh.discovery.sighting import Discovery, Gone, Sighting

_log = logging.getLogger(__name__)

#: Interface addresses that are used at most: a host of containers may have hundreds.
INTERFACE_LIMIT = 64
#: Announcements that are being looked up at once; what comes on top is looked up at the next refresh.
LOOKUP_LIMIT = 256
LOOKUP_TIMEOUT_S = 3.0
#: What no announcement has confirmed for so long is taken off: the lifetime of a pointer record.
FORGET_AFTER_S = 4500.0

#: (interface number, IPv4 address): an interface that was made anew under its old address is a new one.
Interfaces = tuple[tuple[int, str], ...]


@contextlib.asynccontextmanager
async def open_mdns(
    *, interfaces: Sequence[str] | None = None, poll_s: float = 10.0, refresh_s: float = 60.0
) -> AsyncIterator[Discovery]:
    """Announces and finds servers on the LAN until the block ends; then says goodbye (about 0.3 s).

    ``interfaces``: IPv4 addresses or names of interfaces, which may come later; None = all but loopback. Interfaces
    are looked at every ``poll_s`` seconds; every ``refresh_s`` seconds it announces and asks again. A machine without
    a usable interface is no error: it is logged once, and tried again. Addresses that are announced may have the
    host 0.0.0.0, which stands for those of the interfaces.
    """
    mdns = _Mdns(interfaces, poll_s, refresh_s)
    task = asyncio.create_task(mdns.run(), name="mdns")
    try:
        yield mdns
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


def interface_addresses(interfaces: Sequence[str] | None) -> Interfaces:
    """The IPv4 addresses of this machine that are meant by ``interfaces`` (see ``open_mdns``)."""
    found: set[tuple[int, str]] = set()
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            if not isinstance(ip.ip, str):
                continue
            if interfaces is None:
                wanted = not ipaddress.IPv4Address(ip.ip).is_loopback
            else:
                wanted = ip.ip in interfaces or adapter.name in interfaces
            if wanted:
                found.add((adapter.index or 0, ip.ip))
    return tuple(sorted(found)[:INTERFACE_LIMIT])


class _Mdns:
    def __init__(self, interfaces: Sequence[str] | None, poll_s: float, refresh_s: float) -> None:
        self._interfaces = interfaces
        self._poll_s = poll_s
        self._refresh_s = refresh_s
        self._board = Board()
        self._announced: Sighting | None = None
        self._changed = asyncio.Event()
        self._confirmed_at: dict[str, float] = {}
        self._said = ""

    async def announce(self, sighting: Sighting) -> None:
        text_of(sighting)
        self._announced = sighting
        self._changed.set()

    def sightings(self) -> AsyncIterator[Sighting | Gone]:
        return self._board.watch()

    async def run(self) -> None:
        """Until cancelled. A session lasts as long as the interfaces stay the same."""
        while True:
            interfaces = interface_addresses(self._interfaces)
            if interfaces:
                try:
                    await _Session(self, interfaces).run()
                    self._said = ""
                    continue
                except* Exception as errors:
                    # Whatever a strange network makes the library do: a later try may work, the daemon goes on.
                    expected = errors.subgroup((OSError, zeroconf.Error)) is errors
                    text = f"discovery by mDNS does not work now: {errors.exceptions[0]!r}"
                    self._say_once(text, None if expected else errors)
            else:
                self._say_once("discovery by mDNS waits: there is no network interface but loopback")
            self._forget()
            await asyncio.sleep(self._poll_s)

    def _say_once(self, text: str, error: BaseException | None = None) -> None:
        if self._said != text:
            self._said = text
            _log.warning("%s", text, exc_info=error)

    def _forget(self) -> None:
        """Takes off what was last confirmed in an earlier session, long ago: its goodbye may have been missed."""
        now = asyncio.get_running_loop().time()
        for node in [node for node, at in self._confirmed_at.items() if now - at > FORGET_AFTER_S]:
            del self._confirmed_at[node]
            self._board.remove(node)

    def confirm(self, sighting: Sighting) -> None:
        mine = self._announced
        if mine is not None and (mine.node, mine.instance) == (sighting.node, sighting.instance):
            return
        if self._board.publish(sighting):
            self._confirmed_at[sighting.node] = asyncio.get_running_loop().time()
        else:
            self._say_once("discovery by mDNS: too many servers are announced; some are not shown")

    def gone(self, node: str) -> None:
        self._confirmed_at.pop(node, None)
        self._board.remove(node)


class _Session:
    """mDNS on one unchanging set of interfaces."""

    def __init__(self, owner: _Mdns, interfaces: Interfaces) -> None:
        self._owner = owner
        self._interfaces = interfaces
        self._addresses = list(dict.fromkeys(address for _, address in interfaces))
        self._allow_loopback = any(ipaddress.IPv4Address(address).is_loopback for address in self._addresses)
        self._lookups: dict[str, asyncio.Task[None]] = {}
        self._service: zeroconf.ServiceInfo | None = None

    async def run(self) -> None:
        """Returns when the interfaces have changed. Cancelled, it says goodbye."""
        zc = AsyncZeroconf(interfaces=self._addresses, ip_version=zeroconf.IPVersion.V4Only)
        try:
            await zc.zeroconf.async_wait_for_start()
            async with asyncio.TaskGroup() as group:
                await self._serve(zc, group)
            # No goodbye: the next session announces the same service at once.
            zc.zeroconf.registry.async_remove(zc.zeroconf.registry.async_get_service_infos())
        finally:
            await zc.async_close()

    async def _serve(self, zc: AsyncZeroconf, group: asyncio.TaskGroup) -> None:
        owner = self._owner
        loop = asyncio.get_running_loop()
        browser: AsyncServiceBrowser | None = None
        refresh_at = loop.time()
        owner._changed.set()
        try:
            while interface_addresses(owner._interfaces) == self._interfaces:
                due = loop.time() >= refresh_at
                if owner._changed.is_set() or due:
                    owner._changed.clear()
                    await self._announce(zc, group)
                if due:
                    refresh_at = loop.time() + owner._refresh_s
                    if browser is not None:
                        await browser.async_cancel()
                    # A new browser is told of all that is still in the cache, then asks.
                    browser = self._browse(zc, group)
                    owner._forget()
                wait_s = min(owner._poll_s, max(0.0, refresh_at - loop.time()))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await owner._changed.wait()
        finally:
            if browser is not None:
                await browser.async_cancel()
            for lookup in self._lookups.values():
                lookup.cancel()

    async def _announce(self, zc: AsyncZeroconf, group: asyncio.TaskGroup) -> None:
        sighting = self._owner._announced
        if sighting is None:
            return
        port, hosts = port_and_hosts(sighting, self._addresses)
        service = zeroconf.ServiceInfo(
            SERVICE,
            f"{sighting.node}.{SERVICE}",
            port=port,
            properties=text_of(sighting),
            server=f"{sighting.node}.local.",
            # An announcement of other addresses only still needs one to be complete.
            parsed_addresses=hosts or self._addresses[:1],
        )
        before, self._service = self._service, service
        sending: Awaitable[object]
        if before is not None and before.name == service.name:
            sending = await zc.async_update_service(service)
        else:
            if before is not None:
                group.create_task(_finish(await zc.async_unregister_service(before)))
            # The name is the hash of a key: there is nobody to ask whether it is taken.
            sending = await zc.async_register_service(service, cooperating_responders=True)
        group.create_task(_finish(sending))

    def _browse(self, zc: AsyncZeroconf, group: asyncio.TaskGroup) -> AsyncServiceBrowser:
        def changed(
            zeroconf: zeroconf.Zeroconf,
            service_type: str,
            name: str,
            state_change: zeroconf.ServiceStateChange,
        ) -> None:
            self._on_change(zc, group, name, removed=state_change.name == "Removed")

        return AsyncServiceBrowser(zc.zeroconf, SERVICE, handlers=[changed])

    def _on_change(self, zc: AsyncZeroconf, group: asyncio.TaskGroup, name: str, *, removed: bool) -> None:
        name = name.lower()
        running = self._lookups.pop(name, None)
        if running is not None:
            running.cancel()
        if removed:
            self._owner.gone(name.removesuffix("." + SERVICE))
        elif len(self._lookups) < LOOKUP_LIMIT:
            task = group.create_task(self._look_up(zc, name))
            self._lookups[name] = task
            task.add_done_callback(lambda done: self._looked_up(name, done))

    def _looked_up(self, name: str, task: asyncio.Task[None]) -> None:
        if self._lookups.get(name) is task:
            del self._lookups[name]

    async def _look_up(self, zc: AsyncZeroconf, name: str) -> None:
        try:
            service = AsyncServiceInfo(SERVICE, name)
            if not await service.async_request(zc.zeroconf, LOOKUP_TIMEOUT_S * 1000):
                return
        except zeroconf.BadTypeInNameException:
            return
        sighting = read_announcement(
            name.removesuffix("." + SERVICE),
            service.port,
            service.parsed_addresses(zeroconf.IPVersion.V4Only),
            service.properties,
            allow_loopback=self._allow_loopback,
        )
        if sighting is None:
            _log.debug("an announcement that is not one of ours was dropped: %r", name[:80])
        else:
            self._owner.confirm(sighting)


async def _finish(sending: Awaitable[object]) -> None:
    await sending

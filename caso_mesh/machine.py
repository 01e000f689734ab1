"""What a node stands on in the world: clocks, network, randomness, workers, and the addresses of this machine."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field

from caso_mesh.config import Config
from caso_mesh.discovery.mdns import interface_addresses, open_mdns
from caso_mesh.discovery.sighting import Discovery
from caso_mesh.jobs.nursery_runner import NurseryRunner
from caso_mesh.jobs.runner import Runner
from caso_mesh.model.clock import Calendar, Clock, Randomness
from caso_mesh.model.errors import CannotListen
from caso_mesh.model.ids import IdSource, make_id_source
from caso_mesh.model.resources import FileSystem
from caso_mesh.server.folder import StateFolder
from caso_mesh.sources.file_systems import local_file_systems
from caso_mesh.wire.network import Network, join_address, split_address
from caso_mesh.wire.websocket import WebSocketNetwork


class SystemClock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_s(self) -> float:
        return time.monotonic()


def _nursery(folder: StateFolder) -> AbstractAsyncContextManager[Runner]:
    return NurseryRunner(lock_path=folder.run / "workers.lock")


def _discovery(config: Config) -> AbstractAsyncContextManager[Discovery | None]:
    host, _ = split_address(config.listen)
    if not config.discovery.mdns or host.startswith("127.") or host in {"localhost", "::1"}:
        return nullcontext(None)
    return open_mdns(interfaces=config.discovery.interfaces or None)


@dataclass(frozen=True)
class Ports:
    """What a node stands on in the world. The defaults are the real ones; tests put others in their place."""

    network: Network = field(default_factory=WebSocketNetwork)
    clock: Clock = field(default_factory=SystemClock)
    randomness: Randomness = os.urandom
    runner: Callable[[StateFolder], AbstractAsyncContextManager[Runner]] = _nursery
    discovery: Callable[[Config], AbstractAsyncContextManager[Discovery | None]] = _discovery
    jitter: random.Random = field(default_factory=random.Random)
    same_thread: bool = False
    #: What this machine has to be backed up; many servers in one thread have no machine of their own.
    file_systems: Callable[[], tuple[FileSystem, ...]] = local_file_systems
    #: Of another speed only in tests of long runs.
    calendar: Calendar | None = None

    def id_source(self) -> IdSource:
        return make_id_source(self.clock.now_ns, self.randomness)


def addresses_of(config: Config, address: str) -> tuple[str, ...]:
    """Where others reach a server that listens at ``address``: as configured, else at its interfaces."""
    if config.advertise:
        return config.advertise
    host, port = split_address(address)
    if host not in {"0.0.0.0", "::"}:
        return (address,)
    found = [each for _, each in sorted(interface_addresses(None)) if not each.startswith("127.")]
    return tuple(join_address(each, port) for each in found) or (join_address("127.0.0.1", port),)


def checked_listen(listen: str) -> str:
    """The address itself. Raises ``CannotListen`` for what is none."""
    try:
        split_address(listen)
    except ValueError as error:
        raise CannotListen(address=listen, detail=error) from None
    return listen


def known_addresses(config: Config) -> tuple[str, ...]:
    """Addresses before the listener is up: none while the port is still to be found."""
    return () if split_address(config.listen)[1] == 0 and not config.advertise else addresses_of(config, config.listen)

"""Sightings as DNS-SD text records (RFC 6763, section 6) and back. What comes in is hostile until it fits."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence

from caso_mesh.discovery.sighting import Sighting, split_address
from caso_mesh.model.errors import InvalidValue, Misuse
from caso_mesh.model.ids import NAME

SERVICE = "_caso-mesh._tcp.local."
#: Hosts that stand for "every address of this machine".
ANY_HOST = "0.0.0.0"
#: Addresses of one announcement that are kept.
ADDRESS_LIMIT = 16
#: Bytes of one "key=value" in a text record.
TEXT_LIMIT = 255

_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_WORD = re.compile(r"[A-Za-z0-9.+_-]{1,63}\Z")


def text_of(sighting: Sighting) -> dict[str, str]:
    """The text record of an announcement: v, node, mesh (members), name, instance, state, also (further addresses).

    Raises ``Misuse`` if no reader would accept it.
    """
    text = {
        "v": sighting.version,
        "node": sighting.node,
        "name": sighting.name,
        "instance": sighting.instance,
        "state": "new" if sighting.mesh is None else "member",
    }
    if sighting.mesh is not None:
        text["mesh"] = sighting.mesh
    try:
        port, hosts, also = _divide(sighting.addresses)
    except InvalidValue as error:
        raise Misuse(error.message) from error
    if also:
        text["also"] = ",".join(also)
        if len("also=" + text["also"]) > TEXT_LIMIT:
            raise Misuse("the addresses do not fit into an announcement")
    encoded = {key.encode(): value.encode() for key, value in text.items()}
    stand_in = [host if host != ANY_HOST else "192.0.2.1" for host in hosts] or ["192.0.2.1"]
    if read_announcement(sighting.node, port, stand_in, encoded, allow_loopback=True) is None:
        raise Misuse(f"{sighting} cannot be announced")
    return text


def port_and_hosts(sighting: Sighting, own: Sequence[str]) -> tuple[int, list[str]]:
    """The port of an announcement, and the IPv4 addresses that belong to it; ``own`` are those of this machine."""
    port, hosts, _ = _divide(sighting.addresses)
    found: list[str] = []
    for host in hosts:
        found.extend(own if host == ANY_HOST else [host])
    return port, list(dict.fromkeys(found))[:ADDRESS_LIMIT]


def read_announcement(
    label: str,
    port: int | None,
    addresses: Iterable[str],
    text: Mapping[bytes, bytes | None],
    *,
    allow_loopback: bool = False,
) -> Sighting | None:
    """What an announcement says; None if anything in it is not as ``text_of`` makes it.

    ``label`` is the service's name without its type; it must be the node id. Addresses of this very machine
    (127.0.0.0/8) lead nowhere for others and are dropped, unless ``allow_loopback``.
    """
    try:
        fields = {key: _field(text, key) for key in ("v", "node", "name", "instance", "state")}
        mesh = _field(text, "mesh") if text.get(b"mesh") is not None else None
        also = _field(text, "also") if text.get(b"also") is not None else ""
        kept = [f"{host}:{port}" for host in addresses if _is_host(host, allow_loopback=allow_loopback)]
        for address in also.split(",") if also else ():
            host, _ = split_address(address)
            if _is_host(host, allow_loopback=allow_loopback) or not _is_ipv4(host):
                kept.append(address)
    except (ValueError, InvalidValue):
        return None
    fits = (
        fields["node"] == label.lower()
        and _ID.match(fields["node"])
        and NAME.match(fields["name"])
        and _WORD.match(fields["instance"])
        and _WORD.match(fields["v"])
        and (mesh is None or _ID.match(mesh))
        and fields["state"] == ("new" if mesh is None else "member")
        and port is not None
        and 0 < port < 65536
        and kept
    )
    if not fits:
        return None
    return Sighting(
        mesh=mesh,
        node=fields["node"],
        name=fields["name"],
        addresses=tuple(dict.fromkeys(kept))[:ADDRESS_LIMIT],
        version=fields["v"],
        instance=fields["instance"],
        discovered_by="mdns",
    )


def _field(text: Mapping[bytes, bytes | None], key: str) -> str:
    value = text.get(key.encode())
    if value is None or len(value) > TEXT_LIMIT:
        raise ValueError(key)
    return value.decode("ascii")


def _divide(addresses: Sequence[str]) -> tuple[int, list[str], list[str]]:
    """The port of the first address, the IPv4 hosts that have it, and the addresses a service record cannot say."""
    if not addresses:
        raise Misuse("an announcement needs an address")
    split = [split_address(address) for address in addresses]
    port = split[0][1]
    hosts, also = [], []
    for address, (host, its_port) in zip(addresses, split, strict=True):
        if its_port == port and _is_ipv4(host):
            hosts.append(host)
        else:
            also.append(address)
    return port, hosts, also


def _is_ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _is_host(host: str, *, allow_loopback: bool) -> bool:
    """Whether it is an IPv4 address that a server can have."""
    if not _is_ipv4(host):
        return False
    address = ipaddress.IPv4Address(host)
    if address.is_multicast or address.is_unspecified or int(address) == 0xFFFFFFFF:
        return False
    return allow_loopback or not address.is_loopback

"""Records of the mesh itself: its servers, operators, trust anchors, join tokens and pools."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from caso_mesh.model.states import DataLocation, Liveness, Role, ServerState


class Claim(Struct, frozen=True):
    """The server ``node`` (id) took the mesh over, or rebuilt it, by hand: from ``lineage`` on. Signed by its own key, so
    that whoever follows it can prove it to those that do not yet."""

    node: str
    lineage: int
    signature: bytes


class MeshInfo(Struct, frozen=True):
    """What the mesh is. ``claim``: who took it over last, if that ever happened. ``chunker_*`` belong to the mesh, so that chunks are recognised between devices."""

    id: str
    name: str
    created_at_ns: int
    feature_level: int = 1
    chunker_seed: int = 0
    claim: Claim | None = None


class Anchor(Struct, frozen=True):
    """A trust anchor: the root, or the issuing certificate of a voter. ``certificate`` is DER.

    One of a server that votes no more has no ``voter``, and is believed until ``until_ns`` (``None``: without end), so
    that servers whose certificates it has issued can get others: in the course of their lives, since who was away meanwhile
    may know none of the new ones, but at once of one that was ``rotated`` away.

    ``above``: the issuing certificates between this one and the root, as far as they are no anchors any more (DER, the nearest
    first). Nobody is let in by them: they tell that this one hangs on the root.
    """

    certificate: bytes
    voter: str | None = None
    until_ns: int | None = None
    rotated: bool = False
    above: tuple[bytes, ...] = ()


class CaRotation(Struct, frozen=True):
    """A rotation of the mesh's certification authority, the last one there was. ``root`` and ``issuing`` (DER) are the new
    ones, ``by`` the node id of the server that holds their keys; it switches at ``switch_at_ns``. ``urgent``: at once, and
    the old one goes as soon as everybody has renewed. ``noted``: ids of servers and operators that know them, after the switch: that have certificates of them.
    ``until_ns``: what the old one has issued is believed until then."""

    root: bytes
    issuing: bytes
    by: str
    announced_at_ns: int
    switch_at_ns: int
    switched_at_ns: int | None = None
    until_ns: int | None = None
    finished_at_ns: int | None = None
    noted: tuple[str, ...] = ()
    noted_at_ns: int = 0
    urgent: bool = False

    @property
    def stage(self) -> Literal["announced", "switched", "finished"]:
        if self.finished_at_ns is not None:
            return "finished"
        return "announced" if self.switched_at_ns is None else "switched"


class RosterRow(Struct, frozen=True):
    """One node or operator that is trusted: the row gives the role.

    ``id`` is the hash of ``public_key`` (DER SubjectPublicKeyInfo); ``encryption_key`` is a raw X25519 public key,
    32 bytes, empty for operators. For an operator, ``role`` holds in the whole mesh and ``server_roles``, by node id, on
    top of it on single servers.
    """

    id: str
    name: str
    kind: Literal["node", "operator"]
    public_key: bytes
    encryption_key: bytes = b""
    role: Role | None = None
    server_roles: tuple[tuple[str, Role], ...] = ()


class Roster(Struct, frozen=True):
    """All that a server needs to decide whom to trust, as of a place in the control state's order.

    ``former`` are the rows of removed servers: nobody is let in by them, but the sets they signed stay readable.
    """

    mesh: MeshInfo
    anchors: tuple[Anchor, ...]
    rows: tuple[RosterRow, ...]
    removed: tuple[str, ...] = ()
    former: tuple[RosterRow, ...] = ()


class Server(Struct, frozen=True, gc=False):
    """A managed server, as the control state keeps it.

    ``set_state`` is what a person set; ``liveness`` what the administrator in office found, ``silent_since_ns`` since
    when. ``addresses`` are hints, best first. ``wrapped_id_key`` is the mesh's id key sealed to ``encryption_key``.
    ``voted``: it was a voter before, and may have been in office. ``data_location``: where its device and media data lie.
    ``succeeds``: the machines (node ids) in whose place it is, the first of them first.
    """

    name: str
    id: str
    public_key: bytes
    encryption_key: bytes
    wrapped_id_key: bytes
    joined_at_ns: int
    set_state: ServerState = ServerState.ENABLED
    liveness: Liveness = Liveness.NO_COMMUNICATION
    silent_since_ns: int | None = None
    ever_linked: bool = False
    voter: bool = False
    never_admin: bool = False
    preset: str = "lan"
    addresses: tuple[str, ...] = ()
    version: str = ""
    settings: dict[str, float | str] = {}
    succeeds: tuple[str, ...] = ()
    voted: bool = False
    data_location: DataLocation = DataLocation.ADMIN

    @property
    def imposed(self) -> dict[str, float | str]:
        """Settings that its data location leaves no choice of."""
        return {"catalog-mode": "distributed"} if self.data_location is DataLocation.SERVER else {}

    @property
    def origin(self) -> str:
        """The id under which its sets are kept: of the first machine in whose place it is, or its own."""
        return self.succeeds[0] if self.succeeds else self.id

    @property
    def state(self) -> ServerState:
        """What is shown: a silent server overrides what was set, unless communication was stopped by hand."""
        if self.set_state is ServerState.DISABLED or self.liveness is Liveness.ALIVE:
            return self.set_state
        return ServerState(self.liveness.value)


def row_of(server: Server) -> RosterRow:
    """The roster row of a server."""
    return RosterRow(server.id, server.name, "node", server.public_key, server.encryption_key)


class SetDataLocation(Struct, frozen=True, tag="set-data-location", tag_field="do"):
    """Where the device and media data of a server lie from now on."""

    server: str
    location: DataLocation


class Operator(Struct, frozen=True):
    """A person, or the local operator of a state folder. ``role`` holds in the whole mesh; ``server_roles`` on single
    servers (node ids: a later server of the same name inherits nothing), ``pool_roles`` on whoever is in a pool (its name).

    ``home`` is the node id of the server in whose state folder the key lies: with that server it is revoked.
    """

    name: str
    id: str
    public_key: bytes
    role: Role | None
    created_at_ns: int
    server_roles: tuple[tuple[str, Role], ...] = ()
    home: str | None = None
    pool_roles: tuple[tuple[str, Role], ...] = ()


class OperatorGrant(Struct, frozen=True):
    """What an operator who is invited may do: as in ``Operator``, without ``servers`` and ``pools`` in the whole mesh."""

    name: str
    role: Role
    servers: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()


class JoinToken(Struct, frozen=True):
    """A short-lived, single-use right to join: of a server, or of the operator of ``grant``. ``digest`` is the SHA-256 of
    the secret; the secret is not kept. ``used_by`` is the id of who joined by it."""

    digest: bytes
    expires_at_ns: int
    created_by: str
    used_by: str | None = None
    grant: OperatorGrant | None = None


class RecoveryKit(Struct, frozen=True):
    """A recovery kit that was made. Content keys and copies of the mesh are wrapped to its ``public_key`` (raw X25519).

    ``confirmed_at_ns``: since when the written file is known to open; one that never was may have been given up.
    ``complete`` are the devices (ids) whose content keys are all wrapped to it.
    """

    id: str
    public_key: bytes
    created_at_ns: int
    created_by: str
    confirmed_at_ns: int | None = None
    complete: tuple[str, ...] = ()


class Pool(Struct, frozen=True):
    """A media server pool: a named group of servers (ids)."""

    name: str
    servers: tuple[str, ...]


class NodeAddress(Struct, frozen=True):
    """Where a node may be reached. A hint: only the link says who is there."""

    node: str
    name: str
    addresses: tuple[str, ...]

"""Commands about who belongs to the mesh: founding, join tokens, servers, voters, liveness."""

from __future__ import annotations

import msgspec

from caso_mesh.control.catalogs import mode_of
from caso_mesh.control.importing import placed
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect, Put
from caso_mesh.model.catalogs import CatalogMode
from caso_mesh.model.commands import (
    AdmitServer,
    CreateToken,
    FoundMesh,
    RemoveServer,
    RevokeToken,
    SetDataLocation,
    SetLiveness,
    SetServerAddresses,
    SetServerState,
    SetVoter,
)
from caso_mesh.model.errors import (
    AlreadyExists,
    Conflict,
    DataLocationRefused,
    InUse,
    InvalidValue,
    JoinLinkExpired,
    JoinLinkInvalid,
    JoinLinkUsed,
    NotOnRoster,
    WrongState,
)
from caso_mesh.model.features import SetFeatureLevel
from caso_mesh.model.ids import check_name, token_id
from caso_mesh.model.jobs import Failure
from caso_mesh.model.mesh import Anchor, JoinToken, Operator, Server, row_of
from caso_mesh.model.states import DataLocation, Liveness, RunState, ServerState
from caso_mesh.planning import lifecycle

#: What is issued lives for seven days; one more for clocks and for those who were away.
ISSUED_LIFE_NS = 8 * 86400 * 1_000_000_000
#: States that a person may set.
_SETTABLE = (ServerState.ENABLED, ServerState.PAUSED, ServerState.DISABLED)


def found_mesh(state: ControlState, command: FoundMesh, context: Context) -> Effect:
    """Repeated for the same mesh it has no effect. ``Conflict`` for another one."""
    if state.mesh is not None:
        if state.mesh.id != command.mesh.id:
            raise Conflict(detail=f"This server already belongs to the mesh {state.mesh.name}")
        return Effect({"mesh": state.mesh.id})
    check_name(command.server.name, "server")
    for media_set in command.media_sets:
        check_name(media_set.name, "media-set")
    return Effect(
        {"mesh": command.mesh.id},
        (
            Put("mesh", "", command.mesh),
            Put("anchors", "", command.anchors),
            Put("servers", command.server.id, command.server),
            *(Put("operators", operator.id, at_home(operator, command.server)) for operator in command.operators),
            *(Put("media_sets", media_set.name, media_set) for media_set in command.media_sets),
        ),
    )


def set_feature_level(state: ControlState, command: SetFeatureLevel, context: Context) -> Effect:
    """It never falls."""
    mesh = state.info()
    if command.level <= mesh.feature_level:
        return Effect()
    return Effect(None, (Put("mesh", "", msgspec.structs.replace(mesh, feature_level=command.level)),))


def create_token(state: ControlState, command: CreateToken, context: Context) -> Effect:
    known = state.tokens.get(command.digest)
    if known is not None:
        if known.expires_at_ns != command.expires_at_ns:
            raise Conflict(detail="The join token exists with another expiry")
        return Effect()
    if len(command.digest) != 32:
        raise InvalidValue(value=command.digest.hex(), what="digest of a join token", expected="It has 32 bytes")
    token = JoinToken(command.digest, command.expires_at_ns, created_by=context.who)
    return Effect(None, (Put("tokens", token.digest, token),))


def revoke_token(state: ControlState, command: RevokeToken, context: Context) -> Effect:
    """One that is gone already stays so. ``WrongState`` for one by which somebody joined: that is undone by removing who did."""
    token = state.tokens.get(command.digest)
    if token is None:
        return Effect()
    if token.used_by is not None:
        raise WrongState(kind="join link", name=token_id(token.digest), state="used")
    return Effect(None, (Put("tokens", token.digest, None),))


def admit_server(state: ControlState, command: AdmitServer, context: Context) -> Effect:
    """The same key again gets the same answer; a newcomer that never got it, and has made another key for its local
    operator since, gets that one on the roster. ``NotOnRoster`` for a removed id, ``JoinLinkInvalid``,
    ``JoinLinkUsed``, ``JoinLinkExpired``, ``AlreadyExists`` for a name in use."""
    server, operator = command.server, command.operator
    token = check_newcomer(state, server, command.token)
    known = state.servers.get(server.id)
    if known is not None:
        if known.name != server.name or known.public_key != server.public_key:
            raise AlreadyExists(kind="server", name=known.name)
        return Effect({"server": known.id}, _other_operator(state, known, operator))
    changes = use_token(token, server.id, context.at_ns)
    check_name(server.name, "server")
    if any(other.name == server.name for other in state.servers.values()):
        raise AlreadyExists(kind="server", name=server.name)
    changes.append(Put("servers", server.id, server))
    if operator is not None:
        check_operator(state, operator)
        changes.append(Put("operators", operator.id, at_home(operator, server)))
    return Effect({"server": server.id}, tuple(changes))


def check_newcomer(state: ControlState, server: Server, digest: bytes | None) -> JoinToken | None:
    """The token that a newcomer shows, if it is good for it. Raises as ``admit_server``, but for its expiry."""
    if server.id in state.removed:
        raise NotOnRoster(peer=server.name)
    if digest is None:
        return None
    token = state.tokens.get(digest)
    if token is None:
        raise JoinLinkInvalid(detail="it is not known here")
    if token.grant is not None:
        raise JoinLinkInvalid(detail="it is for an operator, not for a server")
    if token.used_by not in {None, server.id}:
        raise JoinLinkUsed
    return token


def use_token(token: JoinToken | None, server: str, now_ns: int) -> list[Put]:
    """Raises ``JoinLinkExpired``."""
    if token is None:
        return []
    if now_ns > token.expires_at_ns:
        raise JoinLinkExpired
    return [Put("tokens", token.digest, msgspec.structs.replace(token, used_by=server))]


def check_operator(state: ControlState, operator: Operator, *, without: str = "") -> None:
    """That a local operator may be added once the operators at home on ``without`` are gone."""
    if operator.id in state.removed:
        raise NotOnRoster(peer=operator.name)
    others = [other for other in state.operators.values() if other.home != without or not without]
    if any(operator.name == other.name or operator.id == other.id for other in others):
        raise AlreadyExists(kind="operator", name=operator.name)


def set_server_state(state: ControlState, command: SetServerState, context: Context) -> Effect:
    server = state.server(command.server)
    if command.state not in _SETTABLE:
        raise InvalidValue(value=command.state, what="state", expected="Use enabled, paused or disabled")
    return _change(server, msgspec.structs.replace(server, set_state=command.state))


def set_data_location(state: ControlState, command: SetDataLocation, context: Context) -> Effect:
    """``DataLocationRefused`` on the server while its catalogs are kept elsewhere as well."""
    server = state.server(command.server)
    mode = mode_of(state, server.id)
    if command.location is DataLocation.SERVER and mode is not CatalogMode.DISTRIBUTED:
        raise DataLocationRefused(server=server.name, mode=mode.value)
    return _change(server, msgspec.structs.replace(server, data_location=command.location))


def set_server_addresses(state: ControlState, command: SetServerAddresses, context: Context) -> Effect:
    server = state.server(command.server)
    return _change(server, msgspec.structs.replace(server, addresses=command.addresses, version=command.version))


def set_liveness(state: ControlState, command: SetLiveness, context: Context) -> Effect:
    """A server that returns releases the runs that were stranded and may run on it."""
    server = state.server(command.server)
    alive = command.liveness is Liveness.ALIVE
    found = msgspec.structs.replace(
        server,
        liveness=command.liveness,
        silent_since_ns=None if alive else command.silent_since_ns,
        ever_linked=server.ever_linked or alive,
    )
    effect = _change(server, found)
    if not alive or server.liveness is Liveness.ALIVE:
        return effect
    released = (
        Put("runs", run.id, lifecycle.hold(run, False))
        for run in state.open_runs()
        if run.stranded and server.id in state.servers_of_run(run)
    )
    return Effect(effect.result, (*effect.changes, *released))


def without_voter(state: ControlState, server: str, now_ns: int) -> tuple[Anchor, ...]:
    """The anchors when a server votes no more: what its certificate has issued is believed until that has been renewed
    everywhere. A certificate gives no rights of its own: those are on the roster."""
    return tuple(_over(state, anchor, now_ns) if anchor.voter == server else anchor for anchor in state.anchors)


def _over(state: ControlState, anchor: Anchor, now_ns: int) -> Anchor:
    """The anchor of a voter that is none any more, or has another one."""
    rotating = state.rotation is not None and state.rotation.stage == "switched"
    return Anchor(anchor.certificate, None, now_ns + ISSUED_LIFE_NS, rotated=rotating, above=anchor.above)


def set_voter(state: ControlState, command: SetVoter, context: Context) -> Effect:
    """Lists a voter's issuing certificate, or drops it when the server stops being one."""
    server = state.server(command.server)
    if command.voter:
        mine = tuple(anchor for anchor in state.anchors if anchor.voter == server.id)
        anchors = tuple(anchor for anchor in state.anchors if anchor.voter != server.id)
        if command.certificate is not None and mine and mine[0].certificate != command.certificate:
            # what the one before has issued is believed until it has been renewed
            anchors += (_over(state, mine[0], context.at_ns),)
        anchors += mine if command.certificate is None else (Anchor(command.certificate, server.id),)
    else:
        anchors = without_voter(state, server.id, context.at_ns)
    never = server.never_admin if command.never_admin is None else command.never_admin
    voted = server.voted or (server.voter and not command.voter)
    effect = _change(server, msgspec.structs.replace(server, voter=command.voter, never_admin=never, voted=voted))
    if anchors == state.anchors:
        return effect
    return Effect(None, (*effect.changes, Put("anchors", "", anchors)))


def remove_server(state: ControlState, command: RemoveServer, context: Context) -> Effect:
    """The row leaves the roster with the operators whose keys lie there, all pools and the paths of devices; parts of
    runs that wait for its files fail. ``InUse`` for the server in office, and while attempts are active on it.
    Repeated it has no effect."""
    if command.server in state.removed:
        return Effect({"server": command.server})
    server = state.server(command.server)
    if server.id == command.admin:
        raise InUse(kind="server", name=server.name, by=["the administrator in office"])
    active = [attempt.id for attempt in state.active_attempts() if server.id in {attempt.server, attempt.other}]
    if active:
        raise InUse(kind="server", name=server.name, by=active)
    changes = [
        Put("servers", server.id, None),
        Put("removed", server.id, server.name),
        # the sets it wrote are still there, and nobody could check their signatures without its key
        Put("former", server.id, row_of(server)),
    ]
    for operator in state.operator_list():
        if operator.home == server.id:
            changes += [Put("operators", operator.id, None), Put("removed", operator.id, operator.name)]
        elif any(place == server.id for place, _ in operator.server_roles):
            roles = tuple((place, role) for place, role in operator.server_roles if place != server.id)
            changes.append(Put("operators", operator.id, msgspec.structs.replace(operator, server_roles=roles)))
    for pool in state.pools_of(server.id):
        members = tuple(member for member in pool.servers if member != server.id)
        changes.append(Put("pools", pool.name, msgspec.structs.replace(pool, servers=members)))
    for device in state.devices_of(server.id):
        paths = tuple(path for path in device.paths if path.server != server.id)
        changes.append(Put("devices", device.id, placed(device, paths)))
    changes += [Put("copies", copy.id, None) for copy in state.copy_list(server.id)]
    anchors = without_voter(state, server.id, context.at_ns)
    if anchors != state.anchors:
        changes.append(Put("anchors", "", anchors))
    gone = Failure("not-found", {"kind": "server", "name": server.name})
    for run in state.open_runs():
        if any(part.source == server.id and part.state is RunState.READY for part in run.parts):
            changes.append(Put("runs", run.id, lifecycle.fail_part(run, server.id, context.at_ns, gone)))
    return Effect({"server": server.id}, tuple(changes))


def _other_operator(state: ControlState, server: Server, operator: Operator | None) -> tuple[Put, ...]:
    if operator is None or server.ever_linked or operator.id in state.operators or operator.id in state.removed:
        return ()
    old = [each for each in state.operator_list() if each.home == server.id]
    if any(each.name == operator.name for each in state.operators.values() if each not in old):
        raise AlreadyExists(kind="operator", name=operator.name)
    gone = [put for each in old for put in (Put("operators", each.id, None), Put("removed", each.id, each.name))]
    return (*gone, Put("operators", operator.id, at_home(operator, server)))


def at_home(operator: Operator, server: Server) -> Operator:
    return operator if operator.home is not None else msgspec.structs.replace(operator, home=server.id)


def _change(old: Server, new: Server) -> Effect:
    return Effect() if new == old else Effect(None, (Put("servers", new.id, new),))

"""The keys of devices in a simulated mesh: at rest whoever sees a device opens it. What no machine opens any more is an alert,
and operators do what that says: the state folder of a lost machine turns up."""

from __future__ import annotations

from mesh.simulation.stage import DEVICES
from mesh.simulation.world import World

from caso_mesh.identity.store import IdentityStore
from caso_mesh.jobs.offline import grant_from
from caso_mesh.model.errors import NoKey
from caso_mesh.server.folder import StateFolder

_LOST = "device-keys-lost"


async def told(world: World) -> list[str]:
    """Devices whose keys are lost, as the one in office tells."""
    for server in world.servers.values():
        if server.node is not None and server.node.in_office and server.node.seat.voter is not None:
            tables = server.node.seat.voter.tables
            rows = await tables._rows(f"SELECT object FROM alert WHERE category = '{_LOST}' AND cleared_at_ns IS NULL")
            return sorted(str(row[0]) for row in rows)
    return []


def bring_back(world: World, device: str) -> bool:
    """On the first server that sees it, as ``caso-mesh vault grant --from-state`` does; whether a state folder was found that
    opens it, and that server is there."""
    server = world.servers[DEVICES[device][0]]
    if server.lost:
        return False
    mine = IdentityStore(StateFolder(server.state).identity)
    keys, mesh = mine.load_keys(), mine.load_mesh_id()
    for folder in reversed(world.former):
        former = IdentityStore(StateFolder(folder).identity)
        try:
            grant_from(
                str(world.folder / device),
                former.load_keys(),
                mesh,
                former.load_id_key(),
                keys.id,
                keys.encryption_key,
            )
        except NoKey:
            continue
        world.note("keys", f"{device} by {folder.name}")
        return True
    return False


async def unrest(world: World) -> str:
    """What is still in the way of whoever sees a device; empty when each of them opens it, and nothing else is told."""
    for device in await told(world):
        bring_back(world, device)
    for device, names in DEVICES.items():
        for name in names:
            node = world.servers[name].node
            if node is None:
                return f"{name} is not up"
            row = next((each for each in node.server.orders.devices if each.name == device), None)
            if row is None or row.erasing:
                continue
            try:
                await node.server.kept.vaults.access(row.id)
            except NoKey:
                return f"{name} has no key for {device}"
    return "".join(f"it is told that nobody opens {device}" for device in await told(world))

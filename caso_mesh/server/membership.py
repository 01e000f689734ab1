"""What makes a state folder a member of a mesh, and what it is before that."""

from __future__ import annotations

import asyncio
import os

from caso_mesh.config import Config, load_config, write_config
from caso_mesh.database import Database
from caso_mesh.identity import certificates, enrolment
from caso_mesh.identity.keys import NodeKeys, SigningKey
from caso_mesh.identity.private_files import read_private, write_private
from caso_mesh.identity.store import IdentityStore
from caso_mesh.model import joining as j
from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import (
    CasoError,
    PeerFault,
    StateDiskFailed,
    StateMissing,
    StateNotEmpty,
)
from caso_mesh.model.ids import check_name
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.queue import MIGRATIONS, Queue

ID_KEY_SIZE = 32


def is_member(folder: StateFolder) -> bool:
    """Whether this state folder belongs to a mesh. Raises ``StateDiskFailed`` if that cannot be seen."""
    try:
        return (folder.identity / "mesh.id").exists()
    except OSError as error:
        raise StateDiskFailed(path=folder.identity, detail=error.strerror or error) from error


def new_state(
    folder: StateFolder, config: Config, randomness: Randomness = os.urandom
) -> tuple[IdentityStore, NodeKeys]:
    """Makes (or takes up again) a state folder that belongs to no mesh yet.

    Raises ``StateNotEmpty``, and what ``StateFolder.create`` raises.
    """
    check_name(config.server, "server")
    if is_member(folder):
        raise StateNotEmpty(state=folder.path, server=_name_in(folder))
    folder.create()
    write_config(folder.config, config)
    identity = IdentityStore(folder.identity)
    try:
        keys = identity.load_keys()
    except StateMissing:
        keys = NodeKeys.create(randomness)
        identity.save_keys(keys)
    return identity, keys


def operator_key(identity: IdentityStore, randomness: Randomness = os.urandom) -> SigningKey:
    """The key of the local operator; made once, so that whoever joins again after a break asks for the same."""
    path = identity.operator_key_path
    data = read_private(path)
    if data is not None:
        return SigningKey.from_pem(data, path)
    key = SigningKey.create(randomness)
    write_private(path, key.to_pem())
    return key


def _name_in(folder: StateFolder) -> str:
    try:
        return load_config(folder.config).server
    except CasoError:
        return "another"


async def install(
    folder: StateFolder,
    identity: IdentityStore,
    keys: NodeKeys,
    operator: SigningKey,
    reply: j.JoinReply,
    peers: tuple[str, ...] = (),
    *,
    same_thread: bool = False,
) -> None:
    """Writes down what makes this state folder a member; the mesh's id comes last, it is the sign that all is there.
    ``peers``: addresses at which somebody of the mesh was reached."""
    roster = reply.orders.roster
    wrong = wrong_in(reply, keys, operator)
    if wrong:
        raise PeerFault(peer="the administrator", detail=wrong)
    id_key = enrolment.unwrap_id_key(keys, reply.wrapped_id_key, mesh=roster.mesh.id)
    if len(id_key) != ID_KEY_SIZE:
        raise PeerFault(peer="the administrator", detail="the id key has another size")

    def write() -> None:
        identity.save_chain(reply.certificate)
        identity.save_anchors(tuple(anchor.certificate for anchor in roster.anchors))
        identity.save_id_key(id_key)
        identity.write_operator(operator, reply.operator_certificate)

    await asyncio.to_thread(write)
    async with Database.open(folder.queue, MIGRATIONS, durable=True, same_thread=same_thread) as database:
        queue = Queue(database)
        await queue.save_orders(reply.orders)
        for address in peers:
            await queue.add_peer(address)
    await asyncio.to_thread(identity.save_mesh_id, roster.mesh.id)


def wrong_in(reply: j.JoinReply, keys: NodeKeys, operator: SigningKey) -> str | None:
    """What is not as it must be in the answer to a newcomer; its keys and the operator's are ours."""
    try:
        if not reply.certificate or certificates.public_key_of(reply.certificate[0]) != keys.public_key:
            return "the certificate is not for this server"
        chain = reply.operator_certificate
        if not chain or certificates.public_key_of(chain[0]) != operator.public_key:
            return "the operator's certificate is not for the operator of this server"
    except ValueError:
        return "what it sent is no certificate"
    roster = reply.orders.roster
    if not roster.anchors:
        return "it names no anchor of trust"
    if reply.orders.server.id != keys.id or all(row.id != keys.id for row in roster.rows):
        return "the orders are not for this server"
    return None

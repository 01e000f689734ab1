"""A small mesh in records, and a script that applies commands to a control state one after another."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
from msgspec.structs import replace

from caso_mesh.control.documents import policy_of, selection_of
from caso_mesh.control.reducer import apply, check_state, validate
from caso_mesh.control.state import ControlState
from caso_mesh.model.commands import (
    AddDevice,
    AdmitServer,
    Command,
    CreateJob,
    CreatePool,
    Delegate,
    Envelope,
    FoundMesh,
    PutList,
    PutPolicy,
    SetLiveness,
    decode,
    encode,
)
from caso_mesh.model.documents import PolicyDoc, SelectionDoc, TemplateDoc
from caso_mesh.model.features import FEATURE_LEVEL
from caso_mesh.model.ids import attempt_id, second_run_id
from caso_mesh.model.jobs import Attempt, BackupSpec, Job, JobSpec, SourceRoots, Target, TargetKind
from caso_mesh.model.mesh import Anchor, MeshInfo, Operator, Pool, Server
from caso_mesh.model.policies import Policy, SelectionList
from caso_mesh.model.states import Liveness, Role
from caso_mesh.model.storage import FACTORY_MEDIA_SETS, Device, DeviceKind, DevicePath
from caso_mesh.planning.lifecycle import next_number

SECOND = 1_000_000_000
NOW = 1_750_000_000 * SECOND
SEED = "01jh0000000000000000000000"


def server(name: str, **fields: Any) -> Server:
    return Server(name, f"node-{name}", f"key-{name}".encode(), b"x" * 32, b"wrapped", NOW, **fields)


def operator(name: str, role: Role = Role.ADMIN) -> Operator:
    return Operator(name, f"person-{name}", f"key-{name}".encode(), role, NOW)


def device(name: str, *servers: str, **fields: Any) -> Device:
    kind = DeviceKind.DISK if len(servers) == 1 else DeviceKind.SHARED
    paths = tuple(DevicePath(f"node-{place}", f"/mnt/{name}") for place in servers)
    return Device(name, f"device-{name}", kind, f"vault-{name}", paths, **fields)


def backup(*sources: str, to: Target | None = None) -> BackupSpec:
    roots = tuple(SourceRoots(f"node-{source}", (b"srv/data",)) for source in sources)
    return BackupSpec(roots, to or Target(TargetKind.ANY))


def job(name: str, spec: JobSpec, **fields: Any) -> Job:
    return Job(f"job-{name}", name, spec, "ann", NOW, **fields)


FOUND = FoundMesh(
    MeshInfo("mesh-1", "home", NOW, feature_level=FEATURE_LEVEL),
    (Anchor(b"root"),),
    server("alpha", voter=True),
    (operator("ann"),),
    FACTORY_MEDIA_SETS,
)


class Script:
    """Applies commands as the log would, through their encoded form, and checks every invariant after each."""

    def __init__(self, *, founded: bool = True) -> None:
        self.state = ControlState()
        self.at_ns = NOW
        self.index = 0
        self._ids = itertools.count(1)
        self.log: list[Envelope] = []
        if founded:
            self.do(FOUND)

    def do(self, command: Command, *, who: str = "ann", request_id: str | None = None) -> Any:
        """The result of a command, or its error raised."""
        self.index += 1
        self.at_ns += SECOND
        envelope = Envelope(request_id or f"request-{next(self._ids)}", who, self.at_ns, command)
        self.log.append(envelope)
        outcome = apply(self.state, decode(encode(envelope)), lineage=1, term=1, index=self.index)
        check_state(self.state)
        return msgspec.msgpack.decode(msgspec.msgpack.encode(outcome.value()))

    def admit(self, *names: str, alive: bool = True) -> None:
        for name in names:
            self.do(AdmitServer(server(name), operator(f"op-{name}", Role.VIEWER), None))
            if alive:
                self.do(SetLiveness(f"node-{name}", Liveness.ALIVE, None))

    def pool(self, name: str, *servers: str) -> None:
        self.do(CreatePool(Pool(name, tuple(f"node-{member}" for member in servers))))

    def device(self, name: str, *servers: str, **fields: Any) -> None:
        self.do(AddDevice(device(name, *servers, **fields)))

    def start(self, name: str, spec: JobSpec, **fields: Any) -> str:
        """Creates a job and its first run; the run's id."""
        return str(self.do(CreateJob(job(name, spec, **fields), run_now=True, at_ns=self.at_ns))["run"])

    def delegate(
        self, run: str, *, source: str, server: str, device: str, second: tuple[str, str] | None = None, set: str = ""
    ) -> str:
        """The id of the attempt. ``second``: server and device of the one beside it; ``set``: a copy that is restored."""
        row = self.state.run(run)
        number = next_number(row)
        attempt = Attempt(
            attempt_id(run, number),
            run,
            row.job,
            f"node-{source}",
            f"node-{server}",
            f"device-{device}",
            number,
            self.at_ns,
            secret=b"s",
            set=set,
        )
        other: Attempt | None = None
        if second is not None:
            beside = second_run_id(attempt.id)
            at = {"server": f"node-{second[0]}", "device": f"device-{second[1]}", "number": 1, "secret": b"t"}
            other = replace(attempt, id=attempt_id(beside, 1), run=beside, beside=attempt.id, **at)
            attempt = replace(attempt, second=other.id)
        self.do(Delegate(attempt, other), who="admin")
        return attempt.id


def put_list(mesh: Script, name: str = "home", **doc: Any) -> SelectionList:
    old = next((row for row in mesh.state.lists.values() if row.name == name), None)
    empty = old or SelectionList(f"list-{name}", name, (), "ann", NOW)
    listed = SelectionDoc(**{"paths": ("beta:/srv", "gamma:/home"), **doc})
    row = selection_of(mesh.state, empty, listed)
    mesh.do(PutList(row, SEED))
    return row


def put_policy(mesh: Script, rules: tuple[str, ...] = (), name: str = "nightly", **templates: TemplateDoc) -> Policy:
    old = next((row for row in mesh.state.policies.values() if row.name == name), None)
    empty = old or Policy(f"policy-{name}", name, (), (), "ann", NOW)
    policy = policy_of(empty, PolicyDoc(templates, rules))
    validate(mesh.state, PutPolicy(policy, SEED), at_ns=mesh.at_ns)
    mesh.do(PutPolicy(policy, SEED))
    return policy

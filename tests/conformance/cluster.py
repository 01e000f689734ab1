"""A cluster of cores that are driven by the commands of a scenario and described as the scenarios describe them."""

from __future__ import annotations

from collections.abc import Callable

from conformance.describe import (
    describe_entries,
    describe_message,
    describe_progress,
    describe_ready,
    kind_of,
    name_of,
    number_of,
)
from conformance.scenario import Words

from caso_mesh.consensus.log import Log
from caso_mesh.consensus.membership import (
    Change,
    ChangeKind,
    Membership,
    MembershipChange,
    apply_changes,
    decode_change,
)
from caso_mesh.consensus.messages import AppendReply, HeartbeatReply, Image, InstallSnapshot, Message, VoteReply
from caso_mesh.consensus.port import Entry
from caso_mesh.consensus.raft import HardState, Raft, Settings
from caso_mesh.model.errors import LogUnavailable, NotLeader

_CHANGES: dict[str, ChangeKind] = {"v": "add-voter", "l": "add-learner", "r": "remove", "u": "note"}
_UNLIMITED = 1 << 62
_DROPPED = "raft proposal dropped"
_STATES = {
    "follower": "StateFollower",
    "pre-candidate": "StatePreCandidate",
    "candidate": "StateCandidate",
    "leader": "StateLeader",
}


class SetAside(Exception):
    """The scenario needs what this core has not by design."""


class Member:
    """One core with its disk and the state that its applied entries made."""

    def __init__(self, number: int, settings: Settings, start: Image) -> None:
        self.number, self.settings = number, settings
        self.disk_start, self.disk = start.index, list[Entry]()
        self.history = [start]
        self.timeout: int | None = None
        self.hard = HardState(0, None, start.index)
        self.core = Raft(
            name_of(number),
            settings,
            log=Log(name_of(number), start.index, start.term),
            membership=start.membership,
            hard=self.hard,
            random_below=lambda n: n - 1,
            image=lambda: self.history[-1] if self.history[-1].index else None,
        )

    def process_ready(self, say: Callable[[str], None]) -> tuple[Message, ...]:
        """Carry out what is ready; the messages to send."""
        if not self.core.has_ready():
            say("<empty Ready>")
            return ()
        ready = self.core.ready()
        for line in describe_ready(ready, self.hard, _STATES):
            say(line)
        self.hard = ready.hard or self.hard
        if ready.snapshot is not None:
            self.disk_start, self.disk = ready.snapshot.index, []
        if ready.entries:
            del self.disk[ready.entries[0].index - self.disk_start - 1 :]
            self.disk.extend(ready.entries)
        for entry in ready.committed:
            self._apply(entry)
        self.core.advance()
        return ready.messages

    def compact(self, index: int) -> None:
        self.core.log.compact(index)
        del self.disk[: index - self.disk_start]
        self.disk_start = index

    def log_lines(self) -> list[str]:
        if not self.disk:
            return [f"log is empty: first index={self.disk_start + 1}, last index={self.disk_start}"]
        return describe_entries(self.disk)

    def _apply(self, entry: Entry) -> None:
        before = self.history[-1]
        membership = before.membership
        if entry.kind == "membership":
            self.core.apply_change(entry)
            membership = apply_changes(membership, decode_change(entry.data).changes)
        data = b"" if entry.kind == "membership" else entry.data
        self.history.append(Image(entry.index, entry.term, membership, before.data + data))


class Cluster:
    """Executes command lines; ``run`` returns what they print."""

    def __init__(self) -> None:
        self._members: list[Member] = []
        self._network: list[Message] = []
        self._lines: list[str] = []
        self._indent = ""
        self._quiet = False
        self._commands: dict[str, Callable[[Words, list[str]], None]] = {
            "add-nodes": self._add_nodes,
            "campaign": lambda w, _: self._member(w, 0).core.campaign(),
            "compact": self._compact,
            "deliver-msgs": self._deliver_msgs,
            "log-level": self._log_level,
            "process-ready": self._process_ready,
            "propose": self._propose,
            "propose-conf-change": self._propose_change,
            "raft-log": lambda w, _: self._say_all(self._member(w, 0).log_lines()),
            "raft-state": self._raft_state,
            "report-unreachable": lambda w, _: self._member(w, 0).core.unreachable(name_of(w.number(1))),
            "send-snapshot": self._send_snapshot,
            "set-randomized-election-timeout": self._set_timeout,
            "stabilize": self._stabilize,
            "status": self._status,
            "tick-election": lambda w, _: self._tick(w, self._member(w, 0).settings.election_ticks),
            "tick-heartbeat": lambda w, _: self._tick(w, self._member(w, 0).settings.heartbeat_ticks),
            "transfer-leadership": self._transfer,
        }

    def knows(self, name: str) -> bool:
        return name in self._commands

    def run(self, command: Words, more: list[str]) -> list[str]:
        """The lines that a command prints. ``SetAside`` for what this core has not."""
        self._lines = []
        if command.name in {"forget-leader", "process-append-thread", "process-apply-thread"}:
            raise SetAside(f"the command {command.name}")
        if command.name not in self._commands:
            return ["unknown command"]
        self._commands[command.name](command, more)
        return self._lines

    # --- commands ----------------------------------------------------------------------------------------------------

    def _add_nodes(self, command: Words, more: list[str]) -> None:
        if command.flag("async-storage-writes"):
            raise SetAside("asynchronous storage")
        if command.one("read-only", "safe") != "safe":
            raise SetAside("lease reads")
        if command.flag("disable-conf-change-validation"):
            raise SetAside("joint configurations (changes that are not validated)")
        index = int(command.one("index", "0"))
        if command.named.keys() & {"voters", "learners"} and index <= 1:
            self._error("index must be specified as > 1 due to bootstrap")
            return
        membership = Membership(
            tuple(name_of(int(n)) for n in command.named.get("voters", ())),
            tuple(name_of(int(n)) for n in command.named.get("learners", ())),
        )
        settings = Settings(
            election_ticks=3,
            heartbeat_ticks=1,
            pre_vote=command.flag("prevote"),
            check_quorum=command.flag("checkquorum"),
            step_down_on_removal=command.flag("step-down-on-removal"),
            max_message_entries=_UNLIMITED,
            max_message_bytes=_UNLIMITED,
            max_inflight_messages=int(command.one("inflight", str(_UNLIMITED))),
            max_inflight_bytes=_UNLIMITED,
            max_committed_bytes=int(command.one("max-committed-size-per-ready", str(_UNLIMITED))),
            max_uncommitted_bytes=_UNLIMITED,
        )
        start = Image(index, 1 if index else 0, membership, command.one("content", "").encode())
        for _ in range(command.number(0)):
            self._members.append(Member(len(self._members) + 1, settings, start))

    def _compact(self, command: Words, more: list[str]) -> None:
        self._member(command, 0).compact(command.number(1))
        self._say_all(self._member(command, 0).log_lines())

    def _deliver_msgs(self, command: Words, more: list[str]) -> None:
        kind = command.one("type", "")
        handled = 0
        for number in command.plain:
            handled += self._deliver(int(number), kind)
        for number in command.named.get("drop", ()):
            handled += self._deliver(int(number), kind, drop=True)
        if not handled:
            self._say("no messages")

    def _log_level(self, command: Words, more: list[str]) -> None:
        self._quiet = command.plain[0].lower() == "none"

    def _process_ready(self, command: Words, more: list[str]) -> None:
        for at, number in enumerate(command.plain):
            if len(command.plain) > 1:
                self._handle_ready(self._member(command, at))
            else:
                self._network += self._members[int(number) - 1].process_ready(self._say)

    def _propose(self, command: Words, more: list[str]) -> None:
        try:
            self._member(command, 0).core.propose(command.plain[1].encode())
        except (NotLeader, LogUnavailable):
            self._error(_DROPPED)

    def _propose_change(self, command: Words, more: list[str]) -> None:
        first = command.flag("v1")
        tokens = [token for line in more for token in line.split()]
        if command.one("transition", "auto") != "auto" or (not first and len(tokens) != 1):
            raise SetAside("joint configurations")
        changes = tuple(Change(_CHANGES[token[0]], name_of(int(token[1:]))) for token in tokens)
        core = self._member(command, 0).core
        try:
            if core.role == "leader" and core.knows(core.node) and core.change_pending:
                core.propose(b"")  # the scenarios' project lets a refused change take its place as an empty entry
            else:
                core.propose_change(MembershipChange(changes, b"v1" if first else b"v2"))
        except (NotLeader, LogUnavailable):
            self._error(_DROPPED)

    def _raft_state(self, command: Words, more: list[str]) -> None:
        for member in self._members:
            core = member.core
            voter = "(Voter)" if core.node in core.membership.voters else "(Non-Voter)"
            self._say(f"{member.number}: {_STATES[core.role]} {voter} Term:{core.term} Lead:{number_of(core.leader)}")

    def _send_snapshot(self, command: Words, more: list[str]) -> None:
        sender = self._member(command, 0)
        message = InstallSnapshot(name_of(command.number(1)), sender.core.node, sender.core.term, sender.history[-1])
        self._network.append(message)
        self._say_all(describe_message(message))

    def _set_timeout(self, command: Words, more: list[str]) -> None:
        self._member(command, 0).core.timeout = int(command.named["timeout"][0])

    def _stabilize(self, command: Words, more: list[str]) -> None:
        before = self._quiet
        if "log-level" in command.named:
            self._quiet = command.one("log-level", "").lower() == "none"
        chosen = [self._members[int(number) - 1] for number in command.plain] or self._members
        moved = True
        while moved:
            moved = False
            for member in chosen:
                if member.core.has_ready():
                    self._handle_ready(member)
                    moved = True
            for member in chosen:
                if any(message.to == member.core.node for message in self._network):
                    self._say(f"> {member.number} receiving messages")
                    self._indent = "  "
                    self._deliver(member.number, "")
                    self._indent = ""
                    moved = True
        self._quiet = before

    def _status(self, command: Words, more: list[str]) -> None:
        core = self._member(command, 0).core
        if core.role == "leader":
            self._say_all(describe_progress(core.progress))

    def _tick(self, command: Words, times: int) -> None:
        for _ in range(times):
            self._member(command, 0).core.tick()

    def _transfer(self, command: Words, more: list[str]) -> None:
        source, target = int(command.named["from"][0]), int(command.named["to"][0])
        self._members[source - 1].core.transfer(name_of(target))

    # --- parts -------------------------------------------------------------------------------------------------------

    def _member(self, command: Words, at: int) -> Member:
        return self._members[command.number(at) - 1]

    def _handle_ready(self, member: Member) -> None:
        self._say(f"> {member.number} handling Ready")
        self._indent = "  "
        self._network += member.process_ready(self._say)
        self._indent = ""

    def _deliver(self, number: int, kind: str, *, drop: bool = False) -> int:
        taken = [m for m in self._network if m.to == name_of(number) and kind in {"", kind_of(m)}]
        self._network = [m for m in self._network if not any(m is one for one in taken)]
        for message in taken:
            first, *rest = describe_message(message)
            self._say(("dropped: " if drop else "") + first)
            self._say_all(rest)
            if drop:
                continue
            core = self._members[number - 1].core
            if isinstance(message, (AppendReply, HeartbeatReply, VoteReply)) and not core.knows(message.sender):
                self._say("raft: cannot step as peer not found")
            else:
                core.step(message)
        return len(taken)

    def _error(self, line: str) -> None:
        self._lines.append(line)  # also when all else is silent

    def _say(self, line: str) -> None:
        if not self._quiet:
            self._lines.append(self._indent + line)

    def _say_all(self, lines: list[str]) -> None:
        for line in lines:
            self._say(line)

"""One member of the replicated log, without any I/O (Ongaro's thesis "Consensus: Bridging Theory and Practice", 2014).

Its user calls ``step`` for each message, ``tick`` at even intervals, ``propose``, ``propose_change``, ``read``,
``transfer``; then, while ``has_ready``: takes ``ready()``, makes durable what is in it, sends the messages, applies the
committed entries (those of kind ``membership`` by ``apply_change``), and says ``advance()``. Between ``ready`` and ``advance`` more may be stepped in, but no second
``ready`` be taken. Nothing here reads a clock or draws a random number of its own.

The leader's part is in ``leading``, the follower's in ``following``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from caso_mesh.consensus import following, leading
from caso_mesh.consensus.log import Log, payload_of
from caso_mesh.consensus.membership import Membership, MembershipChange, apply_changes, decode_change, encode_change
from caso_mesh.consensus.messages import (
    FROM_LEADER,
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Image,
    Message,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from caso_mesh.consensus.port import Entry, Position
from caso_mesh.consensus.progress import Inflights, Progress
from caso_mesh.consensus.quorum import Outcome, outcome
from caso_mesh.consensus.reads import Reads, ReadState
from caso_mesh.consensus.rules import ALL_RULES, Rules
from caso_mesh.consensus.witness import NOTHING, promise_of
from caso_mesh.model.errors import LogUnavailable, Misuse, NotLeader

Role = Literal["follower", "pre-candidate", "candidate", "leader"]


class Settings(Struct, frozen=True):
    """Limits and policies. Times are in ticks."""

    #: A follower that hears no leader for this long, and up to as much again by chance, stands for election.
    election_ticks: int = 10
    #: A leader speaks at least this often.
    heartbeat_ticks: int = 1
    #: Ask whether an election could be won before raising the term: whoever was cut off deposes nobody on return.
    pre_vote: bool = True
    #: A leader that no majority answers steps down, and nobody votes who hears a leader well.
    check_quorum: bool = True
    #: A leader that was removed, or made a learner, leads no longer.
    step_down_on_removal: bool = True
    #: One message holds at most so many entries, and bytes of them unless a single one is larger.
    max_message_entries: int = 1024
    max_message_bytes: int = 1 << 20
    #: Sent to one member and not yet confirmed.
    max_inflight_messages: int = 256
    max_inflight_bytes: int = 8 << 20
    #: Given to be applied at once.
    max_committed_bytes: int = 4 << 20
    #: Proposed and not yet applied; more is refused until then.
    max_uncommitted_bytes: int = 64 << 20


class HardState(Struct, frozen=True):
    """What must be durable before a word is said about it. ``vote`` belongs to ``term``."""

    term: int = 0
    vote: str | None = None
    commit: int = 0


class Ready(Struct, frozen=True):
    """What there is to do, in this order: write ``snapshot``, ``entries`` and ``hard`` in one durable transaction; send
    ``messages``; apply ``committed``; say ``advance``.

    ``None`` where nothing changed. ``confirms``: the highest position that this node will have confirmed by it, if that
    has risen (see ``witness``). ``durable`` is false when losing it all would break no promise.
    """

    standing: tuple[str | None, Role] | None
    hard: HardState | None
    snapshot: Image | None
    entries: tuple[Entry, ...]
    committed: tuple[Entry, ...]
    messages: tuple[Message, ...]
    reads: tuple[ReadState, ...]
    confirms: Position | None
    durable: bool


class Raft:
    """See the module. ``random_below(n)`` gives a number from 0 to n - 1; ``image`` gives the newest snapshot there is
    to send, or nothing if there is none at the moment; ``confirmed`` is the highest ``Ready.confirms`` that the disk
    holds."""

    def __init__(
        self,
        node: str,
        settings: Settings,
        *,
        log: Log,
        membership: Membership,
        hard: HardState,
        random_below: Callable[[int], int],
        image: Callable[[], Image | None],
        confirmed: Position = NOTHING,
        rules: Rules = ALL_RULES,
    ) -> None:
        self.node, self.settings, self.rules = node, settings, rules
        self.log, self.membership, self.image = log, membership, image
        self._random_below = random_below
        log.commit(hard.commit)
        self.term, self.vote = hard.term, hard.vote
        #: A vote that was lost with an old copy of the disk cannot be told from one that was not given.
        self._abstains_in = hard.term if hard.vote is None else None
        self.role: Role = "follower"
        self.leader: str | None = None
        self.elapsed = 0
        self.heartbeat_elapsed = 0
        self.timeout = 0
        self.progress: dict[str, Progress] = {}
        self.votes: dict[str, bool] = {}
        self.counted: list[bool] = []
        self.transferee: str | None = None
        self.change_index = 0
        self.uncommitted = 0
        self.reads = Reads()
        self.early_reads: list[int] = []
        self._out: list[Message] = []
        self._after: list[Message] = []
        self._answered: list[ReadState] = []
        self._given: Ready | None = None
        self._self_steps: list[Message] = []
        self._follow_members()
        self.become_follower(self.term, None)
        self._told_standing: tuple[str | None, Role] = (self.leader, self.role)
        self._told_hard = self.hard
        self._confirmed = confirmed

    # --- what its user calls -----------------------------------------------------------------------------------------

    @property
    def hard(self) -> HardState:
        return HardState(self.term, self.vote, self.log.committed)

    @property
    def in_office(self) -> bool:
        """It leads, and an entry of its term is committed: it knows everything that was committed before."""
        return self.role == "leader" and self.log.has(self.log.committed, self.term)

    def tick(self) -> None:
        """One interval has passed."""
        self.elapsed += 1
        if self.role == "leader":
            leading.tick(self)
        elif self.promotable and self.elapsed >= self.timeout:
            self.elapsed = 0
            self.campaign()

    def campaign(self) -> None:
        """Stand for election now, if this node may."""
        self._stand("pre" if self.settings.pre_vote else "real")

    def propose(self, *commands: bytes) -> Position:
        """Append commands; the position of the first. The others follow it.

        Nothing is promised until the entry of that term at that index is seen committed. Raises ``NotLeader``, and
        ``LogUnavailable`` during a transfer, after this node's removal, and while too much is uncommitted.
        """
        self._must_lead()
        return self._append_own("command", commands)

    def propose_change(self, change: MembershipChange) -> Position:
        """Append a change of membership. Raises also ``LogUnavailable`` while another one may be under way, and
        ``Misuse`` for one that ``apply_changes`` refuses."""
        self._must_lead()
        if self.change_pending and self.rules.one_change_at_a_time:
            raise LogUnavailable(detail="another change of its voters is under way")
        after = apply_changes(self.membership, change.changes)
        position = self._append_own("membership", (encode_change(change),))
        self.change_index = position.index
        if not self.rules.change_on_apply:
            self.change_members(after)
        return position

    @property
    def change_pending(self) -> bool:
        return self.change_index > self.log.applied

    def read(self, token: int) -> None:
        """Ask for a point to read at; it comes with ``token`` in ``Ready.reads``, unless the leadership ends before.
        Raises ``NotLeader``."""
        if self.role != "leader":
            raise NotLeader
        leading.read(self, token)

    def transfer(self, node: str) -> None:
        """Hand the leadership to a voter once its log is complete; given up after one election timeout. Raises
        ``NotLeader``."""
        if self.role != "leader":
            raise NotLeader
        leading.transfer(self, node)

    def unreachable(self, node: str) -> None:
        """A message to ``node`` was not delivered."""
        progress = self.progress.get(node)
        if self.role == "leader" and progress is not None and progress.pace == "replicate":
            progress.probe()

    def snapshot_done(self, node: str, *, arrived: bool) -> None:
        """The snapshot sent to ``node`` was handed over, or was not. To be said of each: nothing else is sent until then,
        or until ``node`` confirms it."""
        progress = self.progress.get(node)
        if self.role == "leader" and progress is not None and progress.pace == "snapshot":
            progress.snapshot_done(arrived=arrived)

    def knows(self, node: str) -> bool:
        return node in self.progress

    def step(self, message: Message) -> None:
        """Take in a message. Raises ``LogContradicted`` if it contradicts what was committed, or may: nothing may follow."""
        if message.term > self.term:
            if not self._rise(message):
                return
        elif message.term < self.term and not self._is_believed(message):
            self._answer_old(message)
            return
        following.must_lead_alone(self, message)
        if isinstance(message, VoteRequest):
            following.handle_vote_request(self, message)
        elif self.role == "leader":
            leading.handle(self, message)
        elif isinstance(message, FROM_LEADER):
            if self.role != "follower":
                self.become_follower(message.term, message.sender)
            self.elapsed = 0
            self.leader = message.sender
            following.handle(self, message)
        elif isinstance(message, VoteReply):
            self._count(message)
        elif isinstance(message, TimeoutNow) and self.role == "follower":
            self._stand("transfer")

    def has_ready(self) -> bool:
        return bool(
            self._out
            or self._after
            or self._answered
            or (self.leader, self.role) != self._told_standing
            or self.hard != self._told_hard
            or self.log.handed < self.log.last
            or (self.log.pending is not None and not self.log.pending_handed)
            or (self.log.pending is None and self.log.applied < self.log.committed)
        )

    def ready(self) -> Ready:
        """What there is to do; ``advance`` says that it was done."""
        if self._given is not None:
            raise Misuse("a second ready before advance")
        standing: tuple[str | None, Role] = (self.leader, self.role)
        hard, told = self.hard, self._told_hard
        entries = self.log.to_write()
        new_image = self.log.pending if not self.log.pending_handed else None
        confirms = max((promise_of(message) or NOTHING for message in self._after), default=NOTHING)
        new_confirms = confirms if confirms > self._confirmed else None
        self._given = Ready(
            standing if standing != self._told_standing else None,
            hard if hard != told else None,
            new_image,
            entries,
            self.log.to_apply(self.settings.max_committed_bytes, 1 << 30),
            (*self._out, *(message for message in self._after if message.to != self.node)),
            tuple(self._answered),
            new_confirms,
            durable=bool(entries or new_image or new_confirms or (hard.term, hard.vote) != (told.term, told.vote)),
        )
        self._self_steps = [message for message in self._after if message.to == self.node]
        self._told_standing, self._told_hard = standing, hard
        self._confirmed = new_confirms or self._confirmed
        self._out, self._after, self._answered = [], [], []
        self.log.hand()
        return self._given

    def advance(self) -> None:
        """The last ``ready`` was carried out."""
        if self._given is None:
            raise Misuse("advance without ready")
        ready, self._given = self._given, None
        own, self._self_steps = self._self_steps, []
        for message in own:
            self.step(message)
        self.log.written()
        if ready.committed:
            self.log.apply(max(self.log.applied, min(ready.committed[-1].index, self.log.committed)))
            self.uncommitted = max(0, self.uncommitted - payload_of(ready.committed))

    def apply_change(self, entry: Entry) -> None:
        """The membership becomes what an entry of kind ``membership`` in ``Ready.committed`` says; before ``advance``."""
        try:
            after = apply_changes(self.membership, decode_change(entry.data).changes)
        except Misuse:
            if self.rules.one_change_at_a_time and self.rules.change_on_apply:
                raise
            return
        self.change_members(after)

    # --- what ``leading`` and ``following`` call -----------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """It leaves with the next ``ready``."""
        self._out.append(message)

    def send_durably(self, message: Message) -> None:
        """It promises something, so it leaves, or is stepped in here, when all that is pending now is durable."""
        self._after.append(message)

    def answer_read(self, read: ReadState) -> None:
        self._answered.append(read)

    def become_follower(self, term: int, leader: str | None) -> None:
        self._reset(term)
        self.role, self.leader = "follower", leader

    @property
    def promotable(self) -> bool:
        return self.node in self.membership.voters and self.log.pending is None

    def may_vote_for(self, candidate: str) -> bool:
        """Whether the one vote of this term is still free, or is this candidate's."""
        if self.vote is not None:
            return self.vote == candidate
        return self.leader is None and self._abstains_in != self.term

    def restore_members(self, membership: Membership) -> None:
        self.membership = membership
        self.progress = {}
        self._follow_members()

    # --- terms and elections -----------------------------------------------------------------------------------------

    def _rise(self, message: Message) -> bool:
        """A message of a later term; ``False`` if it is not listened to."""
        if isinstance(message, VoteRequest):
            hears_leader = self.leader is not None and self.elapsed < self.settings.election_ticks
            if self.settings.check_quorum and hears_leader and not message.forced:
                return False
            if message.pre:
                return True  # its sender has not raised its own term either
        elif isinstance(message, VoteReply) and message.pre and message.granted:
            return True  # it repeats the term that was asked for
        leader = message.sender if isinstance(message, FROM_LEADER) else None
        self.become_follower(message.term, leader)
        return True

    def _is_believed(self, message: Message) -> bool:
        return not self.rules.replies_carry_term and isinstance(message, (AppendReply, HeartbeatReply, VoteReply))

    def _answer_old(self, message: Message) -> None:
        """Whoever speaks in an old term learns of this one; otherwise a node that once rose alone could stay alone."""
        if isinstance(message, (Append, Heartbeat)):
            if self.settings.check_quorum or self.settings.pre_vote:
                self.send_durably(AppendReply(message.sender, self.node, self.term, 0))
        elif isinstance(message, VoteRequest) and message.pre:
            self.send_durably(VoteReply(message.sender, self.node, self.term, granted=False, pre=True))

    def _stand(self, how: Literal["pre", "real", "transfer"]) -> None:
        if self.role == "leader" or not self.promotable or self._has_unapplied_change():
            return
        if how == "pre":
            self.role, self.leader = "pre-candidate", None
            self._forget_votes()
            term = self.term + 1
        else:
            self._reset(self.term + 1)
            self.role, self.vote = "candidate", self.node
            term = self.term
        pre = how == "pre"
        for voter in self.membership.voters:
            if voter == self.node:
                self.send_durably(VoteReply(self.node, self.node, term, granted=True, pre=pre))
            else:
                self.send(
                    VoteRequest(
                        voter, self.node, term, self.log.last, self.log.last_term, pre=pre, forced=how == "transfer"
                    )
                )

    def _count(self, reply: VoteReply) -> None:
        """One more vote for this candidate, or against it."""
        if self.role != ("pre-candidate" if reply.pre else "candidate"):
            return
        self.votes.setdefault(reply.sender, reply.granted)
        self.counted.append(reply.granted)
        result = self._tally()
        if result == "won" and self.role == "pre-candidate":
            self._stand("real")
        elif result == "won":
            self._lead()
        elif result == "lost":
            self.become_follower(self.term, None)

    def _tally(self) -> Outcome:
        voters = self.membership.voters
        if self.rules.votes_by_voter:
            return outcome(voters, self.votes)
        return outcome(voters, dict(zip(voters, sorted(self.counted, reverse=True), strict=False)))

    def _lead(self) -> None:
        self._reset(self.term)
        self.role, self.leader = "leader", self.node
        own = self.progress[self.node]
        own.replicate()
        own.active = True
        # There may be a change among the entries that are not applied; none is proposed until they are.
        self.change_index = self.log.last
        if self.rules.noop_on_election:
            self._append_own("noop", (b"",))
        else:
            leading.send_appends(self)

    def _reset(self, term: int) -> None:
        if self.term != term or not self.rules.vote_until_term_rises:
            self.term, self.vote = term, None
        self.leader = None
        self.elapsed = self.heartbeat_elapsed = 0
        self.timeout = self.settings.election_ticks + self._random_below(self.settings.election_ticks)
        self.transferee = None
        self._forget_votes()
        for node in self.progress:
            match = self.log.last if node == self.node else 0
            self.progress[node] = self._new_progress(node, match, self.log.last + 1, active=False)
        self.change_index = 0
        self.uncommitted = 0
        self.reads = Reads()
        self.early_reads = []

    def _forget_votes(self) -> None:
        self.votes, self.counted = {}, []

    def _has_unapplied_change(self) -> bool:
        return any(
            entry.kind == "membership" for entry in self.log.to_apply(1 << 60, 1 << 60)
        )  # an elected node counts by its own membership, so that one has to be the newest that is committed

    # --- entries and members -----------------------------------------------------------------------------------------

    def _must_lead(self) -> None:
        if self.role != "leader":
            raise NotLeader
        if self.node not in self.progress:
            raise LogUnavailable(detail="this server is no voter any more")
        if self.transferee is not None:
            raise LogUnavailable(detail=f"the leadership is being handed to {self.transferee}")

    def _append_own(self, kind: Literal["noop", "command", "membership"], data: tuple[bytes, ...]) -> Position:
        first = self.log.last + 1
        entries = tuple(Entry(first + at, self.term, kind, each) for at, each in enumerate(data))
        size = payload_of(entries)
        if size and self.uncommitted and self.uncommitted + size > self.settings.max_uncommitted_bytes:
            raise LogUnavailable(detail="too much waits to be committed")
        self.uncommitted += size
        self.log.append(entries)
        own_ack = AppendReply(self.node, self.node, self.term, self.log.last)
        self.send_durably(own_ack)
        if not self.rules.own_ack_after_commit:
            leading.handle(self, own_ack)
        leading.send_appends(self)
        return Position(self.term, first)

    def change_members(self, membership: Membership) -> None:
        self.membership = membership
        self._follow_members()
        if self.role != "leader":
            return
        if self.node not in membership.voters:
            if self.settings.step_down_on_removal:
                self.become_follower(self.term, None)
            return
        leading.members_changed(self)

    def _follow_members(self) -> None:
        """Progress of those who take part, sorted, so that nothing depends on the order of changes."""
        found = {}
        for node in self.membership.nodes:
            known = self.progress.get(node)
            if known is None:
                known = self._new_progress(node, 0, max(self.log.last, 1), active=True)
            known.learner = node in self.membership.learners
            found[node] = known
        self.progress = found

    def _new_progress(self, node: str, match: int, next_index: int, *, active: bool) -> Progress:
        inflights = Inflights(self.settings.max_inflight_messages, self.settings.max_inflight_bytes)
        learner = node in self.membership.learners
        return Progress(match, next_index, inflights, learner=learner, active=active)

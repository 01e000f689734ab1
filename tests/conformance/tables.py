"""The tables of quorums and of changes of membership: each line is computed by itself."""

from __future__ import annotations

from conformance.describe import describe_membership, describe_progress, name_of
from conformance.scenario import Words

from caso_mesh.consensus.log import Log
from caso_mesh.consensus.membership import Change, ChangeKind, Membership, apply_changes
from caso_mesh.consensus.quorum import committed_index, outcome
from caso_mesh.consensus.raft import HardState, Raft, Settings
from caso_mesh.model.errors import Misuse

_OUTCOMES = {"won": "VoteWon", "pending": "VotePending", "lost": "VoteLost"}
_CHANGES: dict[str, ChangeKind] = {"v": "add-voter", "l": "add-learner", "r": "remove", "u": "note"}
_REFUSALS = {"more than one voter changed at once": "more than one voter changed without entering joint config"}


def committed(command: Words) -> list[str]:
    """The index that a majority has, and a picture of who is how far."""
    ids = [int(each) for each in command.named.get("cfg", ())]
    given = dict(zip(ids, command.named.get("idx", ()), strict=True))
    indexes = {voter: int(index) for voter, index in given.items() if index != "_"}
    result = committed_index([name_of(voter) for voter in ids], {name_of(n): index for n, index in indexes.items()})
    if result is None:
        return ["<empty majority quorum>∞"]
    size = len(ids)
    lines = [" " * size + "    idx"]
    for voter in sorted(ids):
        own = indexes.get(voter, 0)
        below = sum(1 for other in ids if indexes.get(other, 0) < own)
        bar = "x" * below + ">" + " " * (size - below) if voter in indexes else "?" + " " * size
        lines.append(f"{bar} {own:5d}    (id={voter:x})")
    return [*lines, str(result)]


def vote(command: Words) -> list[str]:
    ids = [int(each) for each in command.named.get("cfg", ())]
    given = dict(zip(ids, command.named.get("votes", ()), strict=True))
    votes = {name_of(voter): vote == "y" for voter, vote in given.items() if vote != "_"}
    return [_OUTCOMES[outcome([name_of(voter) for voter in ids], votes)]]


class Changes:
    """Changes of membership one after the other, with the progress that a leader keeps of each member."""

    def __init__(self) -> None:
        self._done = 0
        self._core = Raft(
            name_of(999),
            Settings(),
            log=Log(name_of(999), 0, 0),
            membership=Membership(),
            hard=HardState(),
            random_below=lambda n: 0,
            image=lambda: None,
        )

    def simple(self, tokens: list[str]) -> list[str]:
        self._core.log = Log(name_of(999), self._done, 1)
        self._done += 1
        changes = tuple(Change(_CHANGES[token[0]], name_of(int(token[1:]))) for token in tokens)
        try:
            after = apply_changes(self._core.membership, changes)
        except Misuse as refusal:
            return [_REFUSALS.get(str(refusal), str(refusal))]
        self._core.change_members(after)
        return [describe_membership(after), *describe_progress(self._core.progress)]

"""Rules of the product that are broken on purpose, to see that the simulation notices."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable
from typing import Any
from unittest import mock

from mesh.simulation import storage_mutants as storage
from msgspec import structs

from caso_mesh.admin.catalogs import CatalogIntake
from caso_mesh.admin.following import Following
from caso_mesh.admin.intake import Intake
from caso_mesh.admin.keeping import Followers
from caso_mesh.consensus.driver import Driver
from caso_mesh.model.facts import CatalogDetail
from caso_mesh.model.jobs import Attempt, Run
from caso_mesh.model.orders import Authority, Orders
from caso_mesh.model.states import ATTEMPT_GOOD, AttemptState, RunState
from caso_mesh.planning import lifecycle
from caso_mesh.server.attempts import Attempts
from caso_mesh.server.endings import Endings
from caso_mesh.server.facts import FactWriter
from caso_mesh.server.node import ServerNode
from caso_mesh.server.queue import Queue

Broken = Callable[[], contextlib.AbstractContextManager[Any]]


@contextlib.contextmanager
def _cursor_before_commit() -> Any:
    """The cursor over a journal moves first, what its facts decide is committed then."""
    push, close = Intake._push, Intake._close

    waiting: contextvars.ContextVar[list[tuple[Any, ...]]] = contextvars.ContextVar("waiting")

    async def late_push(self: Intake, peer: Any, request: Any, link: Any) -> Any:
        mine: list[tuple[Any, ...]] = []
        waiting.set(mine)
        reply = await push(self, peer, request, link)
        for given in mine:
            await close(self, *given)
        return reply

    async def later(self: Intake, *given: Any) -> None:
        waiting.get().append(given)

    with mock.patch.object(Intake, "_push", late_push), mock.patch.object(Intake, "_close", later):
        yield


def _late_success_counts() -> Any:
    """A late success closes its part once more."""
    late = lifecycle._late

    def counts(run: Run, part: Any, attempt: Attempt, state: AttemptState, *, at_ns: int, set: str | None) -> Any:
        if state not in ATTEMPT_GOOD or attempt.state in ATTEMPT_GOOD:
            return late(run, part, attempt, state, at_ns=at_ns, set=set)
        ended = structs.replace(attempt, state=state, failure=None, ended_at_ns=at_ns)
        changed = lifecycle._with(run, lifecycle._end(part, RunState(state.value), set=set), at_ns=at_ns)
        return lifecycle.Closed(changed, ended, changed=True)

    return mock.patch.object(lifecycle, "_late", counts)


def _numbers_reused() -> Any:
    """The next attempt has the number of the last one."""
    return mock.patch.object(lifecycle, "next_number", lambda run: max(1, sum(part.attempts for part in run.parts)))


def _lower_orders() -> Any:
    """Orders are taken however old they are."""
    take = ServerNode.take_orders

    async def any_orders(self: ServerNode, peer: Any, orders: Orders) -> None:
        self.orders = structs.replace(self.orders, authority=Authority(0, 0, 0))
        await take(self, peer, orders)

    return mock.patch.object(ServerNode, "take_orders", any_orders)


def _no_fence() -> Any:
    """The source's server does not end earlier attempts at a part before it begins the next."""

    async def nothing(self: Attempts, order: Any) -> None:
        return

    return mock.patch.object(Attempts, "_fence", nothing)


def _vault_not_asked() -> Any:
    """A daemon that starts again does not look whether a set was published."""

    async def nothing(self: Endings, local: Any) -> None:
        return

    return mock.patch.object(Endings, "_look", nothing)


def _begun_again() -> Any:
    """A daemon that starts again has forgotten which attempts had begun."""
    attempts = Queue.attempts

    async def fresh(self: Queue) -> Any:
        held = await attempts(self)
        return {id_: structs.replace(each, began_at_ns=None) if not each.ended else each for id_, each in held.items()}

    return mock.patch.object(Queue, "attempts", fresh)


def _unknown_is_forgotten() -> Any:
    """A voter takes runs that its log has not come to for forgotten ones."""

    async def at_once(self: Following) -> int:
        return 0

    return mock.patch.object(Following, "applied", at_once)


def _founder_elects_itself() -> Any:
    """A new member of the log that was its founder does not wait to be sent everything."""
    return mock.patch.object(Driver, "_waits", lambda self: False)


def _pruned_too_early() -> Any:
    """Facts are pruned at their origin, and records at the administrator, whatever other voters hold."""
    return mock.patch.object(Followers, "of", lambda self, node: 1 << 60)


def _no_detail_anew() -> Any:
    """A catalog detail that is lost is not made anew out of the tree."""

    async def raises(self: CatalogIntake, backup: Any, path: Any, reason: Exception) -> None:
        raise reason

    return mock.patch.object(CatalogIntake, "_take_made", raises)


def _lost_detail_untold() -> Any:
    """Of a set whose catalog detail was lost before it was told of, only the set is told."""
    append = FactWriter.append

    async def without(self: FactWriter, *new: Any) -> Any:
        return await append(self, *(fact for fact in new if not isinstance(fact, CatalogDetail) or fact.size))

    return mock.patch.object(FactWriter, "append", without)


MUTANTS: dict[str, Broken] = {
    "cursor-before-commit": _cursor_before_commit,
    "late-success-counts": _late_success_counts,
    "numbers-reused": _numbers_reused,
    "lower-orders": _lower_orders,
    "no-fence": _no_fence,
    "vault-not-asked": _vault_not_asked,
    "begun-again": _begun_again,
    "unknown-is-forgotten": _unknown_is_forgotten,
    "founder-elects-itself": _founder_elects_itself,
    "pruned-too-early": _pruned_too_early,
    "no-detail-anew": _no_detail_anew,
    "lost-detail-untold": _lost_detail_untold,
    "erase-untold": storage.erase_untold,
    "deletion-untold": storage.deletion_untold,
    "erase-unasked": storage.erase_unasked,
    "protection-unseen": storage.protection_unseen,
    "not-looked-again": storage.not_looked_again,
    "the-last-expires": storage.the_last_expires,
    "unfinished-untold": storage.unfinished_untold,
    "canceled-too-soon": storage.canceled_too_soon,
    "retired-goes-on": storage.retired_goes_on,
    "keys-kept": storage.keys_kept,
    "used-is-deleted": storage.used_is_deleted,
}

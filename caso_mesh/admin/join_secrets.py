"""The secrets in links of servers and operators: one for each request, and guessing them is limited."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from caso_mesh.admin.ports import Caller, Facts, done_before
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.identity import tokens
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.errors import CasoError, InvalidValue, RateLimited, WrongState
from caso_mesh.model.facts import Audit

#: Tries to join with no good secret in a minute: from one address, from all.
_RATE, _RATE_OF_ALL, _RATE_WINDOW_S = 10, 100, 60.0
_SHORTEST_TTL_S, _LONGEST_TTL_S = 1.0, 30 * 86400.0
#: Answers to repeated requests that only this office can give again.
_REMEMBERED = 1000


class JoinSecrets:
    """The secrets that this office made, and who guesses."""

    def __init__(self, *, keeper: ControlKeeper, clock: Clock, randomness: Randomness) -> None:
        self._keeper = keeper
        self._clock = clock
        self._randomness = randomness
        self._made: dict[str, tuple[bytes, int]] = {}
        self._guesses = _Guesses()

    def make(self, caller: Caller, ttl_s: float) -> tuple[bytes, int]:
        """The secret of a request, and when it ends (ns); the same when it is asked again. Raises ``InvalidValue``,
        ``WrongState`` for one that an earlier office made."""
        if not _SHORTEST_TTL_S <= ttl_s <= _LONGEST_TTL_S:
            raise InvalidValue(value=ttl_s, what="ttl", expected="It lies between one second and 30 days")
        made = self._made.get(caller.request_id)
        if made is None:
            if done_before(self._keeper, caller) is not None:
                # only its digest is kept: nobody can show that link again
                raise WrongState(kind="token", name=caller.request_id.rpartition("/")[2], state="made already")
            expires = self._clock.now_ns() + int(ttl_s * 1e9)
            made = self._made[caller.request_id] = (tokens.new_secret(self._randomness), expires)
            while len(self._made) > _REMEMBERED:
                del self._made[next(iter(self._made))]
        return made

    def shown(self, token: bytes, host: str) -> None:
        """Somebody shows the secret with the digest ``token``. Only those are counted whose secret is no good: guessing is
        limited, joining is not. Raises ``RateLimited``."""
        known = self._keeper.state.tokens.get(token)
        if known is None or known.used_by is not None or known.expires_at_ns < self._clock.now_ns():
            self._guesses.count(host, self._clock.monotonic_s())


@asynccontextmanager
async def audited(
    facts: Facts, who: str, what: str, source: str, fields: dict[str, Any] | None = None
) -> AsyncIterator[None]:
    """What came of showing a secret in the block goes into the audit log, unless it was shown too often."""
    outcome = "refused"
    try:
        yield
        outcome = "done"
    except CasoError as error:
        outcome = error.code
        raise
    finally:
        if outcome != RateLimited.code:
            await facts.append(Audit(who, what, "enrol", outcome=outcome, source=source, fields=fields or {}))


class _Guesses:
    """Counts guesses from one address, and from all together. Bounded whatever comes."""

    def __init__(self) -> None:
        self._of: dict[str, deque[float]] = {}
        self._all: deque[float] = deque()

    def count(self, host: str, now_s: float) -> None:
        """Raises ``RateLimited``."""
        since = now_s - _RATE_WINDOW_S
        while self._all and self._all[0] < since:
            self._all.popleft()
        for other in [other for other, tries in self._of.items() if tries[-1] < since]:
            del self._of[other]
        mine = self._of.get(host)
        while mine and mine[0] < since:
            mine.popleft()
        if len(self._all) >= _RATE_OF_ALL or (mine is not None and len(mine) >= _RATE):
            raise RateLimited(peer=host)
        self._all.append(now_s)
        self._of.setdefault(host, deque()).append(now_s)

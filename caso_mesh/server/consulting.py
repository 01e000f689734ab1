"""What a worker asks the administrator in office, by way of its daemon: work about a device as a whole is nothing that a
server does by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from caso_mesh.jobs import messages as say
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock
from caso_mesh.model.device_work import CatalogsStand, DeviceCompared, EraseGranted
from caso_mesh.model.errors import CasoError, NotWithoutAdmin, Unavailable, from_wire
from caso_mesh.model.fates import Fate, FateAsked
from caso_mesh.model.ids import is_local
from caso_mesh.model.jobs import Failure, Progress
from caso_mesh.model.nodes import ProgressReport
from caso_mesh.model.orders import AttemptOrder
from caso_mesh.server.admin_link import AdminLink
from caso_mesh.wire.typed import ask

log = logging.getLogger(__name__)

#: An administrator that is away, or changes, is waited for so long, and asked again after a pause.
PATIENCE_S, _PAUSE_S = 60.0, 0.5
#: How long an answer may take: of sets that nobody knew it comes when all is in the tables.
_ANSWER_S = 120.0
#: What it takes to ask why an attempt is over: its worker waits for it before it ends.
_FATE_S = 5.0


class AdminPort(Protocol):
    """What attempts need of an administrator."""

    async def report(self, progress: tuple[Progress, ...]) -> None: ...

    async def ask(self, order: AttemptOrder, question: say.Consults) -> say.Answered: ...

    async def why_over(self, order: AttemptOrder) -> str: ...


class Consulting:
    """``admin`` is the way to the one in office."""

    def __init__(self, admin: Callable[[], AdminLink], clock: Clock) -> None:
        self._admin = admin
        self._clock = clock

    async def report(self, progress: tuple[Progress, ...]) -> None:
        """How far running attempts are."""
        await self._admin().notify("attempt.progress", ProgressReport(progress))

    async def ask(self, order: AttemptOrder, question: say.Consults) -> say.Answered:
        """The answer; a refusal is one, and so is that nobody could be asked."""
        if is_local(order.attempt):
            error = NotWithoutAdmin(attempt=order.attempt)
            return say.Answered(failure=Failure(error.code, error.fields))
        until_s = self._clock.monotonic_s() + PATIENCE_S
        while True:
            try:
                return await self._ask(question)
            except CasoError as refused:
                if not isinstance(refused, Unavailable) or self._clock.monotonic_s() >= until_s:
                    return say.Answered(failure=Failure(refused.code, refused.fields))
                log.info("the administrator is asked again for %s: %s", order.attempt, refused)
            await asyncio.sleep(_PAUSE_S)

    async def why_over(self, order: AttemptOrder) -> str:
        """Why an attempt is to end though nobody canceled it, for its job log; empty if nobody can tell now."""
        if is_local(order.attempt):
            return ""
        try:
            fate = await ask(self._admin().get(), "attempt.fate", FateAsked(order.attempt), Fate, timeout_s=_FATE_S)
        except CasoError as error:
            log.info("why the attempt %s is over cannot be told: %s", order.attempt, error)
            return ""
        failure = fate.failure
        said = "" if failure is None else from_wire({"code": failure.code, "fields": failure.fields}).message
        match fate.state:
            case "failed" | "interrupted" if fate.other:
                return f"{fate.other} ended it{f': {said}' if said else ', and does not say why'}"
            case "recovered":
                return f"the administrator gave it up{f': {said}' if said else ''}"
            case _:
                return ""

    async def _ask(self, question: say.Consults) -> say.Answered:
        admin = self._admin().get()
        if question.found is not None:
            compared = await ask(admin, "device.found", question.found, DeviceCompared, timeout_s=_ANSWER_S)
            return say.Answered(compared=compared)
        if question.catalogs is not None:
            stand = await ask(admin, "device.catalogs", question.catalogs, CatalogsStand, timeout_s=_ANSWER_S)
            return say.Answered(catalogs=stand)
        if question.erase is not None:
            grant = await ask(admin, "device.may-erase", question.erase, EraseGranted, timeout_s=_ANSWER_S)
            return say.Answered(grant=grant)
        if question.lacks is not None:
            await ask(admin, "device.lacks", question.lacks, v.Done, timeout_s=_ANSWER_S)
        return say.Answered()

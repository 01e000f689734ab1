"""Rules about sets, devices and what is canceled that are broken on purpose, to see that the simulation notices."""

from __future__ import annotations

import contextlib
from typing import Any
from unittest import mock

from msgspec import structs

from caso_mesh.admin import granting, retaining, work
from caso_mesh.admin.erasing import Erasing
from caso_mesh.admin.policies import Policies
from caso_mesh.control import policies, reducer
from caso_mesh.jobs import erasing, inventory
from caso_mesh.jobs import messages as say
from caso_mesh.model import views as v
from caso_mesh.model.canceling import RunCanceled
from caso_mesh.model.commands import DeleteMediaSet
from caso_mesh.model.device_work import EraseGranted
from caso_mesh.model.facts import SetDeleted, VaultErased
from caso_mesh.planning import retention
from caso_mesh.server import tasks
from caso_mesh.server.consulting import Consulting
from caso_mesh.server.facts import FactWriter


def untold(kind: type) -> Any:
    """Facts of a kind are not told."""
    append = FactWriter.append

    async def without(self: FactWriter, *new: Any) -> Any:
        return await append(self, *(fact for fact in new if not isinstance(fact, kind)))

    return mock.patch.object(FactWriter, "append", without)


def erase_untold() -> Any:
    """What was in an erased vault is not told to be gone."""
    return untold(VaultErased)


def deletion_untold() -> Any:
    """A set that was deleted is not told to be gone."""
    return untold(SetDeleted)


def erase_unasked() -> Any:
    """A server erases without asking the administrator."""
    ask = Consulting.ask

    async def granted(self: Consulting, order: Any, question: say.Consults) -> say.Answered:
        if question.erase is None:
            return await ask(self, order, question)
        return say.Answered(grant=EraseGranted({}, self._clock.now_ns()))

    return mock.patch.object(Consulting, "ask", granted)


@contextlib.contextmanager
def protection_unseen() -> Any:
    """Neither the administrator nor the server looks whether something protected would be erased."""

    async def nothing(*given: Any, **more: Any) -> None:
        return

    with (
        mock.patch.object(Erasing, "_check_sets", nothing),
        mock.patch.object(erasing, "_check_protection", lambda *given: None),
        mock.patch.object(erasing, "_check_lock", lambda *given: None),
    ):
        yield


def not_looked_again() -> Any:
    """What the administrator names is missing, without a second look."""
    return mock.patch.object(inventory, "_look_again", lambda task, desk, vault, named: sorted(named))


def the_last_expires() -> Any:
    """The last good set of a line goes by itself."""
    judge = retention.judge

    def judged(*given: Any, **more: Any) -> Any:
        found = judge(*given, **more)
        return {
            id_: structs.replace(each, kept_by=()) if each.kept_by == (retention.Keep.LAST_GOOD,) else each
            for id_, each in found.items()
        }

    return mock.patch.object(retaining, "judge", judged)


def unfinished_untold() -> Any:
    """An erase that is unfinished is no alert."""

    async def nothing(self: Erasing) -> None:
        return

    return mock.patch.object(Erasing, "look", nothing)


def canceled_too_soon() -> Any:
    """A run that is only asked to end is told to be canceled."""

    def canceled(run: str, state: str, already: bool) -> RunCanceled:
        return RunCanceled(run, "canceled", already)

    return mock.patch.object(work, "RunCanceled", canceled)


def retired_goes_on() -> Any:
    """A server writes on a medium that was retired."""
    medium_for = tasks.medium_for

    def appended(known: Any, media_set: Any, device: str, node: str, name: str, now_ns: int, *more: Any) -> Any:
        return medium_for(known, media_set, device, node, name, now_ns)

    return mock.patch.object(tasks, "medium_for", appended)


def keys_kept() -> Any:
    """A new machine is handed no key of a device."""
    return mock.patch.object(granting, "lacking", lambda places: [])


@contextlib.contextmanager
def used_is_deleted() -> Any:
    """A media set is deleted though it is used."""

    def deletes(state: Any, command: DeleteMediaSet, context: Any) -> Any:
        return policies.Effect(None, (policies.Put("media_sets", command.name, None),))

    async def deleted(self: Policies, caller: Any, request: Any) -> Any:
        await self._do(caller, DeleteMediaSet(request.name))
        return v.Done()

    with (
        mock.patch.dict(reducer._HANDLERS, {DeleteMediaSet: deletes}),
        mock.patch.object(Policies, "_mediaset_delete", deleted),
    ):
        yield

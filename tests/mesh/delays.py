"""What is told of later is told of much later: where a test takes for granted what is only so a moment afterwards, it fails.

``CASO_MESH_TEST_DELAYS=KIND[,KIND...][:SEED]`` in the environment of a test run makes each of ``KINDS`` wait, for a time that
the seed draws, in all nodes of the tests: those in this process, and the daemons that the warm parent forks. A test that then
fails either waits for too little, or the product breaks what it promises. Not a test itself, and no part of the fixed set.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import inspect
import os
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

VARIABLE = "CASO_MESH_TEST_DELAYS"
SHORTEST_S, LONGEST_S = 0.2, 1.5

#: By kind, what waits before it does anything: coroutine functions, and asynchronous generators before each item.
KINDS: dict[str, tuple[str, ...]] = {
    "alarms": (
        "caso_mesh.admin.alarms:Alarms.once",
        "caso_mesh.admin.alarms:Alarms.begins",
        "caso_mesh.admin.alarms:Alarms.ends",
        "caso_mesh.admin.alarms:Alarms.over",
        "caso_mesh.server.facts:FactWriter.alert",
    ),
    "intake": ("caso_mesh.admin.intake:Intake._push",),
    "duties": (
        "caso_mesh.admin.duties:_keep",
        "caso_mesh.control.keeper:ControlKeeper.changes",
        "caso_mesh.admin.tables:Tables.wait_for_change",
    ),
    "audit": ("caso_mesh.api.router:Router._audit", "caso_mesh.server.refusals:Refusals._write"),
    "catalogs": (
        "caso_mesh.admin.catalogs:CatalogIntake._work_off",
        "caso_mesh.admin.catalogs:CatalogIntake._drop",
        "caso_mesh.server.catalogs:OwnCatalogs._pass",
    ),
    "journal": ("caso_mesh.journal.journal:Journal.wait_beyond",),
    "heartbeats": ("caso_mesh.server.beating:Heart._pause",),
    "following": ("caso_mesh.admin.following:Following._step",),
    "orders": ("caso_mesh.admin.ordering:Ordering._change",),
    "facts": ("caso_mesh.journal.journal:Journal.append",),
    "attempts": ("caso_mesh.server.attempts:Attempts._write",),
}


def inject() -> None:
    """Makes what the environment names wait, in this process and whatever it forks. Raises ``ValueError`` for what is no kind."""
    kinds, _, seed = os.environ.get(VARIABLE, "").partition(":")
    for kind in filter(None, kinds.split(",")):
        if kind not in KINDS:
            raise ValueError(f"{VARIABLE}: {kind} is none of {', '.join(KINDS)}")
        draw = drawing(kind, seed)
        for place in KINDS[kind]:
            owner, name = find(place)
            setattr(owner, name, late(getattr(owner, name), draw))


def find(place: str) -> tuple[Any, str]:
    """What has the attribute, and its name."""
    module, _, path = place.partition(":")
    *outer, name = path.split(".")
    return functools.reduce(getattr, outer, importlib.import_module(module)), name


def drawing(kind: str, seed: str) -> Callable[[], float]:
    """Draws pauses in seconds."""
    chance = random.Random(f"{kind}:{seed}")
    return lambda: chance.uniform(SHORTEST_S, LONGEST_S)


def late(call: Callable[..., Any], draw: Callable[[], float]) -> Callable[..., Any]:
    """The same, after a pause; of a generator each item."""
    if inspect.isasyncgenfunction(call):

        @functools.wraps(call)
        async def items(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            async with contextlib.aclosing(call(*args, **kwargs)) as found:
                async for item in found:
                    await asyncio.sleep(draw())
                    yield item

        return items

    @functools.wraps(call)
    async def waits(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(draw())
        return await call(*args, **kwargs)

    return waits

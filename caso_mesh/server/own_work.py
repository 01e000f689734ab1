"""What this server runs by itself, beside what the administrator has delegated to it: both in the same workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable

from msgspec import structs

from caso_mesh.model.nodes import DeviceLoad
from caso_mesh.model.orders import AttemptOrder, Orders


class OwnWork:
    """``use`` takes all attempts there are, in the form of orders; ``changed`` is told when those of the own work have
    changed."""

    def __init__(self, orders: Orders, use: Callable[[Orders], None], changed: Callable[[], None]) -> None:
        self._orders = orders
        self._use = use
        self._changed = changed
        self._attempts: dict[str, AttemptOrder] = {}

    def ordered(self, orders: Orders) -> None:
        """There are other orders."""
        self._orders = orders
        self._tell()

    def put(self, attempts: Collection[AttemptOrder]) -> None:
        """These are the attempts of the own work now, in place of those before."""
        found = {order.attempt: order for order in attempts}
        if found != self._attempts:
            self._attempts = found
            self._tell()
            self._changed()

    def has(self, attempt: str) -> bool:
        """Whether an attempt is of the own work."""
        return attempt in self._attempts

    def loads(self) -> tuple[DeviceLoad, ...]:
        """How many jobs of the own work each device has."""
        return _loads(order.device for order in self._attempts.values())

    def delegated_loads(self, holding: Collection[str]) -> tuple[DeviceLoad, ...]:
        """The same of what was delegated to this server and has not ended (``holding``)."""
        mine = (order for order in self._orders.attempts if order.media == self._orders.server.id)
        return _loads(order.device for order in mine if order.attempt in holding)

    def _tell(self) -> None:
        everything = (*self._orders.attempts, *self._attempts.values())
        self._use(structs.replace(self._orders, attempts=everything))


def _loads(devices: Iterable[str]) -> tuple[DeviceLoad, ...]:
    counts = Counter(devices)
    return tuple(DeviceLoad(device, jobs) for device, jobs in sorted(counts.items()))

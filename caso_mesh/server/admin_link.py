"""The way of this server to the administrator in office."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from caso_mesh.model.errors import LinkLost, NoAdmin, ServerNotLinked, ServerTwice, StrangeCertificates, VotersUnknown
from caso_mesh.server.links import LinkBook
from caso_mesh.wire.codec import to_wire
from caso_mesh.wire.typed import Callee


class AdminLink:
    """The way to the administrator in office, wherever it is. ``unknown``: see ``Bearings.unknown``."""

    def __init__(
        self,
        book: LinkBook,
        admin: Callable[[], str | None],
        own_name: str,
        unknown: Callable[[Callable[[str], bool]], tuple[str, str] | None] = lambda linked: None,
    ) -> None:
        self._book = book
        self._admin = admin
        self._own_name = own_name
        self._unknown = unknown

    def get(self) -> Callee:
        """Raises ``NoAdmin``."""
        admin = self._admin()
        if admin is None or not self._book.linked(admin):
            twin = self._book.turned_away()
            if twin is not None:
                raise ServerTwice(server=self._own_name, address=twin.fields["address"])
            why = self._book.strange()
            if why is not None:
                raise StrangeCertificates(server=self._own_name, detail=why.fields["detail"])
            unknown = self._unknown(self._book.linked)
            if unknown is not None:
                raise VotersUnknown(server=self._own_name, admin=unknown[0], voters=unknown[1])
            raise NoAdmin(server=self._own_name)
        return self._book.get(admin)

    async def notify(self, method: str, params: Struct) -> None:
        """Tells the administrator, if there is one; what cannot be told now is not repeated."""
        try:
            await self.get().notify(method, to_wire(params))
        except (NoAdmin, LinkLost, ServerNotLinked):
            return

"""The links by which servers and operators may join: which there are, and taking one back."""

from __future__ import annotations

from caso_mesh.admin.ports import Answer, Caller, Submit, done_before
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.state import ControlState
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock
from caso_mesh.model.commands import RevokeToken
from caso_mesh.model.ids import resolve_prefix, token_id
from caso_mesh.model.join_links import TokenList, TokenListRequest, TokenName, TokenRow
from caso_mesh.model.mesh import JoinToken
from caso_mesh.model.units import format_instant


class JoinLinks:
    """Answers of the administrator. Of a secret there is nothing but its digest."""

    def __init__(self, *, keeper: ControlKeeper, submit: Submit, clock: Clock) -> None:
        self._keeper = keeper
        self._submit = submit
        self._clock = clock

    def handlers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return {"token.list": self._list, "token.revoke": self._revoke}

    async def _list(self, caller: Caller, request: TokenListRequest) -> TokenList:
        state, now_ns = self._keeper.state, self._clock.now_ns()
        tokens = sorted(state.tokens.values(), key=lambda token: (-token.expires_at_ns, token.digest))
        rows = (_row(state, token, now_ns) for token in tokens)
        return TokenList(tuple(row for row in rows if request.all or row.state == "open"))

    async def _revoke(self, caller: Caller, request: TokenName) -> v.Done:
        """Raises ``NotFound``, ``Ambiguous``, ``WrongState`` for one that was used."""
        if done_before(self._keeper, caller) is None:
            digests = {token_id(digest): digest for digest in self._keeper.state.tokens}
            command = RevokeToken(digests[resolve_prefix(request.token, digests, "join link")])
            await self._submit(command, who=caller.who, request_id=caller.request_id)
        return v.Done()


def _row(state: ControlState, token: JoinToken, now_ns: int) -> TokenRow:
    used_by = None
    if token.used_by is not None:
        operator = state.operators.get(token.used_by)
        used_by = operator.name if operator is not None else state.name_of(token.used_by)
    is_open = token.used_by is None and token.expires_at_ns >= now_ns
    return TokenRow(
        id=token_id(token.digest),
        state="used" if used_by is not None else "open" if is_open else "expired",
        expires=format_instant(token.expires_at_ns) or "",
        uses_left=int(is_open),
        created_by=token.created_by,
        operator=token.grant.name if token.grant is not None else None,
        used_by=used_by,
    )

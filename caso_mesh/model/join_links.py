"""What is asked and shown of links by which servers and operators join. Their secrets are shown once, when they are made."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class TokenListRequest(Struct, frozen=True):
    """``all``: also those that are used or have expired, as long as they are remembered."""

    all: bool = False


class TokenRow(Struct, frozen=True):
    """``id`` follows from the digest of the secret and does not give it away. ``operator``: whom it makes an operator; ``None``:
    it is for a server. ``used_by``: who joined by it. ``uses_left`` is 1 while it is open, else 0."""

    id: str
    state: Literal["open", "used", "expired"]
    expires: str
    uses_left: int
    created_by: str
    operator: str | None = None
    used_by: str | None = None


class TokenList(Struct, frozen=True):
    """The last to expire first."""

    tokens: tuple[TokenRow, ...]


class TokenName(Struct, frozen=True):
    """The id of a link, or a unique beginning of it."""

    token: str

"""What a call came to whose effect does not lie in the control state, kept under its request id."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class RememberCall(Struct, frozen=True, tag="remember-call", tag_field="do"):
    """Changes nothing: its envelope names the request, and ``result`` (plain wire values) is what that came to. Whoever is in
    office answers the request with it when it comes again."""

    result: dict[str, Any]

"""Trust anchors that are dropped, and what hangs on them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from caso_mesh.control.state import ControlState
from caso_mesh.identity.certificates import signed_by
from caso_mesh.model.features import ANCHORS_ABOVE
from caso_mesh.model.mesh import Anchor


def without(state: ControlState, over: Callable[[Anchor], bool]) -> tuple[Anchor, ...]:
    """The anchors but for those that are ``over``. What one of these had signed goes on saying by whom it hangs on the root: the
    first server of a mesh may have left it long since, and newcomers and recovery kits know the root alone."""
    gone = [anchor for anchor in state.anchors if over(anchor)]
    kept = tuple(anchor for anchor in state.anchors if anchor not in gone)
    if state.info().feature_level < ANCHORS_ABOVE:
        return kept
    return tuple(_hung(anchor, gone) for anchor in kept)


def _hung(anchor: Anchor, gone: list[Anchor]) -> Anchor:
    above = list(anchor.above)
    while True:
        top = above[-1] if above else anchor.certificate
        signer = next((each for each in gone if each.certificate not in above and _signed(top, each.certificate)), None)
        if signer is None:
            return msgspec.structs.replace(anchor, above=tuple(above)) if above else anchor
        above += [signer.certificate, *signer.above]


def _signed(certificate: bytes, signer: bytes) -> bool:
    try:
        return certificate != signer and signed_by(certificate, signer)
    except ValueError:
        return False

"""Commands about rotating the mesh's certification authority: announced, switched, finished.

While it is announced everybody learns to trust the new issuing certificate, and nothing is signed by it. From the switch on it
signs, and what was signed by the old one is renewed. In the end the old one is no anchor any more.
"""

from __future__ import annotations

import msgspec

from caso_mesh.control.anchors import without
from caso_mesh.control.membership import ISSUED_LIFE_NS
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect, Put
from caso_mesh.model.commands import AnnounceCa, FinishCa, NoteCa, SwitchCa
from caso_mesh.model.errors import Conflict, WrongState
from caso_mesh.model.mesh import Anchor, CaRotation


def announce_ca(state: ControlState, command: AnnounceCa, context: Context) -> Effect:
    """``Conflict`` while another one is switched and not finished. One that was only announced is given up."""
    before = state.rotation
    if before is not None and before.stage == "switched":
        raise Conflict(detail="The last rotation is not finished yet: some have certificates of the old authority")
    given_up = before.issuing if before is not None and before.stage == "announced" else None
    anchors = tuple(each for each in state.anchors if each.certificate != given_up)
    state.server(command.by)
    rotation = CaRotation(
        command.root, command.issuing, command.by, context.at_ns, command.switch_at_ns, urgent=command.urgent
    )
    return Effect(None, (Put("rotation", "", rotation), Put("anchors", "", (*anchors, Anchor(command.issuing)))))


def switch_ca(state: ControlState, command: SwitchCa, context: Context) -> Effect:
    """What the old authority has issued is believed until it has been renewed. Other voters keep theirs until they have
    another one. ``WrongState`` unless this one is announced."""
    rotation = _at(state, command.issuing, "announced")
    until_ns = context.at_ns + ISSUED_LIFE_NS
    old = []
    for anchor in state.anchors[1:]:
        if anchor.certificate == rotation.issuing:
            continue
        if anchor.voter in {None, rotation.by}:
            ends_ns = until_ns if anchor.until_ns is None else min(anchor.until_ns, until_ns)
            anchor = Anchor(anchor.certificate, None, ends_ns, rotated=True)
        old.append(anchor)
    anchors = (Anchor(rotation.root), Anchor(rotation.issuing, rotation.by), *old)
    switched = msgspec.structs.replace(rotation, switched_at_ns=context.at_ns, until_ns=until_ns, noted=())
    return Effect(None, (Put("anchors", "", anchors), Put("rotation", "", switched)))


def note_ca(state: ControlState, command: NoteCa, context: Context) -> Effect:
    """Who has heard of the new authority, or has certificates of it."""
    rotation = state.rotation
    if rotation is None or rotation.stage == "finished":
        return Effect()
    noted = tuple(sorted({*rotation.noted, *command.ids}))
    if noted == rotation.noted:
        return Effect()
    changed = msgspec.structs.replace(rotation, noted=noted, noted_at_ns=context.at_ns)
    return Effect(None, (Put("rotation", "", changed),))


def finish_ca(state: ControlState, command: FinishCa, context: Context) -> Effect:
    """The old anchors are dropped. ``WrongState`` unless it is switched."""
    rotation = _at(state, command.issuing, "switched")
    anchors = without(state, lambda anchor: anchor.until_ns is not None)
    done = msgspec.structs.replace(rotation, finished_at_ns=context.at_ns)
    return Effect(None, (Put("anchors", "", anchors), Put("rotation", "", done)))


def _at(state: ControlState, issuing: bytes, stage: str) -> CaRotation:
    rotation = state.rotation
    if rotation is None or rotation.issuing != issuing or rotation.stage != stage:
        raise WrongState(kind="rotation", name="of the CA", state=rotation.stage if rotation else "not begun")
    return rotation

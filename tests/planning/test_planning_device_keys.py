"""Who hands the keys of a device to whom."""

from __future__ import annotations

from typing import Any

from caso_mesh.planning.device_keys import KeyPlace, lacking, lost, opened, openers


def place(server: str, **said: Any) -> KeyPlace:
    return KeyPlace(server, **({"linked": True, "used": True, "lacks": False, "well": True} | said))


def test_those_open_it_that_are_linked_may_use_it_and_have_not_said_that_they_lack_the_key() -> None:
    silent = place("silent", lacks=None, well=False)
    unwell = place("unwell", lacks=None, well=False)
    away, barred, without = place("away", linked=False), place("barred", used=False), place("without", lacks=True)
    places = [silent, away, barred, without, unwell, place("well"), place("new")]
    assert openers(places, "new") == ["well", "silent", "unwell"]
    assert openers([place("new")], "new") == []


def test_the_keys_are_given_to_those_that_say_that_they_lack_them_and_to_new_machines_that_said_nothing() -> None:
    told, new = place("told", lacks=True), place("new", lacks=None, fresh=True, linked=False)
    assert lacking([told, new, place("well", fresh=True), place("silent", lacks=None)]) == [told, new]


def test_they_are_lost_when_all_that_see_the_device_say_so_and_opened_when_one_says_that() -> None:
    without, silent = place("without", lacks=True), place("silent", lacks=None)
    assert lost([without, place("other", lacks=True, linked=False)])
    assert not lost([without, silent])
    assert not lost([])
    assert not opened([without, silent])
    assert opened([without, place("well", linked=False)])

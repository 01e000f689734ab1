"""Paths by the thousand, packed."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caso_mesh.model import selections
from caso_mesh.model.entries import path_key
from caso_mesh.model.errors import DataDamaged, UsageError
from caso_mesh.model.features import level_of_work
from caso_mesh.model.jobs import RestoreSpec
from caso_mesh.model.orders import ticket_paths


@given(st.sets(st.binary(min_size=1).filter(lambda path: b"\x00" not in path), min_size=1))
def test_paths_come_back_in_path_order_whatever_their_bytes(paths):
    assert selections.unpack(selections.pack(paths)) == tuple(sorted(paths, key=path_key))


def test_ten_thousand_paths_fit_many_times_over_and_what_does_not_fit_is_refused_in_words():
    paths = [
        b"home/user-%d/mail/cur/%d.M%dP%d.host,S=%d" % (n % 97, 1_600_000_000 + n, n * 7919 % 10**6, n % 999, n)
        for n in range(10_000)
    ]
    assert len(selections.pack(paths)) < selections.MOST_BYTES // 2
    with pytest.raises(UsageError, match="name folders"):
        selections.pack(b"%064x" % (n * 0x9E3779B97F4A7C15 << 128) for n in range(60_000))


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"noise",
        selections.pack([b"a", b"b"])[:-1],
        selections.pack([b"a"]) + b"more",
        zlib.compress(b"a" * (65 << 20)),
        b"\x00" * (selections.MOST_BYTES + 1),
    ],
    ids=["empty", "noise", "cut-short", "too-long", "bomb", "oversized"],
)
def test_what_is_no_selection_is_refused(packed):
    with pytest.raises(DataDamaged):
        selections.unpack(packed)


def test_a_ticket_binds_a_selection_and_older_servers_are_not_given_one():
    one, other = (RestoreSpec("set", "beta", selection=selections.pack([path])) for path in (b"a", b"b"))
    assert ticket_paths(one, "beta") != ticket_paths(other, "beta")
    assert one.chosen() == (b"a",) and RestoreSpec("set", "beta", (b"c",)).chosen() == (b"c",)
    assert level_of_work(one) == 3 and level_of_work(RestoreSpec("set", "beta", (b"c",))) == 1

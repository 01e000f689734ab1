"""A table fits the terminal: what is read as one word stays one word, and what has no room is said."""

from __future__ import annotations

from caso_mesh.cli.fitting import GAP, Layout, fit, short_ids

SET = "agrcnyofmfyadicnxzhrcr2n5e"
OTHER = "agrcnyocb5yadddjm34r7o5avi"
HEADS = ("set", "source", "paths", "ended", "size", "missing", "why")
ROWS = (
    (SET, "alpha", "/srv/a/very/long/path/to/somewhere", "2026-11-29T10:37:40Z", "762 kB", "-", "the last good set of its list"),
    (OTHER, "beta", "/etc", "2026-11-29T10:37:39Z", "1.2 GB", "-", "-"),
)  # fmt: skip


def total(layout: Layout) -> int:
    assert layout.widths is not None
    return sum(layout.widths) + GAP * (len(layout.widths) - 1)


def test_what_fits_is_left_as_it_is() -> None:
    layout = fit(HEADS, ROWS, 200)
    assert (layout.heads, layout.rows, layout.left_out) == (HEADS, ROWS, ())
    assert layout.widths == (26, 6, 34, 20, 6, 7, 29)


def test_first_go_columns_that_say_nothing_then_ids_are_shortened() -> None:
    assert fit(HEADS, ROWS, 138).heads == tuple(head for head in HEADS if head != "missing")
    assert fit(HEADS, ROWS, 138).rows[0][0] == SET
    assert [row[0] for row in fit(HEADS, ROWS, 130).rows] == [SET[:13], OTHER[:13]]


def test_it_is_never_wider_than_the_terminal_and_no_word_is_torn_apart() -> None:
    for width in range(70, 140):
        layout = fit(HEADS, ROWS, width, ("size", "why"))
        if layout.widths is None:
            assert layout.left_out == ()
            continue
        assert total(layout) <= width
        for place, given in enumerate(layout.widths):
            for text in (layout.heads[place], *(row[place] for row in layout.rows)):
                assert all(len(word) <= given or "/" in word for word in text.split(" ")), (width, text)
                assert given >= len(text) or not text.endswith("kB"), (width, text)


def test_what_can_be_spared_goes_only_when_nothing_else_helps_and_is_named() -> None:
    assert fit(HEADS, ROWS, 90, ("size", "why")).left_out == ()
    assert fit(HEADS, ROWS, 78, ("size", "why")).left_out == ("size",)
    assert "size" not in fit(HEADS, ROWS, 78, ("size", "why")).heads
    by_row = fit(HEADS, ROWS, 40, ("size",))
    assert by_row.widths is None
    assert by_row.heads == tuple(head for head in HEADS if head != "missing")
    assert by_row.rows[0][3] == "2026-11-29T10:37:40Z"


def test_a_table_of_nothing_keeps_its_headings() -> None:
    assert fit(("name", "of"), (), 3).heads == ("name", "of")


def test_ids_stay_apart_when_they_are_shortened_and_what_follows_them_stays() -> None:
    like = SET[:20] + "aaaaaa"
    assert short_ids([SET, like]) == [SET[:21], like[:21]]
    assert short_ids([SET, SET]) == [SET[:13]] * 2
    assert short_ids([f"{SET}@20250101T020000Z", f"{SET}@1#2"]) == [f"{SET[:13]}@20250101T020000Z", f"{SET[:13]}@1#2"]
    assert short_ids([f"{SET}/xff2le2jrh7mk", "-", "nightly", "/etc"]) == [SET[:13], "-", "nightly", "/etc"]

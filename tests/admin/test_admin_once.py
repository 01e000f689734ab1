"""What does more than a command does is done once, however often it is asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from admin.admin_world import World, admin_world
from admin.post_office import Hook, web_server
from waiting import wait_for_async

from caso_mesh.model import notice_docs as d
from caso_mesh.model.errors import LogUnavailable, NotFound
from caso_mesh.model.notices import PutRecipient, Recipient

TEST = d.NoticeTest("hook")


async def test_a_message_that_tries_a_way_is_sent_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    """A call whose answer was lost is made again: each time another mail was sent; and whoever hands calls on could repeat it."""
    async with admin_world(tmp_path) as w, web_server() as hook:
        await w.submit(PutRecipient(Recipient("hook", "", hook.url, 0, summary=False), new=True))
        await wait_for_async(lambda: _begun(w))
        first = await w.ask("notify.test", TEST, id="one")
        assert [(each.arrived, each.answer) for each in first.results] == [(True, "HTTP 204")]
        assert await w.ask("notify.test", TEST, id="one") == first
        await w.another_office()
        assert await wait_for_async(lambda: w.ask("notify.test", TEST, id="one")) == first
        assert len(tries(hook)) == 1
        await wait_for_async(lambda: _begun(w))
        assert await w.ask("notify.test", TEST, id="two") == first
        assert len(tries(hook)) == 2


def tries(hook: Hook) -> list[str]:
    """The ids of what tried the way; alerts go there as well."""
    ids = [headers["webhook-id"] for _, headers, _ in hook.posts]
    return [each for each in ids if each.startswith("test-")]


async def _begun(w: World) -> bool:
    """Whether the office does what it is asked; before, it says so."""
    try:
        await w.ask("notify.test", d.NoticeTest("nobody"))
    except NotFound:
        return True
    except LogUnavailable:
        return False
    raise AssertionError("there is nobody of that name")


async def test_who_asks_again_while_it_is_sent_waits_for_the_same_answer_also_if_the_first_was_cut_off(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path) as w, web_server() as hook:
        await w.submit(PutRecipient(Recipient("hook", "", hook.url, 0, summary=False), new=True))
        await wait_for_async(lambda: _begun(w))
        hook.hangs = True
        asked = asyncio.ensure_future(w.ask("notify.test", TEST, id="one"))
        await wait_for_async(lambda: tries(hook), what="it is under way")
        asked.cancel()
        again = asyncio.ensure_future(w.ask("notify.test", TEST, id="one"))
        await asyncio.sleep(0)
        hook.hangs = False
        assert (await again).results[0].arrived
        assert asked.cancelled() and len(tries(hook)) == 1


async def test_what_failed_may_be_tried_again_by_the_same_request(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w, web_server() as hook:
        await wait_for_async(lambda: _begun(w))
        with pytest.raises(NotFound):
            await w.ask("notify.test", TEST, id="one")
        await w.submit(PutRecipient(Recipient("hook", "", hook.url, 0, summary=False), new=True))
        assert (await w.ask("notify.test", TEST, id="one")).results[0].arrived

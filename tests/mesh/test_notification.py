"""People are told by real mail what happens in a mesh of real daemons, also when the administrator dies in the middle."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from admin.post_office import MailBox, mail_server
from mesh.process import ProcessMesh
from mesh.test_failover import voting_mesh
from waiting import wait_for


@contextmanager
def letter_box() -> Iterator[MailBox]:
    """A mail server in a thread: the daemons are processes, and so is nobody who waits for them."""
    box, ready, done = MailBox(), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with mail_server(box):
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10.0)
        yield box
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10.0)
        loop.close()


@pytest.mark.long
def test_what_the_dead_administrator_had_not_sent_the_next_one_sends_once(
    process_mesh: Callable[..., ProcessMesh],
) -> None:
    mesh = process_mesh(0)
    boss = voting_mesh(mesh, 3)
    disk = mesh.folder / "disk"
    disk.mkdir()
    boss.ok("device", "add", "disk", "--server", "gamma", "--path", str(disk))
    with letter_box() as box:
        port = str(box.port)
        boss.ok("notify", "smtp", "set", "127.0.0.1", "--port", port, "--from", "mesh@example.org", "--tls", "none")
        boss.ok("notify", "recipient", "create", "ann", "--mail", "ann@example.org", "--no-summary")
        (tested,) = boss.ok("notify", "test", "ann")["results"]
        assert tested["arrived"] and "4711" in tested["answer"]
        box.mails.clear()

        data = mesh.folder / "data"
        data.mkdir()
        (data / "file").write_text("content")
        job = boss.ok("backup", f"gamma:{data}", "--to", "device:disk", "--wait")["job"]
        shutil.rmtree(data)

        def failed() -> None:
            status, answer = boss.ask("job", "run", job, "--wait")
            assert status == 1, answer

        def subjects() -> list[str]:
            return sorted(str(mail["subject"]) for mail in box.mails)

        failed()
        wait_for(lambda: len(box.mails) == 1, 60.0, what="a mail about the first run")
        assert subjects()[0].startswith("[meadow] error at gamma: job-failed: ")
        box.refuses_recipient = lambda address: "451 come back later"
        failed()
        old = boss.admin()
        wait_for(lambda: boss.ok("notify", "recipient", "list")["recipients"][0]["problem"], 60.0, what="it was tried")
        assert old is not None
        mesh.kill(old)
        wait_for(lambda: boss.admin() not in {None, old}, 30.0, what="another administrator")
        box.refuses_recipient = lambda address: None
        wait_for(lambda: len(box.mails) == 2, 60.0, what="a mail about the second run, by the next one in office")
        failed()
        wait_for(lambda: len(box.mails) == 3, 60.0, what="a mail about the third run")
        assert all("job-failed" in each for each in subjects())
        assert len(set(box.keys())) == 3

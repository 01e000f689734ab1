"""mDNS between real network stacks: machines made of network namespaces on one bridge."""

from __future__ import annotations

import contextlib
import functools
import json
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from netns import Site, unavailable
from waiting import PATIENCE_S, one_of_three

PROGRAM = str(pathlib.Path(__file__).with_name("discovery_node.py"))


@pytest.fixture(autouse=True)
def _skip() -> None:
    reason = _unavailable()
    if reason:
        pytest.skip(reason)


_unavailable = functools.cache(unavailable)


class Node:
    """One ``discovery_node.py`` and what it said."""

    def __init__(
        self,
        site: Site,
        i: int,
        *,
        mesh: str = "mesh1",
        instance: str = "first",
        address: str = "0.0.0.0:7300",
        interfaces: tuple[str, ...] = (),
    ) -> None:
        self.id = f"node{i}"
        argv = [sys.executable, PROGRAM, self.id, f"server{i}", mesh, instance, address, *interfaces]
        self.process = site.run(i, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.said: list[dict[str, Any]] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.wait(PATIENCE_S, event="ready")

    def _read(self) -> None:
        with contextlib.suppress(ValueError):  # the site was closed: so is the pipe
            for line in self.process.stdout:
                self._lines.put(json.loads(line))
        self._lines.put(None)

    def wait(self, seconds: float, **fields: Any) -> dict[str, Any]:
        """The next event that has these fields, within so many seconds."""
        end = time.monotonic() + seconds
        while True:
            try:
                event = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{self.id} saw no {fields} within {seconds} s, but {self.said}") from None
            assert event is not None, f"{self.id} ended: {self.said}"
            self.said.append(event)
            if all(event.get(key) == value for key, value in fields.items()):
                return event

    def rest(self) -> list[dict[str, Any]]:
        """All that was said until the end."""
        while (event := self._lines.get(timeout=PATIENCE_S)) is not None:
            self.said.append(event)
        return self.said

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> dict[str, Any]:
        """Ends it politely and looks that nothing was left."""
        self.process.send_signal(signal.SIGTERM)
        last = self.rest()[-1]
        assert self.process.wait(timeout=PATIENCE_S) == 0
        assert last["event"] == "end"
        assert last["left"] == []
        return last


@pytest.fixture
def pair() -> Iterator[Site]:
    with Site(2) as site:
        yield site


def test_three_servers_find_each_other_and_never_themselves():
    with Site(3) as site:
        nodes = [Node(site, 1), Node(site, 2), Node(site, 3, mesh="-")]
        for node in nodes:
            seen = [node.wait(PATIENCE_S, event="seen") for _ in range(2)]
            others = [other.id for other in nodes if other is not node]
            assert sorted(event["node"] for event in seen) == others
            for event in seen:
                number = int(event["node"][-1])
                assert event["addresses"] == [f"{site.address(number)}:7300"]
                assert event["mesh"] == (None if number == 3 else "mesh1")
                assert (event["name"], event["version"]) == (f"server{number}", "0.1.0")
        for node in nodes:
            node.end()
            assert not [event for event in node.said if event.get("node") == node.id]
            assert not [event for event in node.said if event["event"] == "log"], node.said


def test_a_goodbye_removes_a_server(pair):
    first, second = Node(pair, 1), Node(pair, 2, instance="one")
    first.wait(PATIENCE_S, event="seen", node="node2")
    second.end()
    assert first.wait(PATIENCE_S, event="gone")["instance"] == "one"
    first.end()


def test_a_killed_server_stays_until_its_next_instance_replaces_it(pair):
    first, second = Node(pair, 1), Node(pair, 2, instance="one")
    first.wait(PATIENCE_S, event="seen", node="node2", instance="one")
    second.kill()
    again = Node(pair, 2, instance="two", address="0.0.0.0:7400")
    seen = first.wait(PATIENCE_S, event="seen", node="node2", instance="two")
    assert seen["addresses"] == [f"{pair.address(2)}:7400"]
    again.wait(PATIENCE_S, event="seen", node="node1")
    again.end()
    first.wait(PATIENCE_S, event="gone", node="node2", instance="two")
    first.end()
    assert [event["instance"] for event in first.said if event["event"] == "gone"] == ["two"]


def test_a_changed_announcement_is_seen(pair):
    first, second = Node(pair, 1), Node(pair, 2)
    first.wait(PATIENCE_S, event="seen", node="node2", name="server2")
    second.process.stdin.write("renamed\n")
    second.process.stdin.flush()
    first.wait(PATIENCE_S, event="seen", node="node2", name="renamed")
    first.end()
    second.end()


def test_an_interface_that_comes_later_is_used_and_said_once_to_be_missing():
    with Site(2, unplugged=[2]) as site:
        first, second = Node(site, 1), Node(site, 2)
        text = second.wait(PATIENCE_S, event="log")["text"]
        site.plug(2)
        assert first.wait(PATIENCE_S, event="seen", node="node2")["addresses"] == [f"{site.address(2)}:7300"]
        second.wait(PATIENCE_S, event="seen", node="node1")
        second.end()
        assert [event["text"] for event in second.said if event["event"] == "log"] == [text]
        first.wait(PATIENCE_S, event="gone", node="node2")
        first.end()


def test_an_interface_made_anew_under_its_old_address_is_used_again(pair):
    """Memberships of multicast groups go with the interface; its address alone does not tell that it is a new one."""
    first, second = Node(pair, 1), Node(pair, 2)
    second.wait(PATIENCE_S, event="seen", node="node1")
    pair.unplug(2)
    pair.plug(2)
    first.process.stdin.write("renamed\n")
    first.process.stdin.flush()
    second.wait(PATIENCE_S, event="seen", node="node1", name="renamed")
    first.end()
    second.end()


@pytest.mark.parametrize(("cut", "seconds"), [("pull", 6.0), ("link_down", 1.5)])
def test_after_a_cut_both_sides_meet_without_waiting_for_the_last_question_of_a_browser(pair, cut, seconds):
    """One browser asks at 0, 1, 5 and 14 s, then never again; here it is renewed every second."""
    mend = {"pull": pair.push, "link_down": pair.link_up}[cut]

    def attempt() -> None:
        getattr(pair, cut)(2)
        first, second = Node(pair, 1), Node(pair, 2)
        try:
            with pytest.raises(AssertionError, match="saw no"):
                first.wait(seconds, event="seen")
        finally:
            mend(2)
        try:
            first.wait(2.5, event="seen", node="node2")
            second.wait(2.5, event="seen", node="node1")
        finally:
            first.end()
            second.end()

    one_of_three(attempt)


def test_a_machine_with_only_loopback_neither_fails_nor_spins_and_says_it_once():
    with Site(1, unplugged=[1]) as site:
        node = Node(site, 1)
        node.wait(PATIENCE_S, event="log")
        with pytest.raises(AssertionError, match="saw no"):
            node.wait(2.0, event="log")
        assert node.end()["cpu"] < 1.0
        assert len([event for event in node.said if event["event"] == "log"]) == 1


def test_a_machine_without_any_route_neither_fails_nor_spins(pair):
    pair.do(2, "ip", "addr", "flush", "dev", "eth0")
    pair.do(2, "ip", "addr", "add", f"{pair.address(2)}/32", "dev", "eth0")
    assert pair.do(2, "ip", "route").strip() == ""
    node = Node(pair, 2)
    with pytest.raises(AssertionError, match="saw no"):
        node.wait(2.0, event="seen")
    assert node.end()["cpu"] < 1.0
    assert len([event for event in node.said if event["event"] == "log"]) <= 3, node.said


def test_two_daemons_on_one_machine_find_each_other_over_loopback_when_told_to():
    with Site(1, unplugged=[1]) as site:
        first = Node(site, 1, address="127.0.0.1:7300", interfaces=("127.0.0.1",))
        argv = [sys.executable, PROGRAM, "node9", "server9", "-", "x", "127.0.0.1:7301", "lo"]
        other = site.run(1, argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert first.wait(PATIENCE_S, event="seen", node="node9")["addresses"] == ["127.0.0.1:7301"]
        other.send_signal(signal.SIGTERM)
        first.wait(PATIENCE_S, event="gone", node="node9")
        first.end()


HOSTILE = """
import asyncio, sys
from zeroconf import IPVersion, ServiceInfo
from zeroconf.asyncio import AsyncZeroconf
TYPE = "_caso-mesh._tcp.local."
good = {"v": "1", "name": "evil", "instance": "i", "state": "new"}
async def main(address):
    zc = AsyncZeroconf(interfaces=[address], ip_version=IPVersion.V4Only)
    texts = [
        {**good, "node": b"\\xff\\xfe"}, {**good, "node": "bad1", "v": b"\\x80"}, {**good, "node": "other"},
        {**good, "node": "bad3", "name": "x" * 240}, {**good, "node": "bad4", "state": "member"},
        {**good, "node": "bad5", "mesh": "m"}, {**good, "node": "bad6", "name": None}, {}, b"\\xff" * 300, b"",
        {**good, "node": "bad10", "also": "a:b:c:d"},
    ]
    for number, text in enumerate(texts):
        info = ServiceInfo(TYPE, f"bad{number}.{TYPE}", port=1, properties=text, server="evil.local.",
                           parsed_addresses=[address])
        await zc.async_register_service(info, cooperating_responders=True)
    for label, port, where in (("zero", 0, address), ("lo", 1, "127.0.0.1"), ("multi", 1, "224.0.0.251")):
        info = ServiceInfo(TYPE, f"{label}.{TYPE}", port=port, properties={**good, "node": label},
                           server=f"{label}.local.", parsed_addresses=[where])
        await zc.async_register_service(info, cooperating_responders=True)
    info = ServiceInfo(TYPE, f"Good One.{TYPE}", port=1, properties=good, server="g.local.", parsed_addresses=[address])
    await zc.async_register_service(info, cooperating_responders=True)
    info = ServiceInfo(TYPE, f"last.{TYPE}", port=1, properties={**good, "node": "last"}, server="last.local.",
                       parsed_addresses=[address])
    sent = await zc.async_register_service(info, cooperating_responders=True)
    await sent
    await asyncio.sleep(60)
asyncio.run(main(sys.argv[1]))
"""


def test_hostile_announcements_are_dropped_and_the_rest_goes_on(pair):
    first = Node(pair, 1)
    pair.run(2, [sys.executable, "-c", HOSTILE, pair.address(2)])
    first.wait(PATIENCE_S, event="seen", node="last")
    # A further refresh tells of all that is in the cache: by then everything was looked at.
    with pytest.raises(AssertionError, match="saw no"):
        first.wait(2.0, event="nothing")
    first.end()
    assert {event["node"] for event in first.said if event["event"] == "seen"} == {"last"}

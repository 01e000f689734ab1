"""What only the network in memory can do: delay, cut, lose, repeat exactly."""

from __future__ import annotations

import asyncio
import selectors

import pytest
from wire_fixtures import Answers, only

from caso_mesh.model.errors import CannotConnect, CannotListen, CasoError, LinkLost, PortInUse
from caso_mesh.wire.memory import Conditions, MemoryNetwork


class _Selector(selectors.SelectSelector):
    """Never waits: the time that would pass is added to the loop's."""

    passed = 0.0

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing will ever happen"
            self.passed += timeout
        return ready


def in_virtual_time(main):
    """Runs ``main()`` in a loop whose clock jumps; returns its result and the seconds that seemed to pass."""
    selector = _Selector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.passed
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main()), selector.passed


async def _echo(link, params):
    return params


class Two:
    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.a, self.b = network.endpoint(b"a", name="a"), network.endpoint(b"b", name="b")
        self.handler = Answers(echo=_echo)
        self.opened = []

    def listen(self):
        return self.a.listen("a:1", authorise=only(b"b"), handler=self.handler, on_link=self.opened.append)

    async def dial(self, **options):
        return await self.b.dial("a:1", authorise=only(b"a"), handler=Answers(echo=_echo), **options)


def test_a_call_takes_two_delays():
    async def main():
        two = Two(MemoryNetwork(conditions=Conditions(delay_s=2.0)))
        async with two.listen():
            link = await two.dial()
            start = asyncio.get_running_loop().time()
            await link.call("echo")
            took = asyncio.get_running_loop().time() - start
            await link.close()
            return took

    took, _ = in_virtual_time(main)
    assert took == pytest.approx(4.0)


def test_order_holds_inside_a_link_under_jitter():
    async def main():
        two = Two(MemoryNetwork(seed=3, conditions=Conditions(jitter_s=1.0)))
        async with two.listen():
            link = await two.dial()
            for n in range(200):
                await link.notify("n", {"n": n})
                await asyncio.sleep(0.001)
            await asyncio.sleep(2)
            await link.close()
        return [params["n"] for _, params in two.handler.notices]

    assert in_virtual_time(main)[0] == list(range(200))


@pytest.mark.parametrize("one_way", [False, True])
def test_a_short_cut_delays_and_a_long_one_ends_the_link(one_way):
    async def main():
        two = Two(MemoryNetwork(silence_s=15))
        loop = asyncio.get_running_loop()
        async with two.listen():
            link = await two.dial()
            two.network.cut(two.b, two.a, one_way=one_way)
            loop.call_later(5, two.network.heal)
            start = loop.time()
            assert await link.call("echo", {"x": 1}, timeout_s=60) == {"x": 1}
            assert loop.time() - start == pytest.approx(5)
            await asyncio.sleep(100)
            assert not link.closed
            two.network.cut(two.b, two.a, one_way=one_way)
            start = loop.time()
            with pytest.raises(LinkLost):
                await link.call("echo", timeout_s=60)
            assert loop.time() - start == pytest.approx(15)
            assert isinstance(await two.opened[0].wait_closed(), LinkLost)
            with pytest.raises(CannotConnect):
                await two.dial()
            two.network.heal(two.a)
            await (await two.dial()).close()

    in_virtual_time(main)


def test_a_partition_cuts_between_groups_only():
    async def main():
        network = MemoryNetwork()
        ends = [network.endpoint(bytes([n])) for n in range(4)]
        network.partition(ends[:2], ends[2:3])
        return {(x, y) for x in range(4) for y in range(4) if network.is_cut(ends[x], ends[y])}

    cut, _ = in_virtual_time(main)
    assert cut == {(x, y) for x in range(4) for y in range(4) if x != y} - {(0, 1), (1, 0)}


def test_loss_breaks_links_and_duplicates_are_seen_by_the_listener():
    async def main():
        two = Two(MemoryNetwork(seed=5))
        async with two.listen() as listener:
            two.network.set_conditions(two.a, two.b, Conditions(duplicate=1.0))
            link = await two.dial()
            await link.call("echo")
            assert len(two.opened) == 2
            await asyncio.sleep(5)
            assert len(listener.links) == 1
            assert not link.closed
            two.network.set_conditions(two.a, two.b, Conditions(loss=0.05))
            with pytest.raises(LinkLost):
                for _ in range(1000):
                    await link.call("echo")

    in_virtual_time(main)


def test_the_same_seed_gives_the_same_history():
    async def main():
        two = Two(MemoryNetwork(seed=11, conditions=Conditions(delay_s=0.01, jitter_s=0.1, loss=0.02)))
        history = []
        async with two.listen():
            for _ in range(20):
                try:
                    link = await two.dial()
                    for n in range(20):
                        await link.call("echo", {"n": n})
                        history.append((n, asyncio.get_running_loop().time(), link.session))
                    await link.close()
                except CasoError as error:
                    history.append(error.code)
        return history

    first, second = in_virtual_time(main)[0], in_virtual_time(main)[0]
    assert first == second
    assert "link-lost" in first


async def test_addresses_are_taken_once_and_must_exist():
    two = Two(MemoryNetwork())
    with pytest.raises(CannotConnect):
        await two.dial()
    async with two.listen():
        with pytest.raises(PortInUse):
            async with two.listen():
                pass
    with pytest.raises(CannotListen):
        async with two.a.listen("nonsense", authorise=only(), handler=Answers()):
            pass

"""A program for the tests: one node that announces itself by mDNS and prints what it sees, as JSON lines.

Arguments: node, name, mesh ("-" = new), instance, address. SIGTERM ends it with a goodbye. A line on standard input
is a new name to announce.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import time

from caso_mesh.discovery.mdns import open_mdns
from caso_mesh.discovery.sighting import Gone, Sighting


def tell(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


class Told(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tell(event="log", text=record.getMessage(), logger=record.name)


async def main() -> None:
    node, name, mesh, instance, address, *interfaces = sys.argv[1:]
    logging.getLogger().addHandler(Told())
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, done.set)

    def announcement(name: str) -> Sighting:
        return Sighting(None if mesh == "-" else mesh, node, name, (address,), "0.1.0", instance, "mdns")

    async with open_mdns(interfaces=interfaces or None, poll_s=0.1, refresh_s=1.0) as discovery:

        async def watch() -> None:
            async for event in discovery.sightings():
                if isinstance(event, Gone):
                    tell(event="gone", node=event.node, instance=event.instance)
                else:
                    tell(
                        event="seen",
                        node=event.node,
                        name=event.name,
                        mesh=event.mesh,
                        instance=event.instance,
                        addresses=event.addresses,
                        version=event.version,
                    )

        async def rename() -> None:
            reader = asyncio.StreamReader()
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
            while line := await reader.readline():
                await discovery.announce(announcement(line.decode().strip()))

        tasks = [asyncio.create_task(watch()), asyncio.create_task(rename())]
        await discovery.announce(announcement(name))
        tell(event="ready")
        began_s = time.process_time()
        await done.wait()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    tell(event="end", cpu=time.process_time() - began_s, left=[str(task) for task in left])


asyncio.run(main(), debug=False)

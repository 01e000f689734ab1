"""``caso-mesh run``: the daemon in the foreground, for a terminal or for systemd."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import time
from typing import Annotated, Literal

import msgspec

from caso_mesh.cli import output
from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.init import AdvertiseOption
from caso_mesh.cli.options import OwnStateOption, default_state
from caso_mesh.model.errors import CasoError, UsageError

log = logging.getLogger("caso_mesh.run")


async def run(
    *,
    state: OwnStateOption = None,
    peer: Annotated[
        tuple[str, ...], Parameter(name="--peer", negative=(), help="HOST:PORT of another server; may be repeated.")
    ] = (),
    server: Annotated[str | None, Parameter(help="A new server without a join link: its name.")] = None,
    listen: Annotated[str | None, Parameter(help="A new server without a join link: HOST:PORT to listen at.")] = None,
    advertise: AdvertiseOption = (),
    preset: Annotated[
        Literal["local", "lan", "wan"] | None,
        Parameter(help="A new server without a join link: the network it is in. Default: lan."),
    ] = None,
    never_admin: Annotated[
        bool, Parameter(negative=(), help="A new server without a join link: it shall never administer the mesh.")
    ] = False,
    log_format: Annotated[Literal["text", "json"], Parameter(help="How the log on stderr is written.")] = "text",
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Parameter(help="From which level on messages are written.")
    ] = "info",
) -> int:
    """Run the daemon of a server in the foreground. SIGTERM and SIGINT stop it cleanly.

    On an empty state folder, --server and --listen make a new server that belongs to no mesh: it can be discovered,
    prints its code, and waits for "caso-mesh server approve".
    """
    if (server is None or listen is None) and (server, listen, advertise, preset) != (None, None, (), None):
        raise UsageError(
            detail="--server and --listen belong together, and --advertise and --preset to them: they make a new server without a join link"
        )
    set_up_logging(log_format, log_level)
    from caso_mesh.daemon import run_daemon

    gc.freeze()  # what was imported lives to the end: it is not looked at again, which took 20 ms each time
    gc.enable()  # the command line had turned it off
    folder = state if state is not None else default_state()
    working = asyncio.ensure_future(
        run_daemon(
            state=folder,
            peers=peer,
            server=server,
            listen=listen,
            advertise=advertise,
            preset=preset or "lan",
            never_admin=never_admin,
            say=say,
            ready=lambda: notify("READY=1"),
        )
    )
    try:
        return await _until_stopped(working)
    except CasoError:
        raise
    except Exception:
        log.exception("the daemon ends")
        raise


async def _until_stopped(working: asyncio.Future[None]) -> int:
    """Waits for the daemon, and stops it at the first SIGTERM or SIGINT."""
    stopped: list[int] = []

    def stop(number: int) -> None:
        if not stopped:  # once: a second one must not interrupt the clean end
            stopped.append(number)
            notify("STOPPING=1")
            working.cancel()

    loop, signals = asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop, number)
    try:
        await working
    except asyncio.CancelledError:
        if not stopped:
            raise
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
        if not working.done():
            working.cancel()
            await asyncio.wait([working])
    return 0


def say(text: str) -> None:
    """A line for whoever started the daemon."""
    output.line(text)
    sys.stdout.flush()


def notify(text: str) -> None:
    """Tells the service manager (sd_notify(3)); nothing without one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            log.warning("the service manager was not told %s: %s", text, error)


class JsonFormatter(logging.Formatter):
    """One JSON document for each message."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "at": _instant(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(
            {key: text.encode("utf-8", "backslashreplace").decode() for key, text in fields.items()}
        ).decode()


class TextFormatter(logging.Formatter):
    """Lines for people; a message never breaks into two, whatever a peer put into it."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"{_instant(record.created)} {record.levelname.lower():<7} {record.name}: "
        text += output.clean(record.getMessage())
        if record.exc_info:
            text += "".join(f"\n{output.clean(line)}" for line in self.formatException(record.exc_info).split("\n"))
        return text


def _instant(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def set_up_logging(form: str, level: str) -> None:
    """The log of this process goes to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)

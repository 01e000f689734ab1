"""A site of several machines on one LAN, made of network namespaces: for tests that need real networks.

``Site(n)`` builds ``n`` machines, counted from 1, on one bridge, each with eth0 at 10.77.<x>.<i>/24. The bridge lives
in a namespace of its own, so the machine that runs the tests is not touched. Needs root and iproute2.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import subprocess
from collections.abc import Collection, Iterator, Sequence
from types import TracebackType
from typing import Any, Self


def unavailable() -> str | None:
    """Why there can be no sites here, to skip with; None if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [program for program in ("ip", "nsenter") if shutil.which(program) is None]
    if missing:
        return f"network namespaces need {' and '.join(missing)} (iproute2, util-linux)"
    name = f"cm-{secrets.token_hex(4)}"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"network namespaces are not allowed here: {done.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


def _sh(*argv: str, text: str | None = None) -> str:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def _enter(namespace: int) -> None:
    """``os.setns`` of Python 3.12, for this thread."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, 0x40000000):  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "setns")


class Site:
    """Machines 1 to ``count`` on one LAN, while the ``with`` block lasts; ``unplugged`` ones get their eth0 later."""

    def __init__(self, count: int, *, unplugged: Collection[int] = ()) -> None:
        token = secrets.token_hex(4)
        self.machines = range(1, count + 1)
        self._unplugged = set(unplugged)
        self._net = f"10.77.{int(token[:2], 16)}"
        self._hub = f"cm-{token}-hub"
        self._names = {i: f"cm-{token}-{i}" for i in self.machines}
        self._running: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Self:
        try:
            for name in (self._hub, *self._names.values()):
                _sh("ip", "netns", "add", name)
                _sh("ip", "-n", name, "link", "set", "lo", "up")
            # Nobody asks for group members here: a snooping bridge would forget them after 260 s, so it floods.
            _sh("ip", "-n", self._hub, "link", "add", "br0", "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
            _sh("ip", "-n", self._hub, "link", "set", "br0", "up")
            for i in self.machines:
                if i not in self._unplugged:
                    self.plug(i)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends what still runs and removes all namespaces; may be repeated."""
        for process in reversed(self._running):
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
        self._running.clear()
        for name in (*self._names.values(), self._hub):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def address(self, i: int) -> str:
        """The IPv4 address of machine ``i``."""
        return f"{self._net}.{i}"

    def words(self, i: int) -> list[str]:
        """The words before a program that put it on machine ``i``; its pid stays its own."""
        return ["nsenter", f"--net={self.network(i)}"]

    def network(self, i: int) -> str:
        """The file of the network namespace that is machine ``i``."""
        return f"/run/netns/{self._names[i]}"

    @contextlib.contextmanager
    def inside(self, i: int) -> Iterator[None]:
        """What this thread connects to while the block lasts, it connects to from machine ``i``."""
        with open("/proc/thread-self/ns/net") as own, open(self.network(i)) as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(own.fileno())

    def run(self, i: int, argv: Sequence[str], **popen: Any) -> subprocess.Popen[Any]:
        """Starts a program on machine ``i``; its pid is the program's own. Killed at the end if it still runs."""
        process = subprocess.Popen([*self.words(i), *argv], **popen)
        self._running.append(process)
        return process

    def do(self, i: int, *argv: str, text: str | None = None) -> str:
        """Runs a program on machine ``i`` to its end; its output. Raises ``RuntimeError`` if it fails."""
        return _sh(*self.words(i), *argv, text=text)

    def plug(self, i: int) -> None:
        """Gives machine ``i`` its eth0, which is up before it has an address: there is no moment at which an address is seen
        that nothing can be sent from."""
        _sh(
            *("ip", "-n", self._hub, "link", "add", f"p{i}", "type", "veth"),
            *("peer", "name", "eth0", "netns", self._names[i]),
        )
        _sh("ip", "-n", self._hub, "link", "set", f"p{i}", "master", "br0", "up")
        _sh("ip", "-n", self._names[i], "link", "set", "eth0", "up")
        _sh("ip", "-n", self._names[i], "addr", "add", f"{self.address(i)}/24", "dev", "eth0")

    def unplug(self, i: int) -> None:
        """Takes eth0 of machine ``i`` away, with its address."""
        _sh("ip", "-n", self._hub, "link", "del", f"p{i}")

    def link_down(self, i: int) -> None:
        """Cuts the cable of machine ``i``: it sees that there is no carrier."""
        _sh("ip", "-n", self._hub, "link", "set", f"p{i}", "down")

    def link_up(self, i: int) -> None:
        _sh("ip", "-n", self._hub, "link", "set", f"p{i}", "up")

    def pull(self, i: int) -> None:
        """Cuts machine ``i`` off without its noticing: the carrier stays, packets get lost."""
        _sh("ip", "-n", self._hub, "link", "set", f"p{i}", "nomaster")

    def push(self, i: int) -> None:
        """Ends ``pull``."""
        _sh("ip", "-n", self._hub, "link", "set", f"p{i}", "master", "br0")

    def slow(self, i: int, rate: str, *, latency_ms: int = 500) -> None:
        """Machine ``i`` sends and is sent ``rate`` (as tc(8) has it, ``2mbit``) at most; what comes faster waits so long
        at most, as in the buffer of a modem."""
        shape = ("root", "tbf", "rate", rate, "burst", "16kb", "latency", f"{latency_ms}ms")
        _sh("ip", "netns", "exec", self._names[i], "tc", "qdisc", "replace", "dev", "eth0", *shape)
        _sh("ip", "netns", "exec", self._hub, "tc", "qdisc", "replace", "dev", f"p{i}", *shape)

    def move(self, i: int, last: int) -> str:
        """Gives machine ``i`` another address on the LAN (its last number) in place of the one it has; returns it."""
        address = f"{self._net}.{last}"
        _sh("ip", "-n", self._names[i], "addr", "flush", "dev", "eth0")
        _sh("ip", "-n", self._names[i], "addr", "add", f"{address}/24", "dev", "eth0")
        return address

    def hide(self, i: int, router: int) -> None:
        """Machine ``i`` (``unplugged``) is behind ``router``, which lets it out under its own address and nobody in."""
        inside = f"10.78.{router}"
        _sh(
            *("ip", "-n", self._names[router], "link", "add", f"in{i}", "type", "veth"),
            *("peer", "name", "eth0", "netns", self._names[i]),
        )
        _sh("ip", "-n", self._names[router], "addr", "add", f"{inside}.1/24", "dev", f"in{i}")
        _sh("ip", "-n", self._names[router], "link", "set", f"in{i}", "up")
        _sh("ip", "-n", self._names[i], "addr", "add", f"{inside}.2/24", "dev", "eth0")
        _sh("ip", "-n", self._names[i], "link", "set", "eth0", "up")
        _sh("ip", "-n", self._names[i], "route", "add", "default", "via", f"{inside}.1")
        self.do(router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        rules = ["table ip hide {", "chain out {", "type nat hook postrouting priority 100;"]
        rules += ['oifname "eth0" masquerade', "}", "}", ""]
        self.do(router, "nft", "-f", "-", text="\n".join(rules))

    @staticmethod
    def can_drop() -> bool:
        """Whether ``drop`` and ``lose`` work here (nftables is there)."""
        return shutil.which("nft") is not None

    def drop(self, i: int, *senders: int) -> None:
        """Machine ``i`` hears nothing from ``senders`` any more, and they still hear it. None: hears all again."""
        self._rules(i, [f"ip saddr {self.address(sender)} drop" for sender in senders])

    def lose(self, i: int, percent: int) -> None:
        """Machine ``i`` loses ``percent`` of the packets it is sent; 0 ends it. Replaces ``drop``."""
        chance = f"numgen random mod 100 < {percent} " if percent < 100 else ""
        rule = f'iifname "eth0" {chance}drop'
        self._rules(i, [rule] if percent else [])

    def narrow(self, i: int, longest: int | None) -> None:
        """What machine ``i`` sends in packets of more than ``longest`` bytes gets lost further on, and nobody tells it; ``None``
        ends it."""
        text = "table inet narrow {}\ndelete table inet narrow\n"
        if longest is not None:
            # the rule sees what the card would cut into packets: so there is nothing left to be cut
            self.do(i, "ip", "link", "set", "eth0", "gso_max_segs", "1")
            text += "table inet narrow {\nchain out {\ntype filter hook postrouting priority 0;\n"
            text += f'oifname "eth0" meta length > {longest} drop\n}}\n}}\n'
        self.do(i, "nft", "-f", "-", text=text)

    def _rules(self, i: int, rules: list[str]) -> None:
        text = "table inet site {}\ndelete table inet site\n"
        if rules:
            lines = ["table inet site {", "chain in {", "type filter hook input priority 0;", *rules, "}", "}", ""]
            text += "\n".join(lines)
        self.do(i, "nft", "-f", "-", text=text)

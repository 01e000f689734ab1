"""The test site itself: cuts and losses do what they say, and nothing is left behind."""

from __future__ import annotations

import subprocess

import pytest
from netns import Site, unavailable


def reaches(site: Site, sender: int, receiver: int, *, within_s: float = 20.0) -> bool:
    """Whether a datagram gets there, one way: ten tries. ``within_s`` from the last one on."""
    listener = site.run(
        receiver,
        [
            "python3",
            "-c",
            (
                "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 7))\n"
                "print('ready', flush=True); s.settimeout(float(input()))\n"
                "try: s.recv(9); print('got')\nexcept TimeoutError: print('none')"
            ),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert listener.stdout.readline() == "ready\n"
    text = (
        "import socket, time\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nfor _ in range(10):\n"
        f"  try: s.sendto(b'x', ('{site.address(receiver)}', 7))\n  except OSError: pass\n  time.sleep(0.02)"
    )
    site.do(sender, "python3", "-c", text)
    return listener.communicate(f"{within_s}\n", timeout=60)[0] == "got\n"


def is_cut(site: Site, sender: int, receiver: int) -> bool:
    return not reaches(site, sender, receiver, within_s=0.5)


def test_machines_of_a_site_hear_each_other_until_they_are_cut_and_nothing_is_left():
    reason = unavailable()
    if reason:
        pytest.skip(reason)
    with Site(2) as site:
        names = [site._hub, *site._names.values()]
        assert reaches(site, 1, 2)
        site.pull(2)
        assert is_cut(site, 1, 2)
        site.push(2)
        assert reaches(site, 1, 2)
        site.link_down(1)
        assert is_cut(site, 1, 2)
        site.link_up(1)
        assert reaches(site, 1, 2)
        if Site.can_drop():
            site.drop(2, 1)
            assert is_cut(site, 1, 2)
            assert reaches(site, 2, 1)
            site.lose(2, 100)
            assert is_cut(site, 1, 2)
            site.lose(2, 10)
            assert reaches(site, 1, 2)
            site.lose(2, 0)
            assert reaches(site, 1, 2)
        sleeper = site.run(1, ["sleep", "60"])
    assert sleeper.returncode is not None
    after = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert not [name for name in names if name in after]

"""A mesh of real daemons, each on a machine of its own: network namespaces on one LAN, whose cables can be cut."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Collection

import netns
from mesh.process import NAMES, ProcessMesh

_PORT = 7300


class SiteMesh(ProcessMesh):
    """The first server is on machine 1 of the site, and so on. Machines hear each other unless they are cut off."""

    def __init__(self, folder: pathlib.Path, site: netns.Site) -> None:
        super().__init__(folder)
        self.site = site

    def machine(self, name: str) -> int:
        return NAMES.index(name) + 1

    def on(self, name: str) -> list[str]:
        return self.site.words(self.machine(name))

    def network(self, name: str) -> str:
        return self.site.network(self.machine(name))

    def inside(self, name: str) -> contextlib.AbstractContextManager[None]:
        return self.site.inside(self.machine(name))

    def listen(self, name: str) -> str:
        return f"{self.site.address(self.machine(name))}:{_PORT}"

    def deaf(self, name: str, *to: str) -> None:
        """A server hears nothing of the others any more, who hear it."""
        self.site.drop(self.machine(name), *(self.machine(each) for each in to))

    def cut(self, one: Collection[str]) -> None:
        """Those of ``one`` side and all others do not hear each other any more."""
        other = [name for name in self.names if name not in one]
        for side, far in ((one, other), (other, one)):
            for name in side:
                self.deaf(name, *far)

    def heal(self) -> None:
        """Everybody hears everybody."""
        for name in self.names:
            self.deaf(name)

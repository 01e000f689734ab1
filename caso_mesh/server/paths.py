"""Whether this server has, and allows to read or write, some paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caso_mesh.model import nodes as n
from caso_mesh.server.patience import bounded

if TYPE_CHECKING:
    from caso_mesh.server.node import ServerNode

#: How long file systems may take to answer.
_CHECK_S = 12.0


async def check_paths(node: ServerNode, request: n.PathCheck) -> n.PathCheckReply:
    """Raises ``NotAllowedHere``, ``CommandNotAllowed``, ``SourcePathMissing``, ``TimedOut``."""

    def work() -> n.PathCheckReply:
        allow, warnings = node.allow(), []
        for name, kind in request.commands:
            allow.check_command(name, kind)
        for path in request.paths:
            if request.action == "read":
                warnings += allow.check_read(path)
            else:
                allow.check_write(path)
        return n.PathCheckReply(tuple(dict.fromkeys(warnings)))

    return await bounded(work, what=f"a file system of {node.config.server}", seconds=_CHECK_S)

"""The command line, one file per command. Daily commands import only ``model``, ``wire`` and ``identity``; the starters
import the rest when they are called.

It must not be slow to start.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper


def main() -> None:
    """The program ``caso-mesh``."""
    from caso_mesh.cli.program import run

    if isinstance(sys.stdout, TextIOWrapper):
        # a locale that cannot show a name is no reason to show nothing
        sys.stdout.reconfigure(errors="backslashreplace")
    status = run(sys.argv[1:])
    if "asyncio" not in sys.modules and _written():
        # Nothing runs that had to be ended: taking a program apart costs a tenth of a short command.
        os._exit(status)
    sys.exit(status)


def _written() -> bool:
    """Whether all output has left this program; if not, the usual end of it shall say so."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return False
    return True

"""The manual that ships with the product: what ``caso-mesh help`` shows. Four pages are written by ``generate`` from the
tables of ``model/`` (``scripts/make-docs``), the others by hand; tests keep all of them true.

It must not know of anything but ``model/``.
"""

from __future__ import annotations

from importlib.resources import files

#: Every page with what it is for, in reading order.
PAGES: dict[str, str] = {
    "guide": "how to use the product, from the first server on",
    "settings": "every setting of the mesh, with its default and its bounds",
    "errors": "every error: its code, its exit status, what to do",
    "alerts": "every category of alerts: what it means, what to do",
    "calls": "the control interface: every call, its role, its records; reasons for waiting",
    "metrics": "figures for Prometheus: every metric, rules to begin with",
    "wire": "how nodes speak with each other",
    "format": "how backup sets lie in a device, to the byte",
    "threat-model": "what is protected against whom, and what is not",
}


def page(name: str) -> str:
    """The Markdown text of a page. Raises ``KeyError`` for a name that is not in ``PAGES``."""
    if name not in PAGES:
        raise KeyError(name)
    return files(__name__).joinpath(f"{name}.md").read_text("utf-8")

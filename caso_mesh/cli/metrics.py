"""``caso-mesh metrics``: the figures of a server, for Prometheus."""

from __future__ import annotations

import sys

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model.metrics import Exposition


def metrics(*, common: Common = DEFAULTS) -> None:
    """Print the figures of the server that is asked, in office also those of the mesh, in the text format of Prometheus: for
    a collector that reads files. What is scraped over HTTP says the same: [metrics] in config.toml."""
    output.show(ask(common, "metrics", q.Nothing(), Exposition), common.json, _print)


def _print(view: Exposition) -> None:
    sys.stdout.write(view.text)

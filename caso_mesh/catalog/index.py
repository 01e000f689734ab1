"""The index over one SQLite file: all that can be done with it, as functions over a connection.

Those that change something want to be called inside a transaction (``database/`` gives one); ``ingest`` makes its own
savepoint.
"""

from caso_mesh.catalog.browse import Version, implied, list_folder, lookup, versions
from caso_mesh.catalog.ingest import Ingest, IngestResult, SliceLost, ingest
from caso_mesh.catalog.migrations import MIGRATIONS
from caso_mesh.catalog.names import rebuild as rebuild_names
from caso_mesh.catalog.names import wants_rebuild as names_want_rebuild
from caso_mesh.catalog.removal import abandon_all, remove_set
from caso_mesh.catalog.search import Found, Match, Wanted, find
from caso_mesh.catalog.sets import add_set, has_detail, set_as_of, sets, sources_of
from caso_mesh.catalog.soundness import check
from caso_mesh.catalog.usage import FolderUsage, usage

__all__ = [
    "MIGRATIONS",
    "FolderUsage",
    "Found",
    "Ingest",
    "IngestResult",
    "Match",
    "SliceLost",
    "Version",
    "Wanted",
    "abandon_all",
    "add_set",
    "check",
    "find",
    "has_detail",
    "implied",
    "ingest",
    "list_folder",
    "lookup",
    "names_want_rebuild",
    "rebuild_names",
    "remove_set",
    "set_as_of",
    "sets",
    "sources_of",
    "usage",
    "versions",
]

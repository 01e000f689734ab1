"""The index over one SQLite file: all that can be done with it, as functions over a connection.

Those that change something want to be called inside a transaction (``database/`` gives one); ``ingest`` makes its own
savepoint.
"""

from caso_mesh.catalog.browse import Version, folder_size, implied, list_folder, lookup, versions
from caso_mesh.catalog.ingest import Ingest, IngestResult, SliceLost, ingest
from caso_mesh.catalog.names import rebuild as rebuild_names
from caso_mesh.catalog.names import wants_rebuild as names_want_rebuild
from caso_mesh.catalog.removal import abandon_all, remove_set
from caso_mesh.catalog.schema import MIGRATIONS
from caso_mesh.catalog.search import Match, find
from caso_mesh.catalog.sets import add_set, has_detail, set_as_of, sets

__all__ = [
    "MIGRATIONS",
    "Ingest",
    "IngestResult",
    "Match",
    "SliceLost",
    "Version",
    "abandon_all",
    "add_set",
    "find",
    "folder_size",
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
    "versions",
]

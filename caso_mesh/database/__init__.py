"""SQLite: opening, pragmas, numbered migrations, one writer with group commit; a threaded form and a same-thread
form for simulation. Only this room opens connections.

It must not know what is stored.
"""

from caso_mesh.database.aside import is_whole, put_aside, read_damaged, readable
from caso_mesh.database.database import Database
from caso_mesh.database.mending import MendingDatabase
from caso_mesh.database.migration import Migration

__all__ = ["Database", "MendingDatabase", "Migration", "is_whole", "put_aside", "read_damaged", "readable"]

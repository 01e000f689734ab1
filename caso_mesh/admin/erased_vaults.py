"""Vaults that were erased, in the tables: what was in one is gone, in whichever order that and the sets are told of."""

from __future__ import annotations

import sqlite3

import msgspec

from caso_mesh.admin import catalog_details, kept_catalogs
from caso_mesh.model import facts
from caso_mesh.model.storage import BackupSet

TABLE = "CREATE TABLE erased_vault (vault TEXT, device TEXT, PRIMARY KEY (vault, device)) STRICT;"


def write(c: sqlite3.Connection, fact: facts.VaultErased) -> None:
    """All sets of it that are known are gone."""
    c.execute("INSERT OR IGNORE INTO erased_vault VALUES (?, ?)", (fact.vault, fact.device))
    decode = msgspec.msgpack.Decoder(BackupSet).decode
    for row in c.execute("SELECT data FROM backup_set WHERE device = ?", (fact.device,)).fetchall():
        backup = decode(row[0])
        if backup.vault == fact.vault:
            forget(c, backup.id, backup.device)


def took(c: sqlite3.Connection, backup: BackupSet) -> bool:
    """Whether a set that is told of now was in one of them; then it is gone."""
    sql = "SELECT 1 FROM erased_vault WHERE vault = ? AND device = ?"
    if c.execute(sql, (backup.vault, backup.device)).fetchone() is None:
        return False
    forget(c, backup.id, backup.device)
    return True


def forget(c: sqlite3.Connection, set_id: str, device: str, request: str = "") -> None:
    """A set is gone from its device. Of several that say so the first one that was asked for by a request is remembered."""
    c.execute(
        "INSERT INTO set_gone (set_id, device, request) VALUES (?, ?, ?) ON CONFLICT (set_id, device) DO UPDATE"
        " SET request = excluded.request WHERE request = ''",
        (set_id, device, request),
    )
    c.execute("DELETE FROM backup_set WHERE id = ?", (set_id,))
    catalog_details.forget(c, set_id)
    kept_catalogs.forget(c, set_id)

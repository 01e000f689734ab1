"""The administrator's tables: a copy of all journals, and what their facts mean. All of it can be made again from the
journals.

Every row keeps who reported it: what a server says of itself is its own word, and can neither replace nor hide what
another one said. Who is to be believed of an attempt is for the reader to decide, by the control state."""

from __future__ import annotations

from collections.abc import Sequence

from caso_mesh.admin import (
    audit_chain,
    audit_rows,
    catalog_details,
    erased_vaults,
    kept_catalogs,
    local_runs,
    missing_sets,
    set_rows,
    totals,
)
from caso_mesh.journal.replica import ARRIVALS, FLOORS
from caso_mesh.journal.replica import MIGRATION as REPLICA

MIGRATIONS: Sequence[str] = (
    REPLICA
    + """
    CREATE TABLE attempt (
        id TEXT NOT NULL, reporter TEXT NOT NULL, run TEXT NOT NULL,
        state TEXT NOT NULL, type TEXT, started_at_ns INTEGER, ended_at_ns INTEGER, seconds REAL,
        counts BLOB, set_id TEXT, failure BLOB,
        PRIMARY KEY (id, reporter)
    ) STRICT;
    CREATE INDEX attempt_by_run ON attempt (run);
    CREATE TABLE exception (
        attempt TEXT NOT NULL, path BLOB NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL, reporter TEXT NOT NULL
    ) STRICT;
    CREATE INDEX exception_by_attempt ON exception (attempt);
    CREATE TABLE log_line (
        attempt TEXT NOT NULL, at_ns INTEGER NOT NULL, level TEXT NOT NULL, text TEXT NOT NULL, server TEXT NOT NULL
    ) STRICT;
    CREATE INDEX log_line_by_attempt ON log_line (attempt);
    CREATE TABLE backup_set (
        id TEXT PRIMARY KEY, data BLOB NOT NULL, source TEXT NOT NULL, server TEXT NOT NULL, device TEXT NOT NULL,
        attempt TEXT NOT NULL, ended_at_ns INTEGER NOT NULL, bytes_stored INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX backup_set_by_end ON backup_set (ended_at_ns);
    CREATE INDEX backup_set_by_attempt ON backup_set (attempt);
    CREATE TABLE catalog_detail (
        set_id TEXT PRIMARY KEY, server TEXT NOT NULL, digest BLOB NOT NULL, size INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('pending', 'here', 'damaged'))
    ) STRICT;
    CREATE INDEX catalog_detail_by_state ON catalog_detail (state);
    CREATE TABLE medium (
        server TEXT NOT NULL, label TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (server, label)
    ) STRICT;
    CREATE TABLE alert (
        id TEXT NOT NULL, raised_at_ns INTEGER NOT NULL, server TEXT NOT NULL, alert TEXT NOT NULL,
        category TEXT NOT NULL, object TEXT NOT NULL, text TEXT NOT NULL, cleared_at_ns INTEGER,
        PRIMARY KEY (server, id)
    ) STRICT;
    CREATE INDEX alert_by_time ON alert (raised_at_ns);
    CREATE TABLE audit (
        at_ns INTEGER NOT NULL, server TEXT NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, category TEXT NOT NULL,
        outcome TEXT NOT NULL, source TEXT NOT NULL, fields BLOB NOT NULL
    ) STRICT;
    CREATE INDEX audit_by_time ON audit (at_ns);
    """,
    """
    CREATE TABLE set_gone (
        set_id TEXT NOT NULL, device TEXT NOT NULL, request TEXT NOT NULL, forgotten INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (set_id, device)
    ) STRICT;
    CREATE INDEX set_gone_by_request ON set_gone (request);
    CREATE TABLE set_lock (
        set_id TEXT NOT NULL, device TEXT NOT NULL, until_ns INTEGER, PRIMARY KEY (set_id, device)
    ) STRICT;
    """,
    ARRIVALS,
    "ALTER TABLE attempt ADD COLUMN predicted BLOB;",
    FLOORS,
    # the end of an alert may lie in the journal of another server, and come before the alert itself
    """
    CREATE TABLE alert_end (
        server TEXT NOT NULL, id TEXT NOT NULL, at_ns INTEGER NOT NULL, PRIMARY KEY (server, id)
    ) STRICT;
    INSERT INTO alert_end SELECT server, id, cleared_at_ns FROM alert WHERE cleared_at_ns IS NOT NULL;
    """,
    """
    CREATE TABLE run_wait (
        run TEXT NOT NULL, source TEXT NOT NULL, reporter TEXT NOT NULL, since_ns INTEGER NOT NULL,
        reason TEXT NOT NULL, fields BLOB NOT NULL,
        PRIMARY KEY (run, source, reporter, since_ns)
    ) STRICT;
    """,
    local_runs.TABLE,
    local_runs.LISTED,
    set_rows.INDICES,
    """
    CREATE TABLE notice_sent (
        recipient TEXT NOT NULL, key TEXT NOT NULL, message TEXT NOT NULL, at_ns INTEGER NOT NULL, given_up TEXT NOT NULL,
        PRIMARY KEY (recipient, key)
    ) STRICT;
    CREATE INDEX notice_sent_by_time ON notice_sent (at_ns);
    CREATE INDEX notice_sent_by_key ON notice_sent (key);
    """,
    totals.TABLE,
    kept_catalogs.TABLE,
    audit_rows.MIGRATION,
    "CREATE TABLE file_systems (server TEXT PRIMARY KEY, at_ns INTEGER NOT NULL, data BLOB NOT NULL) STRICT;",
    missing_sets.TABLE,
    "ALTER TABLE attempt ADD COLUMN found BLOB;",
    audit_chain.MIGRATION,
    erased_vaults.TABLE,
    "ALTER TABLE attempt ADD COLUMN kind TEXT;",
    "ALTER TABLE attempt ADD COLUMN catalogued BLOB;",
    catalog_details.APART,
)

"""``caso-mesh commands``: ready entries for the ``[commands]`` of a server's own file."""

from __future__ import annotations

import shutil
import sys
from typing import Annotated, Literal

from caso_mesh.cli.grammar import Group, Parameter

app = Group(name="commands", help="Commands of this server's own file that jobs may name.")

#: Program, and where it is when it is not installed here.
_PROGRAMS = {
    "pg_dumpall": "/usr/bin/pg_dumpall",
    "psql": "/usr/bin/psql",
    "mysqldump": "/usr/bin/mysqldump",
    "mysql": "/usr/bin/mysql",
    "sqlite3": "/usr/bin/sqlite3",
}

_POSTGRESQL = """\
# PostgreSQL: all databases and roles of a server, as its own user (the daemon has to run as root for that); as another
# role with --logon NAME, which comes as PGUSER and PGPASSWORD.
#   caso-mesh backup SERVER:@postgresql --to any
#   caso-mesh restore SET --into-command postgresql-restore
[commands.postgresql]
kind = "dump"
argv = ["{pg_dumpall}", "--no-password", "--clean", "--if-exists"]
user = "postgres"
logon = { user = "PGUSER", secret = "PGPASSWORD" }

[commands.postgresql-restore]
kind = "restore"
argv = ["{psql}", "--no-password", "--no-psqlrc", "--quiet", "--dbname", "postgres"]
user = "postgres"
logon = { user = "PGUSER", secret = "PGPASSWORD" }
"""
_MYSQL = """\
# MySQL and MariaDB: all databases, each InnoDB table as of one moment. User and password are those of --logon NAME, or of
# .my.cnf in the home of the user: readable by its owner only, with the lines "[client]", "user=root", "password=...".
#   caso-mesh backup SERVER:@mysql --to any --logon NAME
#   caso-mesh restore SET --into-command mysql-restore
[commands.mysql]
kind = "dump"
argv = ["/bin/sh", "-c", '''
exec {mysqldump} ${CASO_MESH_LOGON_USER:+--user="$CASO_MESH_LOGON_USER"} --all-databases --single-transaction --quick \\
    --routines --events --triggers
''']
logon = { secret = "MYSQL_PWD" }

[commands.mysql-restore]
kind = "restore"
argv = ["/bin/sh", "-c", '''
exec {mysql} ${CASO_MESH_LOGON_USER:+--user="$CASO_MESH_LOGON_USER"}
''']
logon = { secret = "MYSQL_PWD" }
"""
_SQLITE = """\
# SQLite: one database, consistent while others write to it. Put its path in the place of /srv/app/data.db, twice; a
# restore makes a new file and never writes to the old one.
#   caso-mesh backup SERVER:@sqlite --to any
#   caso-mesh restore SET --into-command sqlite-restore
[commands.sqlite]
kind = "dump"
argv = ["/bin/sh", "-c", '''
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
{sqlite3} -readonly "$1" ".timeout 60000" ".backup $folder/copy.db"
cat "$folder/copy.db"
''', "sqlite", "/srv/app/data.db"]

[commands.sqlite-restore]
kind = "restore"
argv = ["/bin/sh", "-c", '''
set -eu
new=$(mktemp "$1.restored.XXXXXX")
cat >"$new"
test "$({sqlite3} -readonly "$new" "PRAGMA integrity_check")" = ok
rm -f "$new-wal" "$new-shm"
echo "restored to $new"
''', "sqlite-restore", "/srv/app/data.db"]
"""
_PRESETS = {"postgresql": _POSTGRESQL, "mysql": _MYSQL, "sqlite": _SQLITE}


@app.command
def preset(
    name: Annotated[Literal["postgresql", "mysql", "sqlite"], Parameter(name="DATABASE", help="Which database.")],
    /,
) -> None:
    """Print ready entries for config.toml: a dump of a database and what restores it."""
    text = _PRESETS[name]
    for program, usual in _PROGRAMS.items():
        text = text.replace(f"{{{program}}}", shutil.which(program) or usual)
    sys.stdout.write(text)

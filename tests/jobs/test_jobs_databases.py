"""The presets with real databases: SQLite, and a private PostgreSQL if it is installed."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import shutil
import sqlite3
import subprocess
import tomllib

import msgspec
import pytest
from job_site import run
from msgspec import structs

from caso_mesh.cli import commands as presets
from caso_mesh.config import CommandConfig
from caso_mesh.model.host_commands import HostCommand
from caso_mesh.model.states import AttemptState

_BINARIES = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))


def preset(name: str, capsys, *replace: tuple[str, str]) -> dict[str, HostCommand]:
    """The commands of a preset as the configuration file has them."""
    presets.preset(name)
    text = capsys.readouterr().out
    for old, new in replace:
        assert old in text
        text = text.replace(old, new)
    sections = msgspec.convert(tomllib.loads(text)["commands"], dict[str, CommandConfig])
    return {each: command.host_command() for each, command in sections.items()}


async def there_and_back(site, runner, commands: dict[str, HostCommand], name: str) -> list[str]:
    """Dumps, then restores into the restore command; the lines of the second job log."""
    heard = await run(runner, site.task(site.backup_spec(f"/@dumps/{name}"), commands=commands))
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    spec = structs.replace(site.restore_spec(heard.set.id, None, f"@dumps/{name}"), into_command=f"{name}-restore")
    back = await run(runner, site.task(spec, commands=commands))
    assert back.ended.state is AttemptState.SUCCEEDED, back.lines
    return back.lines


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the program sqlite3 is not installed")
async def test_an_sqlite_database_that_is_written_to_comes_back_consistent(site, runner, tmp_path, capsys):
    path = tmp_path / "it's data.db"
    with contextlib.closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE entry (number INTEGER, text TEXT)")
        writer.executemany("INSERT INTO entry VALUES (?, ?)", [(n, f"entry {n}") for n in range(5000)])
        writer.commit()
        writer.execute("INSERT INTO entry VALUES (-1, 'not committed')")
        commands = preset("sqlite", capsys, ('"/srv/app/data.db"', f'"{path}"'))
        lines = await there_and_back(site, runner, commands, "sqlite")
    (restored,) = tmp_path.glob("it's data.db.restored.*")
    assert any(str(restored.name) in line for line in lines)
    with contextlib.closing(sqlite3.connect(restored)) as reader:
        assert reader.execute("SELECT count(*), sum(number) FROM entry").fetchone() == (5000, sum(range(5000)))


def test_the_presets_are_entries_that_the_configuration_takes(capsys):
    for name in ("postgresql", "mysql", "sqlite"):
        commands = preset(name, capsys)
        assert {command.kind.value for command in commands.values()} == {"dump", "restore"}
        assert all(command.argv[0].startswith("/") for command in commands.values())


class Cluster:
    """A private PostgreSQL on a socket in a folder, as an unprivileged user."""

    def __init__(self, folder: pathlib.Path, user: str) -> None:
        self.user = user
        self.socket = folder
        self._data = folder / "data"
        self._as = [] if os.geteuid() else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        self._run(str(_BINARIES[-1] / "initdb"), "-D", str(self._data), "-A", "trust", "-U", "postgres", "--no-sync")

    def start(self) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self.socket} -c fsync=off"
        self._run(str(_BINARIES[-1] / "pg_ctl"), "-D", str(self._data), "-o", options, "-w", "-l",
                  str(self.socket / "log"), "start")  # fmt: skip

    def stop(self) -> None:
        self._run(str(_BINARIES[-1] / "pg_ctl"), "-D", str(self._data), "-m", "immediate", "-w", "stop")

    def sql(self, text: str, database: str = "postgres") -> str:
        return self._run(
            str(_BINARIES[-1] / "psql"), "-h", str(self.socket), "-U", "postgres", "-d", database, "-At",
            "-v", "ON_ERROR_STOP=1", "-c", text,
        ).strip()  # fmt: skip

    def _run(self, *argv: str) -> str:
        done = subprocess.run(
            [*self._as, *argv],
            capture_output=True,
            text=True,
            cwd="/",
            timeout=200,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, (argv, done.stdout, done.stderr)
        return done.stdout


@pytest.fixture
def clusters(tmp_path_factory):
    """Two of them, empty."""
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    # a socket's path has at most 107 bytes, and the user must reach it
    folders = [pathlib.Path(subprocess.check_output(["mktemp", "-d"], text=True).strip()) for _ in range(2)]
    with contextlib.ExitStack() as stack:
        made = []
        for folder in folders:
            stack.callback(shutil.rmtree, folder)
            if os.geteuid() == 0:
                shutil.chown(folder, user, user)
            cluster = Cluster(folder, user)
            cluster.start()
            stack.callback(cluster.stop)
            made.append(cluster)
        yield made


@pytest.mark.skipif(not _BINARIES, reason="PostgreSQL is not installed")
@pytest.mark.skipif(not _BINARIES or not shutil.which("setpriv"), reason="setpriv is not installed")
async def test_a_postgresql_server_comes_back_in_another_one(site, runner, clusters, capsys):
    old, new = clusters
    old.sql("CREATE DATABASE accounts")
    old.sql("CREATE ROLE clerk LOGIN")
    old.sql(
        "CREATE TABLE entry (number int PRIMARY KEY, text text); "
        "INSERT INTO entry SELECT n, md5(n::text) FROM generate_series(1, 20000) n; GRANT SELECT ON entry TO clerk",
        "accounts",
    )
    commands = preset("postgresql", capsys)
    own = "" if os.geteuid() else old.user
    place = {"PGUSER": "postgres"}
    commands["postgresql"] = structs.replace(
        commands["postgresql"], user=own, environment={**place, "PGHOST": str(old.socket)}
    )
    commands["postgresql-restore"] = structs.replace(
        commands["postgresql-restore"], user=own, environment={**place, "PGHOST": str(new.socket)}
    )
    await there_and_back(site, runner, commands, "postgresql")
    digest = "SELECT count(*), md5(string_agg(number || text, '' ORDER BY number)) FROM entry"
    assert new.sql(digest, "accounts") == old.sql(digest, "accounts")
    assert new.sql("SELECT has_table_privilege('clerk', 'entry', 'SELECT')", "accounts") == "t"

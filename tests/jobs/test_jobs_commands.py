"""Commands of a server's own file: dumps, what restores them, and what runs before and after a backup."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import signal
import sys
import time

import pytest
from job_site import run, run_pair
from msgspec import structs
from waiting import wait_for

from caso_mesh.jobs import messages as say
from caso_mesh.jobs.host_commands import LONGEST_LINE, without_secret
from caso_mesh.model.errors import CommandFailed, CommandNotAllowed, ContainsNoData
from caso_mesh.model.host_commands import CommandKind, HostCommand
from caso_mesh.model.logons import Credentials, LogonVariables
from caso_mesh.model.states import AttemptState, BackupType

#: 24 MB that do not compress, the same each time; says what it does.
PLENTY = "import random, sys; sys.stderr.write('first line\\nsecond line\\n'); r = random.Random(7)\n"
PLENTY += "for _ in range(24): sys.stdout.buffer.write(r.randbytes(1 << 20))"


def command(kind: CommandKind, *argv: str, limit_s: float = 60.0, **environment: str) -> HostCommand:
    return HostCommand(kind, argv, "", limit_s, environment)


def python(kind: CommandKind, text: str, **more) -> HostCommand:
    return command(kind, sys.executable, "-c", text, **more)


def shell(kind: CommandKind, text: str, **more) -> HostCommand:
    return command(kind, "/bin/sh", "-c", text, **more)


def dump(text: str, **more) -> HostCommand:
    return shell(CommandKind.DUMP, text, **more)


def with_commands(**commands: HostCommand):
    """For ``run_pair``: the end where the files are has these."""
    return lambda device, source: (device, structs.replace(source, commands=commands))


async def backup(site, runner, *roots, commands, **spec):
    return await run(runner, site.task(site.backup_spec(*roots, **spec), commands=commands))


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


async def test_what_a_dump_writes_comes_back_byte_for_byte_and_is_stored_once(site, runner, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"a file")
    plenty = {"plenty": python(CommandKind.DUMP, PLENTY)}
    heard = await backup(site, runner, tmp_path / "a", "/@dumps/plenty", commands=plenty)
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    assert heard.set.files == 2 and heard.set.bytes == (24 << 20) + 6
    assert {"plenty: first line", "plenty: second line"} <= set(heard.lines)

    again = await backup(site, runner, tmp_path / "a", "/@dumps/plenty", commands=plenty, type_=BackupType.INCREMENTAL)
    assert again.ended.state is AttemptState.SUCCEEDED, again.lines
    assert again.set.parent == heard.set.id and again.set.bytes_stored < 1 << 20

    back = await run(runner, site.task(site.restore_spec(again.set.id, tmp_path / "out", strip=True)))
    assert back.ended.state is AttemptState.SUCCEEDED, back.lines
    assert (tmp_path / "out" / "plenty").stat().st_size == 24 << 20
    assert (tmp_path / "out" / "file").read_bytes() == b"a file"

    copy = tmp_path / "copy"
    into = {"into": shell(CommandKind.RESTORE, f"cat > {copy}; echo done >&2")}
    spec = structs.replace(site.restore_spec(again.set.id, None, "@dumps/plenty"), into_command="into")
    fed = await run(runner, site.task(spec, commands=into))
    assert fed.ended.state is AttemptState.SUCCEEDED, fed.lines
    assert "into: done" in fed.lines
    assert copy.read_bytes() == (tmp_path / "out" / "plenty").read_bytes()


async def test_dumps_of_a_server_far_away_are_stored_and_fed_to_a_command_there(site, runners, tmp_path):
    (tmp_path / "z").write_bytes(b"file")
    commands = {
        "plenty": python(CommandKind.DUMP, PLENTY),
        "other": dump("echo other"),
        "before": shell(CommandKind.PRE, f"echo before >> {tmp_path}/told"),
        "after": shell(CommandKind.POST, f"echo after-$CASO_MESH_RESULT >> {tmp_path}/told"),
    }
    spec = site.backup_spec(
        "/@dumps/plenty", tmp_path / "z", "/@dumps/other", source=site.beta, pre="before", post="after"
    )
    device, source = await run_pair(site, runners, spec, change=with_commands(**commands))
    assert device.ended.state is AttemptState.SUCCEEDED, device.lines + source.lines
    assert device.set.files == 3
    assert "plenty: second line" in source.lines
    assert (tmp_path / "told").read_text() == "before\nafter-succeeded\n"

    copy = tmp_path / "copy"
    spec = structs.replace(
        site.restore_spec(device.set.id, None, "@dumps/plenty", server=site.beta), into_command="into"
    )
    into = shell(CommandKind.RESTORE, f"cat > {copy}")
    device, source = await run_pair(site, runners, spec, change=with_commands(into=into))
    assert device.ended.state is AttemptState.SUCCEEDED, device.lines + source.lines
    assert copy.stat().st_size == 24 << 20


@pytest.mark.parametrize(
    ("text", "detail"),
    [("echo half; exit 3", "exit status 3"), ("echo half; kill -9 $$", "signal 9"), ("exec sleep 600", "time limit")],
)
async def test_a_dump_that_fails_publishes_nothing(site, runner, text, detail):
    heard = await backup(site, runner, "/@dumps/bad", commands={"bad": dump(text, limit_s=1.0)})
    assert heard.ended.state is AttemptState.FAILED
    assert heard.ended.failure.code == CommandFailed.code and detail in str(heard.ended.failure.fields)
    assert site.sets() == []


async def test_a_dump_that_fails_far_away_publishes_nothing(site, runners):
    spec = site.backup_spec("/@dumps/bad", source=site.beta)
    device, source = await run_pair(site, runners, spec, change=with_commands(bad=dump("echo half; exit 3")))
    assert source.ended.failure.code == device.ended.failure.code == CommandFailed.code
    assert site.sets() == []


async def test_a_dump_that_succeeds_with_nothing_contains_no_data(site, runner):
    heard = await backup(site, runner, "/@dumps/empty", commands={"empty": dump("true")})
    assert heard.ended.failure.code == ContainsNoData.code
    assert site.sets() == []


async def test_only_what_the_task_allows_is_run_and_only_as_its_kind(site, runner, tmp_path):
    mark = tmp_path / "mark"
    for commands in ({}, {"x": shell(CommandKind.PRE, f"touch {mark}")}):
        heard = await backup(site, runner, "/@dumps/x", commands=commands)
        assert heard.ended.failure.code == CommandNotAllowed.code
    assert not mark.exists()


async def test_a_program_that_is_not_there_or_a_user_that_may_not_is_said(site, runner):
    heard = await backup(site, runner, "/@dumps/x", commands={"x": command(CommandKind.DUMP, "/no/such/program")})
    assert "No such file" in str(heard.ended.failure.fields)
    absent = HostCommand(CommandKind.DUMP, ("/bin/true",), "no-such-user", 60.0)
    heard = await backup(site, runner, "/@dumps/x", commands={"x": absent})
    assert "there is no user no-such-user" in str(heard.ended.failure.fields)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_a_command_runs_as_its_user_with_a_bare_environment(site, runner, tmp_path):
    told = tmp_path / "told"
    told.touch()
    told.chmod(0o666)
    for place in (tmp_path, *tmp_path.parents):
        if os.stat(place).st_uid == os.geteuid() and place != place.parent:
            place.chmod(place.stat().st_mode | 0o011)
    text = f"id -un > {told}; env >> {told}; cat /proc/self/fd/0 > /dev/null; ls /proc/self/fd >> {told}; echo x"
    who = HostCommand(CommandKind.DUMP, ("/bin/sh", "-c", text), "nobody", 60.0, {"PGHOST": "here"})
    heard = await backup(site, runner, "/@dumps/who", commands={"who": who})
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    lines = told.read_text().splitlines()
    assert lines[0] == "nobody" and "PGHOST=here" in lines
    names = {line.partition("=")[0] for line in lines[1:] if "=" in line}
    assert names <= {"PATH", "LANG", "HOME", "USER", "LOGNAME", "PGHOST", "PWD", "SHLVL", "_", "OLDPWD"}
    # its three streams, and the folder that ls itself looks at
    assert [line for line in lines if line.isdigit()] == ["0", "1", "2", "3"]


async def test_the_job_runs_only_if_what_comes_before_it_succeeds(site, runner, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    told = tmp_path / "told"
    commands = {
        "before": shell(CommandKind.PRE, f"echo before >> {told}; exit 4"),
        "after": shell(CommandKind.POST, f"echo after-$CASO_MESH_RESULT >> {told}; exit 5"),
    }

    async def attempt(**spec):
        told.write_text("")
        heard = await backup(
            site, runner, tmp_path / "file", commands=commands, **{"pre": "before", "post": "after", **spec}
        )
        return heard, told.read_text().split()

    heard, order = await attempt()
    assert heard.ended.failure.code == CommandFailed.code and order == ["before"]
    heard, order = await attempt(post_always=True)
    assert heard.ended.failure.code == CommandFailed.code and order == ["before", "after-failed"]
    assert site.sets() == []
    heard, order = await attempt(ignore_exit_codes=True)
    assert heard.ended.state is AttemptState.SUCCEEDED and order == ["before", "after-succeeded"]
    heard, order = await attempt(pre=None)
    assert heard.ended.state is AttemptState.SUCCEEDED_WITH_EXCEPTIONS and order == ["after-succeeded"]
    assert [each.reason for each in heard.exceptions] == ["command-failed"]


async def test_a_command_and_all_it_started_ends_with_a_killed_worker(site, runner, tmp_path):
    """Also what has left its process group, and nothing takes the death of the worker for the end of its input."""
    pids, ended = tmp_path / "pids", tmp_path / "ended"
    text = f"setsid sleep 600 & echo $! > {pids}; echo $$ >> {pids}; sleep 600"
    worker = await runner.start(site.task(site.backup_spec("/@dumps/x"), commands={"x": dump(text)}))
    await wait_for_lines(pids, 2)
    started = [int(pid) for pid in pids.read_text().split()]
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: not any(is_alive(pid) for pid in started), 30.0, what="the commands have ended")
    messages = [message async for message in worker.messages()]
    assert isinstance(messages[-1], say.Ended)

    heard = await backup(site, runner, "/@dumps/plenty", commands={"plenty": python(CommandKind.DUMP, PLENTY)})
    into = shell(CommandKind.RESTORE, f"echo $$ > {pids}; sleep 1; cat > /dev/null && touch {ended}")
    spec = structs.replace(site.restore_spec(heard.set.id, None, "@dumps/plenty"), into_command="into")
    pids.unlink()
    worker = await runner.start(site.task(spec, commands={"into": into}))
    await wait_for_lines(pids, 1)
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(int(pids.read_text())), 30.0, what="the command has ended")
    assert not ended.exists()
    assert [message async for message in worker.messages()]


async def wait_for_lines(path, count: int) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or len(path.read_text().split()) < count:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_cancel_ends_the_command_at_once(site, runner, tmp_path):
    pids, told = tmp_path / "pids", tmp_path / "told"
    commands = {
        "slow": dump(f"echo $$ > {pids}; sleep 600"),
        "after": shell(CommandKind.POST, f"echo $CASO_MESH_RESULT > {told}"),
    }
    spec = site.backup_spec("/@dumps/slow", post="after", post_always=True)
    worker = await runner.start(site.task(spec, commands=commands))
    await wait_for_lines(pids, 1)
    await worker.send(say.Cancel())
    messages = [message async for message in worker.messages()]
    assert messages[-1].state is AttemptState.CANCELED
    assert not is_alive(int(pids.read_text())) and told.read_text() == "failed\n"


async def test_a_cancel_does_not_end_the_command_that_leaves_the_source_as_it_was(site, runner, tmp_path):
    """It was asked to end, killed after five seconds, and never run again."""
    (tmp_path / "file").write_bytes(b"x")
    began, go_on, told = (tmp_path / name for name in ("began", "go-on", "told"))
    text = f"echo 1 > {began}; until [ -e {go_on} ]; do sleep 0.1; done; echo $CASO_MESH_RESULT > {told}"
    spec = site.backup_spec(tmp_path / "file", post="after")
    worker = await runner.start(site.task(spec, commands={"after": shell(CommandKind.POST, text, limit_s=45.0)}))
    await wait_for_lines(began, 1)
    await worker.send(say.Cancel())
    go_on.touch()
    messages = [message async for message in worker.messages()]
    assert (messages[-1].state, told.read_text()) == (AttemptState.CANCELED, "succeeded\n")
    assert site.sets() == [] and say.CleansUp(45.0) in messages


async def test_a_worker_is_gone_when_none_of_its_processes_is_left(site, runner, tmp_path):
    """The next attempt writes the same files. The command that a worker feeds, and who watches over it, live a moment longer
    than a worker that was killed."""
    pids = tmp_path / "pids"
    heard = await backup(site, runner, "/@dumps/plenty", commands={"plenty": python(CommandKind.DUMP, PLENTY)})
    into = shell(
        CommandKind.RESTORE, f"setsid sleep 600 & echo $! > {pids}; echo $$ >> {pids}; echo $PPID >> {pids}; wait"
    )
    spec = structs.replace(site.restore_spec(heard.set.id, None, "@dumps/plenty"), into_command="into")
    worker = await runner.start(site.task(spec, commands={"into": into}))
    await wait_for_lines(pids, 3)
    kin = [int(pid) for pid in pids.read_text().split()]
    lock = os.stat(tmp_path / "run" / "workers.lock")
    held = [os.stat(f"/proc/{kin[2]}/fd/{name}") for name in os.listdir(f"/proc/{kin[2]}/fd")]
    # and the next daemon waits for it, if it is this one that dies
    assert (lock.st_dev, lock.st_ino) in {(each.st_dev, each.st_ino) for each in held}
    os.kill(kin[2], signal.SIGSTOP)  # whatever it will do, it does later
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(worker.pid), 30.0, what="the worker has ended")
    gone = asyncio.ensure_future(worker.gone())
    await asyncio.sleep(0.1)
    assert not gone.done() and all(map(is_alive, kin))
    os.kill(kin[2], signal.SIGCONT)
    await asyncio.wait_for(gone, 30)
    assert not any(map(is_alive, kin[:2]))  # who watches over them is on its way out
    assert [message async for message in worker.messages()]


async def test_what_a_command_leaves_behind_is_ended(site, runner, tmp_path):
    pids = tmp_path / "pids"
    heard = await backup(
        site, runner, "/@dumps/x",
        commands={"x": dump(f"(setsid sleep 600 </dev/null >/dev/null 2>&1 & echo $! > {pids}); sleep 0.2; echo data")},
    )  # fmt: skip
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    assert not is_alive(int(pids.read_text()))


async def test_a_command_that_does_not_read_its_input_or_fails_fails_the_restore(site, runner):
    heard = await backup(site, runner, "/@dumps/plenty", commands={"plenty": python(CommandKind.DUMP, PLENTY)})
    for text, detail in (("exit 0", "before it had read everything"), ("cat >/dev/null; exit 9", "exit status 9")):
        spec = structs.replace(site.restore_spec(heard.set.id, None, "@dumps/plenty"), into_command="into")
        back = await run(runner, site.task(spec, commands={"into": shell(CommandKind.RESTORE, text)}))
        assert back.ended.failure.code == CommandFailed.code and detail in str(back.ended.failure.fields)


async def test_a_real_file_with_the_reserved_name_is_an_exception_and_never_mixed_with_dumps(site, runner, tmp_path):
    """Nothing makes /@dumps here: the walk is shown one below a root of another name, which is kept."""
    (tmp_path / "@dumps").mkdir()
    (tmp_path / "@dumps" / "x").write_bytes(b"a real file")
    heard = await backup(site, runner, tmp_path / "@dumps", "/@dumps/x", commands={"x": dump("echo dump")})
    assert heard.ended.state is AttemptState.SUCCEEDED and heard.set.files == 2


async def test_lines_without_end_fill_no_memory_and_no_job_log(site, runner):
    text = "import sys\nfor n in range(5000): sys.stderr.write('x' * 3000 + '\\n')\nprint('data')"
    heard = await backup(site, runner, "/@dumps/x", commands={"x": python(CommandKind.DUMP, text)})
    assert heard.ended.state is AttemptState.SUCCEEDED
    told = [line for line in heard.lines if line.startswith("x: ")]
    assert len(told) == 1001 and "more lines are left out" in told[-1] and max(map(len, told)) <= 2010


async def test_workers_and_their_commands_give_way_as_the_setting_says(site, runner, tmp_path):
    found = tmp_path / "nice"
    spec = site.backup_spec("/@dumps/nice")
    own = os.getpriority(os.PRIO_PROCESS, 0)
    for wanted in (0, 11):
        heard = await run(runner, site.task(spec, commands={"nice": dump(f"nice | tee {found}")}, nice=wanted))
        assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
        assert int(found.read_text()) == max(own, wanted)


@pytest.mark.skipif(shutil.which("ionice") is None, reason="there is no ionice here to ask")
@pytest.mark.parametrize(
    ("wanted", "said"),
    [("best-effort-6", "best-effort: prio 6"), ("idle", "idle"), ("none", "none: prio"), ("odd", "none: prio")],
)
async def test_workers_and_their_commands_give_way_on_disks_as_the_setting_says(site, runner, tmp_path, wanted, said):
    found = tmp_path / "ionice"
    spec = site.backup_spec("/@dumps/ionice")
    heard = await run(runner, site.task(spec, commands={"ionice": dump(f"ionice -p $$ | tee {found}")}, ionice=wanted))
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    assert found.read_text().startswith(said)
    assert any("worker-ionice odd could not be set" in line for line in heard.lines) == (wanted == "odd")


async def test_a_command_finds_its_logon_in_the_variables_that_its_own_entry_names(site, runner, tmp_path):
    told = tmp_path / "told"
    words = f'echo "$PGUSER $PGPASSWORD $CASO_MESH_LOGON_USER" >> {told}; echo dumped; echo "I am $PGPASSWORD." >&2'
    given = Credentials("backup", "s3cret phrase")
    postgresql = structs.replace(dump(words), variables=LogonVariables("PGUSER", "PGPASSWORD"), logon=given)
    general = f'echo "$CASO_MESH_LOGON_USER $CASO_MESH_LOGON_SECRET" >> {told}'
    commands = {
        "pg": postgresql,
        "before": structs.replace(shell(CommandKind.PRE, general), logon=given),
        "after": shell(CommandKind.POST, general),
    }
    heard = await backup(site, runner, "/@dumps/pg", commands=commands, pre="before", post="after")
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    assert told.read_text() == "backup s3cret phrase\nbackup s3cret phrase \n \n"
    assert "pg: I am ***." in heard.lines
    assert not any("s3cret" in line for line in heard.lines)


@pytest.mark.parametrize("before", [LONGEST_LINE - 3, LONGEST_LINE - 1, LONGEST_LINE, 2 * LONGEST_LINE + 1, 0])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_the_secret_of_a_command_is_in_no_piece_of_a_line_that_is_cut(before, end):
    line = b"x" * before + b"s3cret" + b"y" * 9 + end
    pieces = io.BytesIO(line + b"next")
    heard = list(without_secret(iter(lambda: pieces.readline(LONGEST_LINE), b""), b"s3cret"))
    whole = b"".join(heard)
    assert b"s3cret" not in whole and whole == line.replace(b"s3cret", b"***") + b"next"

"""The node's own configuration file."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from caso_mesh.config import Allow, CommandConfig, Config, DiscoveryConfig, MetricsConfig, load_config, write_config
from caso_mesh.model.errors import ConfigInvalid, StateDiskFailed, StateMissing
from caso_mesh.model.host_commands import CommandKind, HostCommand
from caso_mesh.model.logons import LogonVariables

GOOD = 'server = "alpha"\nlisten = "127.0.0.1:7300"\n'


def load(tmp_path: Path, text: str | bytes) -> Config:
    path = tmp_path / "config.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path)


def test_what_was_written_is_read_back_whatever_the_paths_are_called(tmp_path: Path) -> None:
    config = Config(
        server="alpha",
        listen="[::1]:7300",
        advertise=("alpha.example:7300",),
        preset="wan",
        peers=("192.0.2.7:7300",),
        allow=Allow(read=('/a "quoted" \\ place', "/tab\tand\nline", "/del\x7f", "/ünï"), write=()),
        discovery=DiscoveryConfig(mdns=False, interfaces=("192.0.2.1",)),
        metrics=MetricsConfig("127.0.0.1:9464", "/a/cert.pem", "/a/key.pem"),
        commands={
            "a.dump": CommandConfig(CommandKind.DUMP, ("/bin/x", 'a "b"\n\\'), "me", "2h", {"A B": 'c"'}),
            "b": CommandConfig(CommandKind.POST, ("/bin/y",)),
        },
    )
    path = tmp_path / "config.toml"
    write_config(path, config)
    assert load_config(path) == config
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_short_file_has_all_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, "\ufeff" + GOOD)
    assert config.allow.read == ("/",) and config.discovery.mdns and config.preset == "lan"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (GOOD + "lisen = 1\n", 3),
        (GOOD + "\n[alow]\nread = []\n", 4),
        (GOOD + "[allow]\n# a word\nreed = []\n", 5),
        (GOOD + "allow.reed = []\n", 3),
        ('server = "alpha"\nlisten = 7300\n', 2),
        (GOOD + 'preset = "moon"\n', 3),
        (GOOD + "peers = [1]\n", 3),
        (GOOD + "x = \n", 3),
        (GOOD + 'server = "beta"\n', 3),
        ('# c\nserver = "Not Good"\nlisten = "127.0.0.1:1"\n', 2),
        ('server = "alpha"\nlisten = "nowhere"\n', 2),
        (GOOD + 'peers = [\n  "a:1",\n  "b",\n]\n', 5),
        (GOOD + 'advertise = ["x:99999"]\n', 3),
        (GOOD + '[allow]\nwrite = ["srv"]\n', 4),
        (GOOD + '[commands.x]\nkind = "dump"\nargv = ["ls"]\n', 5),
        (GOOD + '[commands.x]\nkind = "any"\nargv = ["/ls"]\n', 4),
        (GOOD + '[commands.x]\nkind = "dump"\nargv = "/ls -l"\n', 5),
        (GOOD + '[commands.x]\nkind = "dump"\nargv = ["/ls"]\nshell = true\n', 6),
        (GOOD + '[commands.x]\nkind = "dump"\nargv = ["/ls"]\ntime_limit = "soon"\n', 6),
        (GOOD + '[commands."X Y"]\nkind = "dump"\nargv = ["/ls"]\n', 3),
        (GOOD + '[commands.x]\nkind = "dump"\nargv = ["/ls"]\nlogon = { user = "A=B" }\n', 6),
        (GOOD + '[commands.x]\nkind = "dump"\nargv = ["/ls"]\nlogon = { secret = "" }\n', 6),
        (GOOD + '[commands.x]\nkind = "dump"\nargv = ["/ls"]\nlogon = { password = "X" }\n', 6),
        (GOOD + '[discovery]\ninterfaces = ["eth0"]\n', 4),
        ('server = "alpha', 1),
        ('server = "alpha"\n', 1),
        (b"\xff\xfe", 1),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str | bytes, line: int) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load(tmp_path, text)
    assert caught.value.fields["line"] == line, caught.value.message


def test_a_file_that_is_not_there_or_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(StateMissing):
        load_config(tmp_path / "config.toml")
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(StateDiskFailed):
        load_config(tmp_path / "config.toml")


def test_commands_have_the_time_limit_of_their_kind_unless_they_say(tmp_path: Path) -> None:
    text = GOOD + '[commands.x]\nkind = "pre"\nargv = ["/bin/x"]\n[commands.y]\nkind = "dump"\nargv = ["/bin/y"]\n'
    commands = load(tmp_path, text + 'time_limit = "90s"\n').host_commands()
    assert commands["x"] == HostCommand(CommandKind.PRE, ("/bin/x",), "", 3600.0)
    assert commands["y"].time_limit_s == 90.0


def test_an_entry_says_in_which_variables_it_finds_its_logon(tmp_path: Path) -> None:
    entry = '[commands.x]\nkind = "dump"\nargv = ["/bin/x"]\n'
    usual = load(tmp_path, GOOD + entry).host_commands()["x"].variables
    assert (usual.user, usual.secret) == ("CASO_MESH_LOGON_USER", "CASO_MESH_LOGON_SECRET")
    said = load(tmp_path, GOOD + entry + 'logon = { secret = "PGPASSWORD" }\n')
    assert said.host_commands()["x"].variables == LogonVariables(usual.user, "PGPASSWORD")
    write_config(tmp_path / "again.toml", said)
    assert load_config(tmp_path / "again.toml") == said

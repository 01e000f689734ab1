"""The questions a server asks a folder before it becomes a device."""

from __future__ import annotations

import os

import pytest

from caso_mesh.devices.checks import HEADER_LIMIT, check_folder, existing_vault_header, inside, mount_of
from caso_mesh.devices.shared import PROOF, read_nonces, remove_nonces, write_nonce
from caso_mesh.model.errors import DeviceError, DevicePathInvalid, Misuse


def test_a_writable_folder_is_accepted_and_left_as_it_was(tmp_path):
    check_folder(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_each_unfit_path_is_refused_with_its_reason(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "root").symlink_to("/")
    for path, detail in {
        "relative": "it is not an absolute path",
        "": "it is not an absolute path",
        "/": "it is the root of the whole machine",
        "//": "it is the root of the whole machine",
        str(tmp_path / "root"): "it is the root of the whole machine",
        str(tmp_path / "none"): "it does not exist",
        str(tmp_path / "file"): "it is not a folder",
        str(tmp_path / "file" / "below"): "it is not a folder",
        "/proc": "the daemon cannot write there",
        str(tmp_path / ("x" * 300)): "File name too long",
        "/nul\0": "it is not an absolute path",
    }.items():
        with pytest.raises(DevicePathInvalid) as caught:
            check_folder(path, server="alpha")
        assert caught.value.fields["detail"].startswith(detail), path
        assert caught.value.fields["server"] == "alpha"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_folder_that_this_account_cannot_write_is_refused(tmp_path):
    os.chmod(tmp_path, 0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 and parent.name.startswith(("pytest-", "popen-")):
            os.chmod(parent, 0o755)
    reader = os.fork()
    if reader == 0:
        code = 3
        try:
            os.setuid(65534)
            check_folder(str(tmp_path))
        except DevicePathInvalid as error:
            code = 0 if "cannot write" in error.fields["detail"] else 4
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1]) == 0
    assert list(tmp_path.iterdir()) == []


def test_the_header_of_an_existing_vault_is_read_within_bounds(tmp_path):
    assert existing_vault_header(str(tmp_path)) is None
    (tmp_path / "format").write_bytes(b"vault")
    assert existing_vault_header(str(tmp_path)) == b"vault"
    (tmp_path / "format").write_bytes(bytes(HEADER_LIMIT + 5))
    assert existing_vault_header(str(tmp_path)) == bytes(HEADER_LIMIT)
    (tmp_path / "format").unlink()
    (tmp_path / "format").mkdir()
    with pytest.raises(DevicePathInvalid):
        existing_vault_header(str(tmp_path))
    (tmp_path / "format").rmdir()
    os.mkfifo(tmp_path / "format")
    with pytest.raises(DevicePathInvalid):
        existing_vault_header(str(tmp_path))


def test_the_mount_of_a_path_is_told():
    proc = mount_of("/proc/self")
    assert (proc.point, proc.fs_type) == ("/proc", "proc")
    root = mount_of("/")
    assert (root.point, root.device_number) == ("/", os.stat("/").st_dev)
    with pytest.raises(FileNotFoundError):
        mount_of("/no/such/path")


def test_inside_goes_by_real_paths(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    (tmp_path / "ab").mkdir()
    assert inside(str(tmp_path / "a" / "b"), str(tmp_path / "a"))
    assert inside(str(tmp_path / "link"), str(tmp_path / "a"))
    assert inside(str(tmp_path / "a"), str(tmp_path / "a" / ""))
    assert inside(str(tmp_path / "a" / "not-yet"), str(tmp_path / "a"))
    assert inside("/etc", "/")
    assert not inside(str(tmp_path / "ab"), str(tmp_path / "a"))
    assert not inside(str(tmp_path / "a"), str(tmp_path / "a" / "b"))


def test_one_shared_folder_shows_all_nonces_and_two_folders_do_not(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    assert read_nonces(str(first)) == {}
    write_nonce(str(first), "alpha", b"a" * 32)
    write_nonce(str(first), "beta", b"b" * 32)
    write_nonce(str(first), "alpha", b"c" * 32)
    assert read_nonces(str(first)) == {"alpha": b"c" * 32, "beta": b"b" * 32}
    assert read_nonces(str(second)) == {}
    remove_nonces(str(first))
    remove_nonces(str(first))
    assert list(first.iterdir()) == []


def test_what_strangers_leave_among_the_nonces_is_bounded(tmp_path):
    write_nonce(str(tmp_path), "alpha", b"a")
    os.mkfifo(tmp_path / PROOF / "pipe")
    (tmp_path / PROOF / "link").symlink_to("/dev/zero")
    with pytest.raises(DeviceError):  # a link is nothing a server of ours leaves
        read_nonces(str(tmp_path))
    (tmp_path / PROOF / "link").unlink()
    (tmp_path / PROOF / "big").write_bytes(bytes(100_000))
    found = read_nonces(str(tmp_path))
    assert found["alpha"] == b"a"
    assert len(found["big"]) < 1000
    assert "pipe" not in found


def test_nonces_are_refused_when_they_are_no_nonces(tmp_path):
    for server, nonce in (("../x", b"1"), ("a/b", b"1"), ("alpha", b""), ("alpha", bytes(257))):
        with pytest.raises(Misuse):
            write_nonce(str(tmp_path), server, nonce)
    with pytest.raises(DeviceError):
        write_nonce(str(tmp_path / "none"), "alpha", b"1")

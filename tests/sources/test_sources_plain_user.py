"""What a plain user can and cannot keep, in a process without privileges where the tests run as root."""

from __future__ import annotations

import os
import stat

import pytest
from source_trees import CAPABILITY, ROOT, as_plain_user, put

from caso_mesh.sources.metadata import sees_trusted

root_only = pytest.mark.skipif(not ROOT, reason="needs files of somebody else, which only root can make")


def test_a_plain_users_awkward_tree_comes_back_as_it_was(place: bytes) -> None:
    out = as_plain_user(
        """
        place = os.fsencode(sys.argv[1])
        edge_tree(place + b"/from")
        print(copy(place + b"/from", place + b"/to").exceptions)
        print(list(differences(place + b"/from", place + b"/to", holes=True)))
        print(copy(place + b"/from", place + b"/to").exceptions)
        print(list(differences(place + b"/from", place + b"/to", holes=True)))
        """,
        place,
    )
    assert out == "[]\n[]\n[]\n[]\n"


@root_only
def test_what_may_not_be_read_is_an_exception_and_the_rest_is_walked(place: bytes) -> None:
    os.mkdir(place + b"/t")
    for name in (b"closed", b"listed", b"open"):
        os.mkdir(place + b"/t/" + name)
        put(place + b"/t/" + name + b"/f")
    put(place + b"/t/secret", mode=0o600)
    put(place + b"/t/zfile")
    os.chmod(place + b"/t/closed", 0o700)
    os.chmod(place + b"/t/listed", 0o744)  # its names may be read, nothing about them
    out = as_plain_user(
        """
        place = os.fsencode(sys.argv[1])
        report = Report()
        found = []
        for walked in walk(place + b"/t", report=report):
            name = os.path.basename(walked.entry.path).decode()
            if walked.entry.type is EntryType.FILE:
                try:
                    walked.open().close()
                except Unreadable as error:
                    name += "!" + error.exception.reason
            found.append(name)
        print(found)
        print(report.reasons())
        """,
        place,
    )
    assert out.splitlines() == [
        "['t', 'closed', 'listed', 'open', 'f', 'secret!permission-denied', 'zfile']",
        "[('closed', 'permission-denied'), ('f', 'permission-denied')]",
    ]


@root_only
def test_a_plain_user_gets_the_content_and_is_told_what_could_not_be_set(place: bytes) -> None:
    os.mkdir(place + b"/from")
    put(place + b"/from/caps", b"c", mode=0o755)
    os.setxattr(place + b"/from/caps", b"security.capability", CAPABILITY)
    os.mknod(place + b"/from/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    put(place + b"/from/suid", b"s")
    os.chown(place + b"/from/suid", 1234, 2345)
    os.chmod(place + b"/from/suid", 0o6755)
    out = as_plain_user(
        """
        place = os.fsencode(sys.argv[1])
        for reason in sorted(set(copy(place + b"/from", place + b"/to").reasons())):
            print(*reason)
        for name in sorted(os.listdir(place + b"/to")):
            status = os.stat(place + b"/to/" + name)
            print(name.decode(), oct(stat.S_IMODE(status.st_mode)), status.st_size, status.st_uid == os.getuid())
        """,
        place,
    )
    assert out.splitlines() == [
        "caps owner-not-restored",
        "caps xattr-not-restored",
        "from owner-not-restored",
        "null permission-denied",
        "suid owner-not-restored",
        "caps 0o755 1 True",
        "suid 0o755 1 True",
    ]


def test_an_existing_folder_that_one_may_not_write_is_opened_for_the_restore_and_closed_again(place: bytes) -> None:
    out = as_plain_user(
        """
        place = os.fsencode(sys.argv[1])
        os.makedirs(place + b"/from/d")
        put(place + b"/from/d/f", b"1")
        os.chmod(place + b"/from/d", 0o555)
        copy(place + b"/from", place + b"/to")
        os.chmod(place + b"/from/d", 0o755)
        put(place + b"/from/d/f", b"2")
        put(place + b"/from/d/g", b"3")
        os.chmod(place + b"/from/d", 0o555)
        print(copy(place + b"/from", place + b"/to").exceptions)
        print(list(differences(place + b"/from", place + b"/to")))
        """,
        place,
    )
    assert out == "[]\n[]\n"


def test_whether_trusted_attributes_show_is_known(place: bytes) -> None:
    assert as_plain_user("print(sees_trusted())", place) == "False\n"
    if ROOT:
        put(place + b"/f")
        try:
            os.setxattr(place + b"/f", "trusted.caso", b"x")
        except OSError:
            return  # no such attributes here, or a root without the capability
        assert sees_trusted() is ("trusted.caso" in os.listxattr(place + b"/f"))

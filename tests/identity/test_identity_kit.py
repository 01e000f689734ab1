"""The recovery kit: whole or refused, and never open without its passphrase."""

from __future__ import annotations

import base64
import os
import random
import re
import stat
from pathlib import Path

import pytest
from msgspec import structs

from caso_mesh.identity import kit as kits
from caso_mesh.identity.authority import Authority
from caso_mesh.identity.kit import Kit, KitKeys, Secrets
from caso_mesh.model.errors import (
    AlreadyExists,
    CasoError,
    KitDamaged,
    KitMissing,
    KitTooNew,
    Misuse,
    PassphraseWrong,
    SealBroken,
)
from caso_mesh.sealing.passphrase import Cost
from caso_mesh.sealing.wrapping import wrap

NOW = 1_800_000_000_000_000_000
CHEAP = Cost(memory_kib=64, iterations=1, lanes=1)
PASSPHRASE = "a horse, a battery, a staple: ünsafe"


def make_kit(**changes) -> Kit:
    authority = Authority.create(mesh_id="m" * 26, mesh_name="lab", voter="v" * 52, now_ns=NOW)
    made = Kit(
        id="k" * 26,
        mesh="m" * 26,
        mesh_name="lab",
        root=authority.root,
        root_key=authority.root_key_bytes(),
        id_key=bytes(range(32)),
        private_key=os.urandom(32),
        created_at_ns=NOW,
    )
    return structs.replace(made, **changes)


@pytest.fixture(scope="module")
def kit() -> Kit:
    return make_kit()


@pytest.fixture(scope="module")
def data(kit: Kit) -> bytes:
    return kits.encode(kit, PASSPHRASE, cost=CHEAP)


def test_what_was_written_opens_again(kit: Kit, tmp_path: Path) -> None:
    path = tmp_path / "kit"
    kits.write(path, kits.encode(kit, PASSPHRASE))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["kit"]
    assert kits.decode(kits.read(path), PASSPHRASE, path=path) == kit


def test_it_opens_what_was_wrapped_to_its_public_key(kit: Kit) -> None:
    assert kit.unwrap(wrap(b"secret", kit.public_key, aad=b"a", randomness=os.urandom), b"a") == b"secret"
    with pytest.raises(SealBroken):
        kit.unwrap(wrap(b"secret", kit.public_key, aad=b"a", randomness=os.urandom), b"b")


def test_another_passphrase_does_not_open_it(data: bytes) -> None:
    for wrong in ("", "a", PASSPHRASE + " ", PASSPHRASE.upper()):
        with pytest.raises(PassphraseWrong):
            kits.decode(data, wrong)


def test_no_secret_stands_in_the_file_or_in_messages(kit: Kit, data: bytes) -> None:
    opened = base64.b64decode(b"".join(data.split(b"\n\n", 1)[1].split()))
    for secret in (kit.root_key, kit.id_key, kit.private_key):
        assert secret not in opened
        assert secret.hex() not in repr(kit)
    assert "id_key" not in repr(kit) + repr(KitKeys(b"", b"")) + repr(Secrets(b"", b""))


def test_a_file_that_is_there_is_never_replaced(kit: Kit, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "kit"
    path.write_text("something else")
    with pytest.raises(AlreadyExists):
        kits.write(path, data)
    assert path.read_text() == "something else"
    assert os.listdir(tmp_path) == ["kit"]


def test_a_folder_that_is_not_there_is_named(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(KitDamaged, match="nowhere"):
        kits.write(tmp_path / "nowhere" / "kit", data)
    with pytest.raises(KitMissing):
        kits.read(tmp_path / "kit")
    with pytest.raises(KitDamaged):
        kits.read(tmp_path)


def test_a_newer_version_is_refused_before_anybody_types_a_passphrase(data: bytes) -> None:
    newer = data.replace(b"version: 1", b"version: 2")
    with pytest.raises(KitTooNew) as caught:
        kits.check_readable(newer, "kit")
    assert caught.value.fields["found"] == 2
    for other in (b"version: 0", b"version: one", b"version: -1", b"version:", b"version: 99999999999999999999"):
        with pytest.raises(KitDamaged):
            kits.check_readable(data.replace(b"version: 1", other), "kit")


def test_a_cut_file_is_damaged_and_not_a_wrong_passphrase(data: bytes) -> None:
    end = len(data.rstrip())
    for length in range(end):
        with pytest.raises(KitDamaged):
            kits.decode(data[:length], PASSPHRASE)


def test_line_ends_of_another_system_do_not_matter(kit: Kit, data: bytes) -> None:
    assert kits.decode(data.replace(b"\n", b"\r\n"), PASSPHRASE) == kit


def test_whatever_is_changed_is_noticed_and_nothing_else_is_raised(kit: Kit, data: bytes) -> None:
    chance = random.Random(7)
    for _ in range(1500):
        changed = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 8))):
            what, at = chance.randrange(3), chance.randrange(len(changed))
            if what == 0:
                changed[at] = chance.randrange(256)
            elif what == 1:
                del changed[at : at + chance.randrange(1, 40)]
            else:
                changed[at:at] = chance.randbytes(chance.randrange(1, 40))
        try:
            found = kits.decode(bytes(changed), PASSPHRASE)
        except (KitDamaged, KitTooNew, PassphraseWrong):
            continue
        # only the lines for people may differ: what counts is sealed
        assert found == kit


def test_noise_is_no_kit() -> None:
    chance = random.Random(8)
    for _ in range(300):
        with pytest.raises(CasoError) as caught:
            kits.decode(chance.randbytes(chance.randrange(400)), PASSPHRASE)
        assert isinstance(caught.value, (KitDamaged, KitTooNew))


def test_parameters_that_would_eat_all_memory_are_refused(kit: Kit, data: bytes) -> None:
    import hashlib

    head, _, body = data.partition(b"\n\n")
    sealed = bytearray(base64.b64decode(b"".join(body.split())))
    sealed[8:12] = (1 << 31).to_bytes(4, "big")
    head = re.sub(rb"sha-256: \w+", b"sha-256: " + hashlib.sha256(sealed).hexdigest().encode(), head)
    with pytest.raises(KitDamaged, match="bounds"):
        kits.decode(head + b"\n\n" + base64.b64encode(bytes(sealed)) + b"\n", PASSPHRASE)


def test_a_kit_that_does_not_fit_together_is_never_written(kit: Kit) -> None:
    other = make_kit()
    for wrong in (
        structs.replace(kit, root=other.root),
        structs.replace(kit, root_key=b"none"),
        structs.replace(kit, id_key=b"short"),
        structs.replace(kit, mesh="../.."),
    ):
        with pytest.raises(Misuse):
            kits.encode(wrong, PASSPHRASE, cost=CHEAP)


def test_a_made_passphrase_has_128_bits_and_may_be_typed_as_it_is_read() -> None:
    made = kits.make_passphrase()
    assert re.fullmatch(r"[0-9a-hjkmnp-tv-z]{5}(-[0-9a-hjkmnp-tv-z]{5,6}){4}", made)
    assert kits.make_passphrase() != made
    assert kits.make_passphrase(lambda size: b"\xff" * size) == "7zzzz-zzzzz-zzzzz-zzzzz-zzzzzz"
    for written in (made.upper(), made.replace("-", " "), made.replace("-", ""), f" {made} "):
        assert kits.canonical(written) == kits.canonical(made)
    assert kits.canonical("ol" * 13) == kits.canonical("01" * 13)


def test_a_chosen_passphrase_counts_letter_by_letter() -> None:
    assert kits.canonical("Two Words-here") == "Two Words-here"
    assert kits.canonical("u\u0308ber") == kits.canonical("\u00fcber")


def test_secrets_travel_sealed_to_one_kit_of_one_mesh() -> None:
    keys, others = kits.new_keys(), kits.new_keys()
    sealed = kits.seal_secrets(
        Secrets(b"root", b"id"), kit="k1", public_key=keys.public_key, mesh="m1", randomness=os.urandom
    )
    assert kits.open_secrets(sealed, keys, kit="k1", mesh="m1") == Secrets(b"root", b"id")
    for holder, name, mesh in ((others, "k1", "m1"), (keys, "k2", "m1"), (keys, "k1", "m2")):
        with pytest.raises(SealBroken):
            kits.open_secrets(sealed, holder, kit=name, mesh=mesh)
    with pytest.raises(SealBroken):
        kits.seal_secrets(Secrets(b"", b""), kit="k1", public_key=bytes(32), mesh="m1", randomness=os.urandom)

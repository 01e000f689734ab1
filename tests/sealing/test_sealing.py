"""Authenticated encryption, derivation, wrapping, signatures and passphrases, against published vectors and abuse."""

from __future__ import annotations

import os
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from caso_mesh.model.errors import DataDamaged, Misuse, PassphraseWrong, SealBroken
from caso_mesh.sealing.aead import TAG_SIZE, Sealer
from caso_mesh.sealing.derive import derive
from caso_mesh.sealing.passphrase import Cost, open_with_passphrase, seal_with_passphrase
from caso_mesh.sealing.signing import can_verify, sign, verify
from caso_mesh.sealing.wrapping import LONGEST_SECRET, OVERHEAD, unwrap, wrap

KEY, NONCE = bytes(range(32)), bytes(12)
GOLDEN_DERIVED = "df8d3959d2f7ae243fd1f4844c82aa66451ef7802e031baee8a94450bc5457a9"

# --- aead ------------------------------------------------------------------------------------------------------------


def test_sealing_is_aes_256_gcm_as_published() -> None:
    """Test case 16 of McGrew and Viega, "The Galois/Counter Mode of Operation"."""
    sealer = Sealer(bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2))
    plain = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    aad = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    sealed = sealer.seal(bytes.fromhex("cafebabefacedbaddecaf888"), plain, aad)
    assert sealed.hex() == (
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        "76fc6ece0f4e1768cddf8853bb2d551b"
    )


@given(st.binary(max_size=2000), st.binary(max_size=50), st.integers(0, 9))
def test_buffers_give_the_same_as_bytes_and_nothing_beyond_is_touched(plain: bytes, aad: bytes, extra: int) -> None:
    sealer = Sealer(KEY)
    out = bytearray(b"\xee" * (len(plain) + TAG_SIZE + extra))
    size = sealer.seal_into(NONCE, plain, aad, memoryview(out))
    assert size == len(plain) + TAG_SIZE
    assert bytes(out[:size]) == sealer.seal(NONCE, plain, aad)
    assert bytes(out[size:]) == b"\xee" * extra
    back = bytearray(b"\xee" * (len(plain) + extra))
    assert sealer.open_into(NONCE, memoryview(out)[:size], aad, back) == len(plain)
    assert bytes(back) == plain + b"\xee" * extra
    assert sealer.open(NONCE, bytes(out[:size]), aad) == plain


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_flipped_bit_anywhere_breaks_the_seal_and_leaves_no_plain_text(plain: bytes, data: st.DataObject) -> None:
    sealer = Sealer(KEY, object="record 7")
    sealed = bytearray(sealer.seal(NONCE, plain, b"aad"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    out = bytearray(b"\xee" * len(plain))
    with pytest.raises(SealBroken, match="record 7"):
        sealer.open_into(NONCE, sealed, b"aad", out)
    assert bytes(out) == bytes(len(plain))
    with pytest.raises(SealBroken):
        sealer.open(NONCE, bytes(sealed), b"aad")


def test_key_nonce_and_additional_data_all_count() -> None:
    sealed = Sealer(KEY).seal(NONCE, b"plain", b"aad")
    for sealer, nonce, aad in (
        (Sealer(bytes(32)), NONCE, b"aad"),
        (Sealer(KEY), b"\x01" * 12, b"aad"),
        (Sealer(KEY), NONCE, b"other"),
    ):
        with pytest.raises(SealBroken):
            sealer.open(nonce, sealed, aad)


def test_a_text_shorter_than_a_tag_is_broken() -> None:
    for size in (0, 15):
        with pytest.raises(SealBroken):
            Sealer(KEY).open_into(NONCE, bytes(size), b"", bytearray(16))
        with pytest.raises(SealBroken):
            Sealer(KEY).open(NONCE, bytes(size))


def test_our_own_mistakes_are_misuse() -> None:
    sealer = Sealer(KEY)
    with pytest.raises(Misuse):
        Sealer(bytes(16))
    for nonce in (b"", bytes(11), bytes(13)):
        with pytest.raises(Misuse):
            sealer.seal(nonce, b"")
        with pytest.raises(Misuse):
            sealer.seal_into(nonce, b"", b"", bytearray(16))
    with pytest.raises(Misuse):
        sealer.seal_into(NONCE, b"abc", b"", bytearray(18))
    with pytest.raises(Misuse):
        sealer.open_into(NONCE, sealer.seal(NONCE, b"abc"), b"", bytearray(2))


def test_one_sealer_serves_several_threads() -> None:
    sealer, wrong = Sealer(KEY), list[int]()

    def work(number: int) -> None:
        nonce, out, back = number.to_bytes(12, "big"), bytearray(70000), bytearray(70000)
        for _ in range(50):
            size = sealer.seal_into(nonce, bytes([number]) * 60000, b"", out)
            if sealer.open_into(nonce, memoryview(out)[:size], b"", back) != 60000 or back[59999] != number:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- derivation ------------------------------------------------------------------------------------------------------


def test_each_domain_context_and_key_derives_its_own_key() -> None:
    derived = {
        derive(KEY, domain=domain, context=context)
        for domain, context in (("a", b""), ("b", b""), ("a", b"a"), ("aa", b""), ("a", b"\x00"))
    }
    derived.add(derive(bytes(32), domain="a", context=b""))
    assert len(derived) == 6
    assert derive(KEY, domain="a", context=b"") == derive(KEY, domain="a", context=b"")
    assert len(derive(KEY, domain="a", context=b"", length=48)) == 48


def test_derivation_is_pinned_since_stored_data_rests_on_it() -> None:
    assert derive(KEY, domain="test", context=b"context").hex() == GOLDEN_DERIVED


def test_domains_are_named() -> None:
    for domain in ("", "x" * 256):
        with pytest.raises(Misuse):
            derive(KEY, domain=domain, context=b"")
        with pytest.raises(Misuse):
            sign(KEY, domain, b"")


# --- wrapping --------------------------------------------------------------------------------------------------------


def pair() -> tuple[bytes, bytes]:
    key = X25519PrivateKey.generate()
    return key.private_bytes_raw(), key.public_key().public_bytes_raw()


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_what_was_wrapped_opens_for_its_recipient_and_purpose_only(secret: bytes, aad: bytes) -> None:
    private, public = pair()
    wrapped = wrap(secret, public, aad=aad, randomness=os.urandom)
    assert len(wrapped) == len(secret) + OVERHEAD
    assert unwrap(wrapped, private, aad=aad) == secret
    with pytest.raises(SealBroken):
        unwrap(wrapped, private, aad=aad + b"x")
    with pytest.raises(SealBroken):
        unwrap(wrapped, pair()[0], aad=aad)


def test_wrapping_twice_gives_two_texts() -> None:
    _, public = pair()
    assert wrap(b"s", public, aad=b"", randomness=os.urandom) != wrap(b"s", public, aad=b"", randomness=os.urandom)


def test_no_byte_of_a_wrapped_secret_can_be_changed() -> None:
    private, public = pair()
    wrapped = wrap(b"secret", public, aad=b"a", randomness=os.urandom)
    for at in range(len(wrapped)):
        # the top bit of an X25519 public key is ignored by the exchange (RFC 7748, section 5), not by us
        for bit in (0x01, 0x80):
            changed = bytearray(wrapped)
            changed[at] ^= bit
            with pytest.raises(SealBroken):
                unwrap(bytes(changed), private, aad=b"a")
    for cut in (b"", wrapped[:-1], wrapped[: OVERHEAD - 1], wrapped + bytes(LONGEST_SECRET)):
        with pytest.raises(SealBroken):
            unwrap(cut, private, aad=b"a")


def test_nothing_is_wrapped_to_a_key_that_gives_the_secret_away() -> None:
    """A point of small order makes the shared secret zero for everybody (RFC 7748, section 6.1)."""
    for public in (bytes(32), b"\x01" + bytes(31), b"short"):
        with pytest.raises(SealBroken):
            wrap(b"s", public, aad=b"", randomness=os.urandom)
    with pytest.raises(SealBroken):
        unwrap(b"\x01" + bytes(32) + bytes(20), pair()[0], aad=b"")
    with pytest.raises(Misuse):
        wrap(bytes(LONGEST_SECRET + 1), pair()[1], aad=b"", randomness=os.urandom)


# --- signatures ------------------------------------------------------------------------------------------------------


def spki(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("key", [Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())])
def test_a_signature_holds_for_its_key_domain_and_message(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> None:
    signature = sign(key, "set", b"message")
    assert verify(spki(key), "set", b"message", signature)
    assert not verify(spki(key), "set", b"messagf", signature)
    assert not verify(spki(key), "session", b"message", signature)
    assert not verify(spki(key), "se", b"tmessage", signature)
    assert not verify(spki(Ed25519PrivateKey.generate()), "set", b"message", signature)
    assert not verify(spki(key), "set", b"message", signature[:-1])
    assert not verify(spki(key), "set", b"message", b"")
    assert can_verify(spki(key))


def test_a_raw_ed25519_key_signs_and_what_it_signs_is_pinned() -> None:
    key = Ed25519PrivateKey.from_private_bytes(KEY)
    assert sign(KEY, "set", b"m") == sign(key, "set", b"m")
    key.public_key().verify(sign(KEY, "set", b"m"), b"caso-mesh/sign/1\x03setm")


@given(st.binary(max_size=200))
def test_no_public_key_and_no_signature_breaks_verification(data: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(KEY)
    assert not verify(data, "set", b"", data)
    assert not verify(spki(key), "set", b"", data)
    assert not can_verify(data)


def test_keys_of_other_kinds_verify_nothing_and_sign_nothing() -> None:
    p384 = ec.generate_private_key(ec.SECP384R1())
    for key in (p384, rsa.generate_private_key(65537, 2048)):
        assert not verify(spki(key), "set", b"", b"")
        assert not can_verify(spki(key))
    with pytest.raises(Misuse):
        sign(p384, "set", b"")


# --- passphrases -----------------------------------------------------------------------------------------------------

CHEAP = Cost(memory_kib=64, iterations=1, lanes=1)


def kit(data: bytes = b"data", passphrase: str = "correct horse") -> bytes:
    return seal_with_passphrase(data, passphrase, purpose="kit", randomness=os.urandom, cost=CHEAP)


def test_a_passphrase_opens_what_it_sealed_for_that_purpose() -> None:
    assert open_with_passphrase(kit(), "correct horse", purpose="kit") == b"data"
    assert open_with_passphrase(kit(passphrase="ünï \udcff"), "ünï \udcff", purpose="kit") == b"data"
    for passphrase, purpose in (("correct horsf", "kit"), ("", "kit"), ("correct horse", "other")):
        with pytest.raises(PassphraseWrong, match=r"kit\.bin"):
            open_with_passphrase(kit(), passphrase, purpose=purpose, object="kit.bin")


def test_the_default_cost_is_the_one_of_the_standard_and_is_accepted() -> None:
    sealed = seal_with_passphrase(b"data", "p", purpose="kit", randomness=os.urandom)
    assert open_with_passphrase(sealed, "p", purpose="kit") == b"data"
    assert Cost().memory_kib >= 64 * 1024
    assert Cost().iterations >= 3


def test_a_forged_file_cannot_spend_all_memory_or_time() -> None:
    good = kit()
    for at, value in ((8, 2**32 - 1), (8, 0), (12, 2**32 - 1), (12, 0), (16, 2**32 - 1), (16, 0)):
        forged = good[:at] + value.to_bytes(4, "big") + good[at + 4 :]
        with pytest.raises(DataDamaged, match="out of bounds"):
            open_with_passphrase(forged, "correct horse", purpose="kit")
    for no_kit in (b"", good[:60], b"x" * 100):
        with pytest.raises(DataDamaged):
            open_with_passphrase(no_kit, "correct horse", purpose="kit")
    with pytest.raises(Misuse):
        seal_with_passphrase(b"", "p", purpose="kit", randomness=os.urandom, cost=Cost(memory_kib=1))


def test_a_change_of_salt_nonce_text_or_parameters_does_not_open() -> None:
    good = kit()
    for at in (15, 20, 36, 48, len(good) - 1):
        changed = bytearray(good)
        changed[at] ^= 1 if at != 15 else 3
        with pytest.raises(PassphraseWrong):
            open_with_passphrase(bytes(changed), "correct horse", purpose="kit")

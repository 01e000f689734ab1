"""Join links, approval codes, and the pure parts of both ends of joining."""

from __future__ import annotations

import base64
import os
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caso_mesh.identity import approval, certificates, enrolment, tokens
from caso_mesh.identity.authority import Authority
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.model.errors import JoinLinkInvalid, Misuse, SealBroken
from caso_mesh.model.mesh import Anchor

NOW = 1_800_000_000_000_000_000
MESH = "m" * 26
SECRET = bytes(range(20))
LINK = tokens.make_link(
    mesh=MESH,
    root_fingerprint=bytes(32),
    addresses=("10.0.0.1:9330", "[fe80::1]:9330"),
    secret=SECRET,
    expires_at_ns=NOW,
)
PREFIX = "caso-mesh:join:v1:"


def encoded(**changes: object) -> str:
    fields = {"mesh": MESH, "root": bytes(32), "addresses": ["a:1"], "secret": SECRET, "expires_at_ns": NOW} | changes
    packed = msgspec.msgpack.encode({name: value for name, value in fields.items() if value is not None})
    return PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")


# --- links -----------------------------------------------------------------------------------------------------------


def test_a_link_says_what_was_put_into_it_and_hides_its_secret_when_printed() -> None:
    link = tokens.parse_link(LINK)
    assert (link.mesh, link.root, link.secret) == (MESH, bytes(32), SECRET)
    assert link.addresses == ("10.0.0.1:9330", "[fe80::1]:9330")
    assert not link.expired(NOW)
    assert link.expired(NOW + 1)
    assert str(SECRET) not in repr(link)
    assert tokens.parse_link(encoded()).addresses == ("a:1",)


def test_a_link_that_a_terminal_wrapped_is_still_one() -> None:
    assert tokens.parse_link(f"  {LINK[:60]}\r\n  {LINK[60:]}\n") == tokens.parse_link(LINK)


def test_a_secret_has_at_least_128_bits_and_the_mesh_keeps_only_its_digest() -> None:
    secret = tokens.new_secret(os.urandom)
    assert len(secret) * 8 >= 128
    assert secret != tokens.new_secret(os.urandom)
    assert len(tokens.digest(secret)) == 32
    assert secret not in tokens.digest(secret)


@pytest.mark.parametrize(
    "text",
    [
        "",
        PREFIX,
        "caso-mesh:join:v2:" + LINK.removeprefix(PREFIX),
        LINK[:-3],
        LINK + "AAAA",
        LINK + "=",
        LINK + "!",
        PREFIX + "A" * 100_000,
        " " * 100_000,
        encoded(mesh=None),
        encoded(mesh=""),
        encoded(mesh="../etc"),
        encoded(root=bytes(31)),
        encoded(root="x" * 32),
        encoded(secret=bytes(15)),
        encoded(secret=bytes(65)),
        encoded(secret="YWJjZGVmZ2hpamtsbW5vcHFyc3Q="),
        encoded(addresses=[]),
        encoded(addresses=["a:1"] * 17),
        encoded(addresses=["a b"]),
        encoded(addresses=["a" * 300]),
        encoded(addresses=["\x1b[2J"]),
        encoded(addresses="a:1"),
        encoded(expires_at_ns=0),
        encoded(expires_at_ns=-1),
        encoded(expires_at_ns=1 << 63),
        encoded(expires_at_ns=1.5),
        encoded(more=1),
    ],
)
def test_anything_wrong_with_a_link_is_refused(text: str) -> None:
    with pytest.raises(JoinLinkInvalid):
        tokens.parse_link(text)


def test_a_link_has_one_spelling_only() -> None:
    """Bits of the last character that base64 ignores, and longer forms of numbers in msgpack, give no second link."""
    packed = base64.urlsafe_b64decode(LINK.removeprefix(PREFIX) + "=" * (-len(LINK.removeprefix(PREFIX)) % 4))
    wide = packed.replace(b"\xa4mesh", b"\xd9\x04mesh")
    assert wide != packed
    spellings = [PREFIX + base64.urlsafe_b64encode(wide).decode().rstrip("=")]
    text = next(
        each
        for each in (encoded(addresses=["a" * size + ":1"]) for size in (1, 2))
        if len(each.removeprefix(PREFIX)) % 4
    )
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spellings.append(text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1])
    assert tokens.parse_link(text)
    for spelling in spellings:
        with pytest.raises(JoinLinkInvalid):
            tokens.parse_link(spelling)


def test_deep_nesting_in_a_link_is_refused_and_not_walked() -> None:
    packed = b"\x91" * 2900
    with pytest.raises(JoinLinkInvalid):
        tokens.parse_link(PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("="))


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    for each in (text, PREFIX + text):
        with pytest.raises(JoinLinkInvalid):
            tokens.parse_link(each)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    with pytest.raises(JoinLinkInvalid):
        tokens.parse_link(PREFIX + base64.urlsafe_b64encode(data).decode().rstrip("="))


@given(st.integers(0, len(LINK) - 1), st.sampled_from("ABab01-_=:/\\ \x00é"))
def test_a_changed_character_gives_a_refusal_or_another_link_never_the_same(at: int, char: str) -> None:
    changed = LINK[:at] + char + LINK[at + 1 :]
    try:
        link = tokens.parse_link(changed)
    except JoinLinkInvalid:
        return
    assert changed == LINK or link != tokens.parse_link(LINK)


@given(
    st.binary(min_size=32, max_size=32),
    st.lists(st.from_regex(r"[a-z0-9.-]{1,40}:[0-9]{1,5}", fullmatch=True), min_size=1, max_size=16),
    st.binary(min_size=16, max_size=64),
    st.integers(1, (1 << 63) - 1),
)
def test_every_link_that_can_be_made_can_be_read(
    root: bytes, addresses: list[str], secret: bytes, expires_at_ns: int
) -> None:
    text = tokens.make_link(
        mesh=MESH,
        root_fingerprint=root,
        addresses=tuple(addresses),
        secret=secret,
        expires_at_ns=expires_at_ns,
    )
    assert tokens.parse_link(text) == tokens.JoinLink(MESH, root, tuple(addresses), secret, expires_at_ns)


def test_a_link_that_nobody_could_read_is_not_made() -> None:
    with pytest.raises(Misuse):
        tokens.make_link(mesh=MESH, root_fingerprint=b"", addresses=("a:1",), secret=SECRET, expires_at_ns=NOW)
    with pytest.raises(Misuse):
        tokens.make_link(
            mesh=MESH, root_fingerprint=bytes(32), addresses=("a" * 262,) * 16, secret=SECRET, expires_at_ns=NOW
        )


# --- approval --------------------------------------------------------------------------------------------------------


def test_both_ends_show_the_same_code_and_somebody_in_between_changes_it() -> None:
    admin, new, middle = NodeKeys.create(), NodeKeys.create(), NodeKeys.create()
    a, b = os.urandom(32), os.urandom(32)
    assert approval.check_reveal(approval.commitment(a, admin.public_key), a, admin.public_key)
    shown = approval.code(a, admin.public_key, b, new.public_key)
    assert len(shown) == 8
    assert shown == approval.code(a, admin.public_key, b, new.public_key)
    assert shown != approval.code(a, admin.public_key, b, middle.public_key)
    assert shown != approval.code(b, new.public_key, a, admin.public_key)
    assert not approval.check_reveal(approval.commitment(a, admin.public_key), a, middle.public_key)
    assert not approval.check_reveal(approval.commitment(a, admin.public_key), b, admin.public_key)
    assert not approval.check_reveal(b"", a, admin.public_key)
    assert not approval.check_reveal(approval.commitment(a, b"k"), a[:31], a[31:] + b"k")
    with pytest.raises(Misuse):
        approval.commitment(b"short", b"k")


def test_the_parts_of_a_code_cannot_be_shifted_into_each_other() -> None:
    a, b = bytes(32), bytes(32)
    assert approval.code(a, b"xy", b, b"z") != approval.code(a, b"x", b, b"yz")
    assert approval.code(a, b"", b, b"") != approval.code(a, b, b"", b"")


def test_a_code_is_compared_as_a_person_types_it() -> None:
    assert approval.codes_equal("ab2cd3ef", " AB2C-D3EF\n")
    assert approval.codes_equal("ab2cd3ef", "ab2c d3ef")
    assert not approval.codes_equal("ab2cd3ef", "ab2cd3e")
    assert not approval.codes_equal("ab2cd3ef", "ab2cd3eé")
    assert not approval.codes_equal("ab2cd3ef", "")


# --- enrolment -------------------------------------------------------------------------------------------------------


def authority() -> Authority:
    return Authority.create(mesh_id=MESH, mesh_name="lab", voter="v" * 52, now_ns=NOW)


def link_of(mesh: Authority) -> tokens.JoinLink:
    return tokens.JoinLink(MESH, certificates.fingerprint(mesh.root), ("a:1",), SECRET, NOW)


def voter_below(mesh: Authority) -> bytes:
    return mesh.issue_issuing(NodeKeys.create().public_key, voter="w" * 52, mesh_name="lab", now_ns=NOW)


def test_anchors_hang_on_the_root_that_the_link_pins() -> None:
    mesh, other = authority(), authority()
    second = voter_below(mesh)

    def believed(root: bytes, *listed: bytes, above: tuple[bytes, ...] = ()) -> set[bytes]:
        anchors = [Anchor(root), *(Anchor(each, above=above) for each in listed)]
        return set(enrolment.believed_anchors(link_of(mesh), root, anchors))

    assert believed(mesh.root, second, mesh.issuing) == {second, mesh.issuing}
    assert believed(other.root, other.issuing) == set()
    assert believed(mesh.root, mesh.issuing, other.issuing) == {mesh.issuing}
    # the root did not sign this one, and the one that did is no anchor any more: its anchor says so, and lets nobody in by that
    assert believed(mesh.root, second) == set()
    assert believed(mesh.root, second, above=(mesh.issuing,)) == {second}
    assert believed(mesh.root, second, above=(other.issuing,)) == set()
    assert believed(mesh.root, b"garbage") == set()
    assert believed(b"garbage") == set()


def test_a_servers_own_certificate_is_no_anchor_for_a_newcomer() -> None:
    mesh = authority()
    node = mesh.issue_node(NodeKeys.create().public_key, now_ns=NOW)
    anchors = (Anchor(mesh.issuing), Anchor(node))
    assert enrolment.believed_anchors(link_of(mesh), mesh.root, anchors) == (mesh.issuing,)


def test_only_who_knows_the_token_proves_the_anchors() -> None:
    mesh, newcomer = authority(), NodeKeys.create()
    link, second = link_of(mesh), voter_below(mesh)
    proof = enrolment.prove_anchors(tokens.digest(SECRET), mesh.root, [second], newcomer.public_key)
    assert enrolment.anchors_proven(link, mesh.root, [second], newcomer.public_key, proof)
    assert not enrolment.anchors_proven(link, mesh.root, [mesh.issuing], newcomer.public_key, proof)
    assert not enrolment.anchors_proven(link, mesh.root, [second], NodeKeys.create().public_key, proof)
    assert not enrolment.anchors_proven(link, authority().root, [second], newcomer.public_key, proof)
    guessed = enrolment.prove_anchors(bytes(32), mesh.root, [second], newcomer.public_key)
    assert not enrolment.anchors_proven(link, mesh.root, [second], newcomer.public_key, guessed)
    assert not enrolment.anchors_proven(link, mesh.root, [second], newcomer.public_key, b"")


def test_an_application_is_bound_to_its_key_its_mesh_and_its_occasion() -> None:
    keys, binding = NodeKeys.create(), tokens.digest(SECRET)
    newcomer = enrolment.Newcomer("alpha", keys.public_key, keys.encryption_key, ("10.0.0.2:1",))
    signature = enrolment.sign_application(keys, newcomer, mesh=MESH, binding=binding)

    def check(applicant: enrolment.Newcomer, *, mesh: str = MESH, bound: bytes = binding) -> bool:
        return enrolment.check_application(applicant, signature, mesh=mesh, binding=bound)

    assert check(newcomer)
    assert not check(newcomer, mesh="other")
    assert not check(newcomer, bound=tokens.digest(b"another"))
    stolen = NodeKeys.create()
    for changed in (
        {"name": "beta"},
        {"public_key": stolen.public_key},
        {"public_key": b"garbage"},
        {"encryption_key": stolen.encryption_key},
        {"encryption_key": b""},
        {"addresses": ("10.0.0.3:1",)},
        {"addresses": ()},
        {"never_admin": True},
        {"preset": "wan"},
        {"version": "9"},
    ):
        assert not check(msgspec.structs.replace(newcomer, **changed)), changed


def test_a_newcomer_gets_a_row_a_certificate_and_the_id_key_and_only_it_can_open_that() -> None:
    mesh, keys, other = authority(), NodeKeys.create(), NodeKeys.create()
    newcomer = enrolment.Newcomer("alpha", keys.public_key, keys.encryption_key, ("10.0.0.2:1",), never_admin=True)
    row = enrolment.server_row(newcomer, id_key=bytes(range(32)), mesh=MESH, now_ns=NOW, randomness=os.urandom)
    assert (row.id, row.name, row.never_admin, row.voter) == (keys.id, "alpha", True, False)
    assert enrolment.unwrap_id_key(keys, row.wrapped_id_key, mesh=MESH) == bytes(range(32))
    for stranger, its_mesh in ((other, MESH), (keys, "other")):
        with pytest.raises(SealBroken):
            enrolment.unwrap_id_key(stranger, row.wrapped_id_key, mesh=its_mesh)
    chain = enrolment.newcomer_chain(mesh, keys.public_key, now_ns=NOW, randomness=os.urandom)
    assert certificates.public_key_of(chain[0]) == keys.public_key
    assert certificates.signed_by(chain[0], mesh.issuing)
    assert chain[1] == mesh.issuing
    small_order = msgspec.structs.replace(newcomer, encryption_key=bytes(32))
    with pytest.raises(SealBroken):
        enrolment.server_row(small_order, id_key=bytes(32), mesh=MESH, now_ns=NOW, randomness=os.urandom)


def test_the_same_randomness_gives_the_same_keys_so_that_a_simulation_repeats() -> None:
    first, second = (NodeKeys.create(random.Random(7).randbytes) for _ in range(2))
    assert (first.id, first.encryption_key) == (second.id, second.encryption_key)

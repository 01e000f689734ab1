"""A vault as an earlier version wrote it: later ones open it, or refuse it with the way back.

``golden_vault_1.json`` holds its objects in base64. Its keys are made from fixed words and protect nothing.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

from blake3 import blake3
from vault_world import MemoryBackend, World

from caso_mesh.vault.vault import Vault, load_keys, read_header

FOLDER = Path(__file__).parent
FILES = {b"srv/data/f%02d" % number: b"line %d\n" % number * (number * 40 + 1) for number in range(20)}


def key(words: str) -> bytes:
    return blake3(words.encode()).digest()


def test_a_vault_of_version_1_is_still_read() -> None:
    stored = json.loads((FOLDER / "golden_vault_1.json").read_text())
    backend = MemoryBackend({name: base64.b64decode(data) for name, data in stored["objects"].items()})
    recipients: list[bytes] = []

    def unwrap(wrapped: bytes, aad: bytes) -> bytes:
        from caso_mesh.sealing.wrapping import unwrap as opened

        recipients.append(wrapped)
        return opened(wrapped, key("golden encryption"), aad=aad)

    def verify(server: str, domain: str, message: bytes, signature: bytes) -> bool:
        from caso_mesh.sealing.signing import verify as verified

        return server == "golden" and verified(base64.b64decode(stored["public"]), domain, message, signature)

    header = read_header(backend)
    assert header is not None
    keys = load_keys(backend, "golden", unwrap, key("golden id key"))
    assert len(recipients) == 1
    vault = Vault(backend, header, keys, verify=verify, cache_folder=None)
    (backup_set,) = vault.sets()
    assert World.restore(vault, backup_set) == FILES
    assert vault.verify_set(backup_set) == []
    assert vault.problems() == []

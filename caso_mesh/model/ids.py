"""Names and identifiers.

*Names* are chosen by people and match ``[a-z0-9][a-z0-9._-]{0,62}``. *Ids* are made by the program: a node id is the
base32 of the SHA-256 of a public key; others are UUIDv7 (RFC 9562) in base32, so that they sort by time.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
from collections.abc import Callable, Iterable

from caso_mesh.model.errors import Ambiguous, InvalidName, InvalidValue, NotFound

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
#: A server whose files a set holds: one of this mesh, or ``NAME@MESH`` of another one whose devices were imported.
SOURCE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}(?:@[a-z0-9][a-z0-9._-]{0,69})*\Z")
#: Set ids become file names.
SET_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
#: Characters of a node id that are shown to people.
SHORT_NODE_ID = 13

#: Gives a new id at each call; injected, so that a simulation repeats exactly.
IdSource = Callable[[], str]


def check_name(name: str, kind: str) -> str:
    """``name`` itself. Raises ``InvalidName``."""
    if not NAME.match(name):
        raise InvalidName(name=name, kind=kind)
    return name


def base32(data: bytes) -> str:
    """Lower-case base32 without padding (RFC 4648, section 6)."""
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


def token_id(digest: bytes) -> str:
    """What people call a join link by: of the digest of its secret, which it does not give away."""
    return base32(digest)[:13]


def from_base32(text: str) -> bytes:
    """The bytes of ``base32``. Raises ``ValueError``."""
    return base64.b32decode(text.upper() + "=" * (-len(text) % 8))


def node_id(spki: bytes) -> str:
    """The id of the holder of a public key, given as DER SubjectPublicKeyInfo: 52 characters."""
    return base32(hashlib.sha256(spki).digest())


def make_id_source(now_ns: Callable[[], int], random_bytes: Callable[[int], bytes]) -> IdSource:
    """Ids that rise: 48 bits of milliseconds, 12 bits of counter, 62 random bits (RFC 9562, method 1)."""
    last = [0, 0]

    def new() -> str:
        ms = now_ns() // 1_000_000
        if ms <= last[0]:
            last[1] += 1
            if last[1] > 0xFFF:
                last[0], last[1] = last[0] + 1, 0
        else:
            last[0], last[1] = ms, 0
        tail = int.from_bytes(random_bytes(8), "big") & ((1 << 62) - 1)
        value = (last[0] << 80) | (0x7 << 76) | (last[1] << 64) | (0b10 << 62) | tail
        return base32(value.to_bytes(16, "big"))

    return new


def derived_id(seed: str, *parts: str) -> str:
    """An id made of another one: of the same time (its first 10 characters) and place, else of a digest of it and of
    ``parts``."""
    digest = hashlib.sha256("\0".join((seed, *parts)).encode()).digest()
    _, slash, place = seed.partition("/")
    return seed[:10] + base32(digest)[:16] + slash + place


def local_id(id: str, node: str) -> str:
    """``id`` as one of the work that a server (node id) does by itself: ``ID/SERVER``, with the beginning of its id."""
    return f"{id}/{node[:SHORT_NODE_ID]}"


def is_of_place(id: str, node: str) -> bool:
    """Whether the id of a job, run or attempt may come from a server (node id): one that names a place is of that server's
    own work."""
    _, slash, place = id.partition("@")[0].partition("/")
    return not slash or place == node[:SHORT_NODE_ID]


def is_local(id: str) -> bool:
    """Whether a job, run or attempt is of the work that some server does by itself."""
    return "/" in id.partition("@")[0]


def run_id(job: str, due_at_ns: int) -> str:
    """The id of the run of ``job`` that is due at an instant: ``JOB@20250101T020000Z``."""
    due = datetime.datetime.fromtimestamp(due_at_ns // 1_000_000_000, datetime.UTC)
    return f"{job}@{due:%Y%m%dT%H%M%SZ}"


def run_now_id(job: str, serial: int) -> str:
    """The id of the ``serial``-th "run now" of ``job``: ``JOB@N``."""
    return f"{job}@{serial}"


def fired_run_id(job: str, template: str, run: str) -> str:
    """The id of the run of ``job`` that a run of ``template`` started by a rule: ``JOB@TEMPLATE-...``, by the end of that
    run's id, so that one run starts it once."""
    return f"{job}@{template}-{run.rpartition('@')[2]}"


def attempt_id(run: str, number: int) -> str:
    """The id of the ``number``-th attempt of a run, counted from 1: ``RUN#N``."""
    return f"{run}#{number}"


def second_run_id(attempt: str) -> str:
    """The id of the run that takes what an attempt reads to a second device: ``RUN+N``."""
    return attempt.replace("#", "+")


def run_of_attempt(attempt: str) -> str:
    return attempt.rpartition("#")[0]


def job_of_run(run: str) -> str:
    return run.rpartition("@")[0]


def split_server_path(text: str) -> tuple[str, str]:
    """``SERVER:PATH`` at its first colon. Raises ``InvalidValue``."""
    server, colon, path = text.partition(":")
    if not colon or not SOURCE_NAME.match(server) or not path.startswith("/"):
        raise InvalidValue(value=text, what="place", expected="Use SERVER:/absolute/path")
    return server, path


def resolve_prefix(prefix: str, ids: Iterable[str], kind: str) -> str:
    """The one id that is ``prefix`` or begins with it. Of a run the id of its job may be shortened as well, as tables on a
    terminal show it: ``agrcnyofhvyab@3``. Raises ``NotFound`` or ``Ambiguous``."""
    found: list[str] = []
    job, at, run = prefix.partition("@")
    for candidate in ids:
        if candidate == prefix:
            return candidate
        if candidate.startswith(prefix) or (at and job and candidate.startswith(job) and candidate.endswith(at + run)):
            found.append(candidate)
    if not found or not prefix:
        raise NotFound(kind=kind, name=prefix)
    if len(found) > 1:
        raise Ambiguous(kind=kind, name=prefix, candidates=sorted(found)[:5])
    return found[0]

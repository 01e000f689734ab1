"""``caso-mesh vault``: a device and its recovery kit, with no mesh, no database and no network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Struct

from caso_mesh.cli import output
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import EscapedOption, JsonOption, OwnStateOption, default_state, rooted_path
from caso_mesh.cli.passphrase import KitFile, PassphraseFile, open_kit
from caso_mesh.model.errors import FAILED, WITH_EXCEPTIONS, NoKey, StateKeyless, StateMissing, TargetInvalid, UsageError
from caso_mesh.model.states import Overwrite
from caso_mesh.model.units import format_duration, format_instant, format_size

if TYPE_CHECKING:
    from caso_mesh.jobs.offline import OfflineVault
    from caso_mesh.model.storage import BackupSet

app = Group(name="vault", help="A device and its recovery kit, without a mesh: list, restore, grant.")

Device = Annotated[Path, Parameter(name="DEVICE-PATH", help="The folder of the device.")]
_SHOWN = 20


class SetRow(Struct, frozen=True):
    """One set. ``roots`` are its paths; a path that is not UTF-8 is escaped."""

    id: str
    source: str
    server: str
    device: str
    type: str
    started: str | None
    ended: str | None
    files: int
    bytes: int
    exceptions: int
    roots: tuple[str, ...]


class VaultView(Struct, frozen=True):
    vault: str
    mesh: str
    sets: tuple[SetRow, ...]
    problems: tuple[str, ...]


class GrantedView(Struct, frozen=True):
    """``added`` is how many content keys the server could not open before."""

    node: str
    added: int


class ExceptionRow(Struct, frozen=True):
    path: str
    reason: str
    detail: str


class RestoredView(Struct, frozen=True):
    """``state`` is ``succeeded`` or ``succeeded-with-exceptions``."""

    set: str
    state: str
    to: str
    files: int
    bytes: int
    seconds: float
    exceptions: tuple[ExceptionRow, ...]
    problems: tuple[str, ...]


class _Clock:
    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_s(self) -> float:
        return time.monotonic()


def _text(path: bytes) -> str:
    return "/" + path.decode("utf-8", "backslashreplace")


def _row(found: BackupSet) -> SetRow:
    return SetRow(
        id=found.id,
        source=found.source_name,
        server=found.server_name,
        device=found.device_name,
        type=found.type.value,
        started=format_instant(found.started_at_ns),
        ended=format_instant(found.ended_at_ns),
        files=found.files,
        bytes=found.bytes,
        exceptions=found.exceptions,
        roots=tuple(_text(root) for root in found.roots),
    )


@app.command(name="list")
def list_(device: Device, /, *, kit: KitFile, passphrase_file: PassphraseFile = None, json: JsonOption = False) -> int:
    """List the backup sets in a device."""
    from caso_mesh.jobs.offline import open_offline

    with open_offline(str(device), open_kit(kit, passphrase_file)) as opened:
        rows = tuple(_row(each) for each in opened.sets())
        view = VaultView(opened.header.vault, opened.header.mesh, rows, tuple(opened.problems()))
    output.show(view, json, _show_list)
    return 0


def _show_list(view: VaultView) -> None:
    output.table(
        view.sets,
        ("set", lambda row: row.id),
        ("source", lambda row: row.source),
        ("paths", lambda row: row.roots),
        ("type", lambda row: row.type),
        ("ended", lambda row: row.ended),
        ("files", lambda row: row.files),
        ("size", lambda row: output.size(row.bytes)),
        ("exceptions", lambda row: row.exceptions or None),
    )
    for problem in view.problems:
        output.warning(problem)


@app.command
def grant(
    device: Device,
    /,
    *,
    kit: Annotated[
        Path | None, Parameter(name="--kit", help='The recovery kit, as "caso-mesh kit create" wrote it.')
    ] = None,
    from_state: Annotated[
        Path | None, Parameter(help="In place of a kit: the state folder of a machine that could use the device.")
    ] = None,
    state: OwnStateOption = None,
    passphrase_file: PassphraseFile = None,
    json: JsonOption = False,
) -> int:
    """Let the server of a state folder use a device that came with the disk of another one, which is lost."""
    from caso_mesh.identity.store import IdentityStore
    from caso_mesh.jobs.offline import grant as wrap_to
    from caso_mesh.jobs.offline import grant_from

    folder = state if state is not None else default_state()
    store = IdentityStore(folder / "identity")
    keys, mesh = store.load_keys(), store.load_mesh_id()
    if from_state is not None:
        if kit is not None or passphrase_file is not None:
            raise UsageError(detail="Give either --kit or --from-state")
        former = IdentityStore(from_state / "identity")
        if former.load_mesh_id() != mesh:
            raise UsageError(detail=f"{from_state} is of another mesh than {folder}")
        try:
            added = grant_from(
                str(device), former.load_keys(), mesh, former.load_id_key(), keys.id, keys.encryption_key
            )
        except NoKey:
            raise StateKeyless(state=from_state, path=device) from None
    elif kit is None:
        raise UsageError(detail="Give --kit FILE, or --from-state FOLDER of a machine that could use the device")
    else:
        opened = open_kit(kit, passphrase_file)
        if mesh != opened.mesh:
            raise StateMissing(state=folder)
        added = wrap_to(str(device), opened, keys.id, keys.encryption_key)
    view = GrantedView(keys.id, added)
    output.show(view, json, lambda shown: output.line(f"{shown.added} keys of {device} were wrapped to this server"))
    return 0


@app.command
def restore(
    device: Device,
    set: Annotated[str, Parameter(name="SET", help="Id of the backup set, or a unique beginning of it.")],
    /,
    *paths: Annotated[str, Parameter(name="PATH", help="What to bring back; everything without it.")],
    kit: KitFile,
    to: Annotated[Path, Parameter(help="Folder to restore below, by whole paths.")],
    strip: Annotated[bool, Parameter(negative=(), help="Without the path of the source's root.")] = False,
    overwrite: Annotated[
        Literal["never", "older", "always"], Parameter(help="What to do with files that exist.")
    ] = "older",
    no_ownership: Annotated[bool, Parameter(negative=(), help="Do not restore owners and groups.")] = False,
    escaped: EscapedOption = False,
    passphrase_file: PassphraseFile = None,
    json: JsonOption = False,
) -> int:
    """Restore a backup set or parts of it out of a device, with nothing but a recovery kit."""
    from caso_mesh.jobs.offline import open_offline, restore_offline

    with open_offline(str(device), open_kit(kit, passphrase_file)) as opened:
        backup = opened.set(set)
        try:
            done = restore_offline(
                opened,
                backup,
                str(to),
                paths=[rooted_path(path, escaped=escaped) for path in paths],
                strip=strip,
                overwrite=Overwrite(overwrite),
                ownership=not no_ownership,
                clock=_Clock(),
            )
        except OSError as error:
            raise TargetInvalid(path=error.filename or to, detail=error.strerror or error) from error
        view = RestoredView(
            set=backup.id,
            state="succeeded-with-exceptions" if done.exceptions else "succeeded",
            to=str(to),
            files=done.counts.files,
            bytes=done.counts.bytes,
            seconds=round(done.seconds, 3),
            exceptions=tuple(ExceptionRow(_text(each.path), each.reason, each.detail) for each in done.exceptions),
            problems=_problems(opened),
        )
    output.show(view, json, _show_restored)
    if not done.exceptions:
        return 0
    nothing = done.counts.files > 0 and len(done.exceptions) >= done.counts.entries
    return FAILED if nothing else WITH_EXCEPTIONS


def _problems(opened: OfflineVault) -> tuple[str, ...]:
    return tuple(opened.problems())


def _show_restored(view: RestoredView) -> None:
    took = format_duration(view.seconds)
    output.line(
        f"Restored {view.files} files ({format_size(view.bytes)}) of the set {view.set} to {view.to} in {took}."
    )
    for each in view.exceptions[:_SHOWN]:
        output.warning(f"{each.path}: {each.reason} {each.detail}".rstrip())
    if len(view.exceptions) > _SHOWN:
        output.warning(f"{len(view.exceptions) - _SHOWN} more; --json lists all")
    for problem in view.problems:
        output.warning(problem)

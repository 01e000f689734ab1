"""Every category of alerts there is: how serious it is, what it means, what to do about it.

``docs/alerts.md`` is made of it; a test keeps it equal to what the code raises.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from caso_mesh.model.states import AlertKind, RunState

#: Who gave an answer that nobody gave, after the time that ``alert-answer-after`` says.
AUTOMATIC = "automatic"

_A, _E, _W, _I = AlertKind.ATTENTION, AlertKind.ERROR, AlertKind.WARNING, AlertKind.INFORMATION


class Category(Struct, frozen=True):
    """``standing``: it is about a condition, and is over by itself with it. ``response``: what an answer says that nobody
    gives; empty = it waits for a person, however long that takes, since an answer lets something happen."""

    name: str
    types: tuple[AlertKind, ...]
    text: str
    do: str
    standing: bool = False
    response: str = "seen by nobody"


def may_be_off(category: str, kind: AlertKind | str) -> bool:
    """Whether alerts of a category may be turned off for a server: not those that need attention."""
    known = BY_NAME.get(category)
    return kind != _A and (known is None or _A not in known.types)


class CategoryList(Struct, frozen=True):
    categories: tuple[Category, ...]


CATEGORIES: tuple[Category, ...] = (
    Category(
        "admin-taken-over", (_W,),
        "The office was taken over by hand, because the voters could not elect anybody.",
        "See that the servers that were voters before come back as members, or remove them.",
    ),
    Category(
        "awaiting-approval", (_A,),
        "An operator asked for something that a second one has to ask for, too (second-operator).",
        "Give the same command as another operator, or answer the alert to say no.",
        response="",
    ),
    Category(
        "backup-overdue", (_E,),
        "The newest good backup of a server in a selection list is older than the list allows (--oldest-good).",
        "caso-mesh why LIST tells what became of the runs; back up now: caso-mesh job run JOB.",
        standing=True,
    ),
    Category(
        "catalog-damaged", (_W,),
        "A catalog file is damaged. It was set aside and is made anew; meanwhile some files are not found.",
        "See to the disk that it lies on. It is whole again by itself; caso-mesh set list shows which sets have their catalog.",
    ),
    Category(
        "catalog-error", (_W,),
        "The catalog of a set is damaged, and could not be made anew from its device. The set itself can be restored.",
        "Verify the set. caso-mesh catalog rebuild DEVICE makes the catalog again once the device can be read.",
    ),
    Category(
        "catalog-lost", (_W,),
        "A catalog lacks sets that it had. They are taken in again.",
        "See to the disk that it lies on.",
    ),
    Category(
        "clock-differs", (_W,),
        "The clock of a server differs from the administrator's by more than clock-difference-s. Nothing expires meanwhile.",
        "Set the clock of that server, or have it kept by NTP.",
        standing=True,
    ),
    Category(
        "clock-jumped", (_W,),
        "The administrator's clock was set while it was in office. Nothing expires for clock-steady-s.",
        "See that it is right now: caso-mesh set expire --dry-run shows what would go by it.",
    ),
    Category(
        "device-erased", (_W,),
        "An operator had a device erased: the sets on it are gone.",
        "Nothing, if it was meant to be. caso-mesh audit list --what device-erased tells who and when.",
    ),
    Category(
        "device-error", (_E,),
        "A device cannot be used on a server: its folder is gone, cannot be written, or is not the device that it was.",
        "Mount it, or repair it; caso-mesh device list shows what its server says.",
        standing=True,
    ),
    Category(
        "device-keys-lost", (_E,),
        "No server opens a device any more: all that did were replaced by new machines. What lies on it is unreadable till then.",
        "On a server that sees it: caso-mesh vault grant PATH --kit FILE, with a recovery kit; or --from-state FOLDER, with the state folder of a machine that opened it. The others are given its keys from there.",
        standing=True,
    ),
    Category(
        "device-low-on-space", (_W,),
        "There is less room on a device than its low space limit. No new backups are placed on it.",
        "Delete sets that are no longer needed and reclaim, shorten what new sets are kept for, or add a device.",
        standing=True,
    ),
    Category(
        "erase-unfinished", (_E,),
        "The erase of a device had begun and did not end. Nothing that was on it can be used, and nothing new is written there.",
        "Run it again: caso-mesh device erase NAME. It goes on where it was cut off.",
        standing=True,
    ),
    Category(
        "expiry-failed", (_W,),
        "Sets that nothing keeps any more could not be deleted from a device.",
        "The text says why; it is tried again every hour.",
        standing=True,
    ),
    Category(
        "expiry-waits", (_W,),
        "Sets that nothing keeps any more lie on a device that is away.",
        "Bring the device back, or remove it: caso-mesh device remove.",
        standing=True,
    ),
    Category(
        "facts-lost", (_E,),
        "A server had pruned facts, or lost them with its journal, that no voter holds any more.",
        "The text says how many. Sets are found again on their devices: caso-mesh catalog rebuild DEVICE.",
    ),
    Category(
        "job-completed-with-exceptions", (_W,),
        "A run succeeded, but some files could not be kept or restored as they are.",
        "caso-mesh job log RUN names them.",
    ),
    Category(
        "job-failed", (_E,),
        "A run failed for at least one of its servers, and is not tried again.",
        "caso-mesh why RUN tells the story; run it again: caso-mesh job run JOB.",
    ),
    Category(
        "job-held", (_A,),
        "A run is on hold: it was lost with too many servers, or an error-handling rule holds it.",
        "See to the cause, then release it: caso-mesh job release JOB. What was lost goes on by itself when a server returns.",
        standing=True, response="",
    ),
    Category(
        "job-late", (_W,),
        "A run could not start in its window, and is caught up with as soon as it can (--catch-up).",
        "caso-mesh why RUN says what it waited for.",
    ),
    Category(
        "job-missed", (_E,),
        "A scheduled run could not start within its start window. The next one is due as usual.",
        "The text says what it waited for; run it now: caso-mesh job run JOB.",
    ),
    Category(
        "job-recovered", (_W,),
        "A server was lost while it ran a job; the job was given to another one.",
        "See to the server that was lost.",
    ),
    Category(
        "job-timed-out", (_E,),
        "A run was ended because it took longer than its template or job allows (--cancel-after).",
        "Allow more time, or find out what is slow: caso-mesh job log RUN.",
    ),
    Category(
        "journal-damaged", (_E,),
        "The journal of a server was damaged. It goes on without what is lost.",
        "See to the disk that the state folder lies on; the text says what is lost.",
    ),
    Category(
        "journal-full", (_E,),
        "So many facts wait for an administrator at a server that it takes no new work (journal-limit-mb).",
        "Let the server meet an administrator, which takes them.",
        standing=True,
    ),
    Category(
        "large-packets-lost", (_W,),
        "On the way between two servers large packets are lost, and nobody says so. Smaller ones are sent there: all works, with "
        "less speed.",
        "Look for a tunnel or VPN with a smaller MTU on the way, and for a firewall that drops ICMP; ping -M do -s 1472 ADDRESS shows "
        "it. It is tried every ten minutes.",
        standing=True,
    ),
    Category(
        "logon-lost", (_A,),
        "No server has the secret of a logon any more that some may use.",
        "Type it again: caso-mesh logon set NAME --new-secret.",
        standing=True, response="",
    ),
    Category(
        "mass-change", (_A,),
        "A backup looks as if somebody had encrypted its source. The last good sets were locked, and nothing expires.",
        "Look at the source. Answer the alert when all is well: then sets expire again.",
        response="",
    ),
    Category(
        "membership-unconfirmed", (_E,),
        "A server runs no job by itself: its certificate has expired, or it was removed from the mesh.",
        "Let it meet an administrator, who renews the certificate; the text says which it is.",
        standing=True,
    ),
    Category(
        "mesh-copy-too-long", (_E,),
        "The copy of the mesh is too long to be laid down on the devices: a recovery would begin with an old one.",
        "Keep less history (runs-kept), and fewer or shorter selection lists.",
        standing=True,
    ),
    Category(
        "mesh-recovered", (_W,),
        "The administrator was rebuilt from a device and a recovery kit.",
        "Look at what is there: caso-mesh status, caso-mesh server list. What was set after that copy is lost.",
    ),
    Category(
        "metrics-unavailable", (_W,),
        "A server cannot show its metrics on the address that its own file says.",
        "The text says why: another program listens there, or the address is none of this machine.",
        standing=True,
    ),
    Category(
        "no-recovery-kit", (_A,),
        "There is no confirmed recovery kit: what is backed up is lost with the last server.",
        "caso-mesh kit create; print it, and keep it away from the servers.",
        standing=True, response="",
    ),
    Category(
        "nobody-notified", (_W,),
        "Nobody would be told of an alert that needs attention, or of an error.",
        "caso-mesh notify recipient create, caso-mesh notify smtp set, and try it: caso-mesh notify test.",
        standing=True,
    ),
    Category(
        "notification-failed", (_E,),
        "What is sent to a recipient does not arrive. It is tried again by itself, for three days.",
        "The text says what its server answers; after a change try it: caso-mesh notify test RECIPIENT.",
        standing=True,
    ),
    Category(
        "office-duty-failed", (_E,),
        "Something that the administrator does all the time failed, and was begun again.",
        "The text says why. If it stays so, look into the daemon's log.",
    ),
    Category(
        "own-work-failed", (_E,),
        "What a server does by itself stands still.",
        "The text says why; it is begun again after a while.",
        standing=True,
    ),
    Category(
        "recovery-kit-incomplete", (_W,),
        "The keys of a device are not in every recovery kit: a kit could not open what lies on it.",
        "Bring a server that reaches the device back; else make a new kit: caso-mesh kit create.",
        standing=True,
    ),
    Category(
        "report-failed", (_E,),
        "A report that is sent by itself could not be made: what it is about is not there any more.",
        "caso-mesh report scheduled shows what it asks for; make it anew with caso-mesh report schedule --replace.",
        standing=True,
    ),
    Category(
        "second-set-missing", (_E,),
        "A backup to two devices is on the first one alone.",
        "The text names the command that copies it.",
    ),
    Category(
        "server-floods", (_W,),
        "A server tells without end. Log lines of it, then exceptions and further alerts of a category, are left out.",
        "See what it logs and why; caso-mesh server pause SERVER keeps new work from it. With work that really is so much: raise "
        "journal-limit-mb for it.",
        standing=True,
    ),
    Category(
        "server-no-communication", (_E,),
        "A server was not heard of for so long that its jobs are recovered elsewhere.",
        "See to the server, or to the network before it.",
        standing=True,
    ),
    Category(
        "server-stalled", (_W,),
        "A server was not heard of for stalled-after-s. Nothing new is given to it.",
        "Wait, or see to the server.",
        standing=True,
    ),
    Category(
        "server-twice", (_E,),
        "Two machines run with the key of one server: its state folder, or the whole machine, was copied. Who is linked goes on "
        "working; the other one is turned away and runs nothing.",
        "Stop one of the two for good. The text, and the audit log (identity-in-use), tell where they are. If nobody copied it, "
        "the key was stolen: remove the server. What the one that you keep has not told yet, it tells when the other one is gone.",
        standing=True,
    ),
    Category(
        "sets-missing", (_E,),
        "An inventory did not find sets on their device that should be there. They are no backup to rely on any more: they do not "
        "count as the last good ones, and expire no older ones.",
        "If their device was swapped, or a folder of it is lost, bring that back and take the inventory again: caso-mesh device "
        "inventory NAME. Otherwise back up anew; caso-mesh set list shows them as missing.",
        standing=True,
    ),
    Category(
        "state-full", (_E, _W),
        "The disk of a state folder is full: no new work is taken there, or catalogs wait.",
        "Make room on that disk.",
        standing=True,
    ),
    Category(
        "state-rolled-back", (_W,),
        "The state folder of a server was put back to an older copy.",
        "See that nobody puts it back again by mistake; it goes on with a new journal.",
    ),
    Category(
        "tables-damaged", (_E,),
        "The tables of a voter were damaged. They were set aside and are made again from another voter, or from the journals.",
        "See to the disk that the state folder lies on.",
    ),
    Category(
        "voter-lost", (_E, _W),
        "A voter takes part in no decision any more: its disk was put back, or the mesh was taken over.",
        "The text says why. Another server can vote in its place: caso-mesh voter add SERVER.",
    ),
)  # fmt: skip
BY_NAME: dict[str, Category] = {each.name: each for each in CATEGORIES}
#: In the order of what is most urgent.
KINDS: tuple[AlertKind, ...] = (_A, _E, _W, _I)

#: Of the end that a run came to, which category its alert has.
OF_END: dict[RunState, str] = {
    RunState.FAILED: "job-failed",
    RunState.TIMED_OUT: "job-timed-out",
    RunState.MISSED: "job-missed",
    RunState.SUCCEEDED_WITH_EXCEPTIONS: "job-completed-with-exceptions",
}


def what_to_do(category: str, known: Mapping[str, str]) -> str:
    """What to do about an alert, with the words RUN, JOB, ... of its category's hint filled in as far as they are ``known``;
    the others stay. Empty for a category that there is not."""
    about = BY_NAME.get(category)
    if about is None:
        return ""
    return re.sub(r"(?<![-\w])[A-Z]{3,}(?![-\w])", lambda word: known.get(word[0]) or word[0], about.do)

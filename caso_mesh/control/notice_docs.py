"""Documents about notification as records of the control state, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from caso_mesh.control.documents import one_of
from caso_mesh.control.state import ControlState
from caso_mesh.model.alerts import BY_NAME
from caso_mesh.model.errors import InvalidValue
from caso_mesh.model.notice_docs import MailServerDoc, NoticeRuleDoc, RecipientDoc, RecipientGroupDoc
from caso_mesh.model.notices import MailServer, MailTls, NoticeRule, Recipient, RecipientGroup
from caso_mesh.model.states import AlertKind, RunState
from caso_mesh.planning.notices import run_ends_that_are_told

_PORTS = {MailTls.STARTTLS: 587, MailTls.IMPLICIT: 465}


def mail_server_of(doc: MailServerDoc) -> MailServer:
    """Raises ``InvalidValue``."""
    tls = one_of(MailTls, doc.tls, "tls")
    return MailServer(doc.host, doc.port or _PORTS.get(tls, 25), tls, doc.sender, doc.logon, doc.ca)


def mail_server_doc(row: MailServer) -> MailServerDoc:
    port = 0 if row.port == _PORTS.get(row.tls, 25) else row.port
    return MailServerDoc(row.host, row.sender, port, row.tls.value, row.logon, row.ca_pem)


def recipient_of(name: str, doc: RecipientDoc) -> Recipient:
    return Recipient(name, doc.mail, doc.url, 0, doc.logon, doc.hourly, doc.summary)


def recipient_doc(row: Recipient) -> RecipientDoc:
    return RecipientDoc(row.mail, row.url, row.logon, row.hourly, row.summary)


def group_of(name: str, doc: RecipientGroupDoc) -> RecipientGroup:
    return RecipientGroup(name, tuple(dict.fromkeys(doc.members)))


def group_doc(row: RecipientGroup) -> RecipientGroupDoc:
    return RecipientGroupDoc(row.members)


class Known(Struct, frozen=True):
    """Names that are there beside those of the state, and their ids."""

    jobs: Mapping[str, str] = {}
    policies: Mapping[str, str] = {}
    lists: Mapping[str, str] = {}
    pools: frozenset[str] = frozenset()


def rule_of(state: ControlState, name: str, doc: NoticeRuleDoc, known: Known | None = None) -> NoticeRule:
    """Raises ``InvalidValue``, ``NotFound``."""
    known = known or Known()
    kinds, categories = [], []
    for each in dict.fromkeys(doc.alerts):
        if each in {kind.value for kind in AlertKind}:
            kinds.append(AlertKind(each))
        elif each in BY_NAME:
            categories.append(each)
        else:
            expected = f"Use {', '.join(AlertKind)}, or a category: caso-mesh alert categories"
            raise InvalidValue(value=each, what="alert", expected=expected)
    return NoticeRule(
        name,
        tuple(dict.fromkeys(doc.to)),
        0,
        tuple(kinds),
        tuple(categories),
        tuple(_end(each) for each in dict.fromkeys(doc.ends)),
        servers=tuple(state.server_named(each).id for each in doc.servers),
        pools=tuple(each if each in known.pools else state.pool_named(each).name for each in doc.pools),
        jobs=tuple(known.jobs.get(each) or state.job_named(each).id for each in doc.jobs),
        policies=tuple(known.policies.get(each) or state.policy_named(each).id for each in doc.policies),
        lists=tuple(known.lists.get(each) or state.list_named(each).id for each in doc.lists),
        over=doc.over,
    )


def rule_doc(state: ControlState, row: NoticeRule) -> NoticeRuleDoc:
    """What left the mesh meanwhile is named by its id: such a rule is narrower than it looks, never wider."""
    return NoticeRuleDoc(
        row.to,
        (*(kind.value for kind in row.types), *row.categories),
        tuple(end.value for end in row.ends),
        tuple(sorted(map(state.name_of, row.servers))),
        row.pools,
        _names(row.jobs, {job.id: job.name for job in state.job_list()}),
        _names(row.policies, {policy.id: policy.name for policy in state.policy_list()}),
        _names(row.lists, {each.id: each.name for each in state.selection_lists()}),
        row.over,
    )


def _end(text: str) -> RunState:
    known = run_ends_that_are_told()
    if text not in known:
        raise InvalidValue(value=text, what="end of a run", expected=f"Use {', '.join(known)}")
    return RunState(text)


def _names(ids: Iterable[str], known: dict[str, str]) -> tuple[str, ...]:
    return tuple(known.get(id, id) for id in ids)

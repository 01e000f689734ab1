"""What commands about notification ask, and what they print."""

from __future__ import annotations

from typing import Any

from caso_mesh.model import notice_docs as d
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.alert_calls import AlertDetail

RULE = d.NoticeRuleDoc(("ops",), ("error", "device-error"), ("failed",), pools=("media",), lists=("office",), over=True)
ANN = d.RecipientView(
    "ann", d.RecipientDoc("ann@example.org"), 3, "ann was not told: it is down", "2025-01-01T00:00:00Z", "boss"
)
ALERT = v.AlertView(
    "al1", "error", "device-error", "alpha", "disk", "device-gone", "2025-01-01T00:00:00Z", None, None, None, None
)

CASES: list[tuple[str, str, Any, Any, list[str]]] = [
    ("notify recipient list", "recipient.list", q.Nothing(), d.RecipientViews((ANN,)), ["ann@example.org", "it is down"]),
    (
        "notify recipient create ann --mail ann@example.org --hourly 5 --no-summary",
        "recipient.create",
        d.RecipientEdit("ann", d.RecipientDoc("ann@example.org", hourly=5, summary=False)),
        v.Done(),
        ["recipient ann was added"],
    ),
    (
        "notify recipient create chat --url https://chat.example/x --logon sign",
        "recipient.create",
        d.RecipientEdit("chat", d.RecipientDoc(url="https://chat.example/x", logon="sign", summary=False)),
        v.Done(),
        ["notify test chat"],
    ),
    ("notify recipient delete ann", "recipient.delete", q.Named("ann"), v.Done(), ["recipient ann was deleted"]),
    (
        "notify group list",
        "recipient-group.list",
        q.Nothing(),
        d.RecipientGroupViews((d.RecipientGroupEdit("ops", d.RecipientGroupDoc(("ann", "chat"))),)),
        ["ops", "ann, chat"],
    ),
    (
        "notify group create ops ann chat",
        "recipient-group.create",
        d.RecipientGroupEdit("ops", d.RecipientGroupDoc(("ann", "chat"))),
        v.Done(),
        ["group ops was made"],
    ),
    (
        "notify group edit ops ann",
        "recipient-group.set",
        d.RecipientGroupEdit("ops", d.RecipientGroupDoc(("ann",))),
        v.Done(),
        ["group ops was changed"],
    ),
    ("notify group delete ops", "recipient-group.delete", q.Named("ops"), v.Done(), ["group ops was deleted"]),
    (
        "notify rule list",
        "notify-rule.list",
        q.Nothing(),
        d.NoticeRuleViews((d.NoticeRuleEdit("urgent", RULE),)),
        ["urgent", "device-error", "failed", "pool media, list office"],
    ),
    (
        "notify rule create urgent --to ops --alert error --alert device-error --end failed --pool media --list office --over",
        "notify-rule.create",
        d.NoticeRuleEdit("urgent", RULE),
        v.Done(),
        ["rule urgent was made"],
    ),
    ("notify rule delete urgent", "notify-rule.delete", q.Named("urgent"), v.Done(), ["rule urgent was deleted"]),
    (
        "notify smtp show",
        "mail-server.show",
        q.Nothing(),
        d.MailServerView(d.MailServerDoc("smtp.example", "mesh@example.org", logon="mail"), "2025-01-01T00:00:00Z", "boss"),
        ["smtp.example", "mesh@example.org", "starttls", "by boss"],
    ),
    (
        "notify smtp set smtp.example --from mesh@example.org --port 2525 --tls implicit --logon mail",
        "mail-server.set",
        d.MailServerSet(d.MailServerDoc("smtp.example", "mesh@example.org", 2525, "implicit", "mail")),
        v.Done(),
        ["mail goes by smtp.example"],
    ),
    ("notify smtp clear", "mail-server.set", d.MailServerSet(None), v.Done(), ["no mail server"]),
    (
        "alert show al1",
        "alert.show",
        q.Named("al1"),
        AlertDetail(ALERT, ("beta",), "it means", "do this", stands=True),
        ["al1", "device-error, error", "it means", "do this", "with its condition"],
    ),
    (
        "alert list --type error --category device-error --since 1970-01-01T00:00:01Z --until 1970-01-01T00:00:02Z --pool p",
        "alert.list",
        q.AlertListRequest(False, None, "p", 500, ("error",), ("device-error",), 10**9, 2 * 10**9),
        v.AlertList((ALERT,)),
        ["device-error", "device-gone"],
    ),
    (
        "notify test ops",
        "notify.test",
        d.NoticeTest("ops"),
        d.NoticesTested((d.NoticeTested("ann", arrived=True, answer="250 taken"),)),
        ["ann", "250 taken"],
    ),
]  # fmt: skip

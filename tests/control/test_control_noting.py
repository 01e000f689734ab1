"""What the audit log says of a change: from what to what, with names, without secrets, and not without end."""

from __future__ import annotations

from control.control_world import Script, device, server

from caso_mesh.control.noting import MOST, changes_of
from caso_mesh.control.tables import Put
from caso_mesh.model.audit import Change
from caso_mesh.model.facts import audited
from caso_mesh.model.mesh import Pool
from caso_mesh.model.notice_docs import RecipientDoc, RecipientEdit
from caso_mesh.model.notices import Recipient
from caso_mesh.model.policies import DayCalendar
from caso_mesh.model.states import Liveness, ServerState
from caso_mesh.wire.codec import to_wire


def founded() -> Script:
    script = Script()
    script.state.write([Put("servers", "node-beta", server("beta"))])
    return script


def test_a_setting_says_its_old_and_its_new_value():
    script = founded()
    assert changes_of(script.state, [Put("mesh_settings", "runs-kept", 30.0)]) == [
        Change("setting runs-kept", "", None, 30.0)
    ]
    script.state.write([Put("mesh_settings", "runs-kept", 30.0)])
    assert changes_of(script.state, [Put("mesh_settings", "runs-kept", None)]) == [
        Change("setting runs-kept", "", 30.0, None)
    ]


def test_a_row_says_which_fields_changed_and_names_what_it_refers_to():
    script = founded()
    script.state.write([Put("pools", "west", Pool("west", ("node-alpha",)))])
    changed = changes_of(script.state, [Put("pools", "west", Pool("west", ("node-alpha", "node-beta")))])
    assert changed == [Change("pool west", "servers", ["alpha"], ["alpha", "beta"])]
    new = changes_of(script.state, [Put("devices", "device-d", device("d", "beta"))])
    assert [(each.what, each.old, each.new["paths"][0]["server"]) for each in new] == [("device d", None, "beta")]
    gone = changes_of(script.state, [Put("pools", "west", None)])
    assert [(each.what, each.field, each.old["servers"], each.new) for each in gone] == [
        ("pool west", "", ["alpha"], None)
    ]


def test_what_the_office_finds_and_what_is_binary_is_not_told():
    script = founded()
    found = server("beta", liveness=Liveness.STALLED, set_state=ServerState.PAUSED)
    (changed,) = changes_of(script.state, [Put("servers", "node-beta", found)])
    assert changed == Change("server beta", "set_state", "enabled", "paused")
    (new,) = changes_of(script.state, [Put("servers", "node-c", server("c"))])
    assert new.new["encryption_key"] == "x" * 32
    assert changes_of(script.state, [Put("runs", "r", None), Put("tokens", b"t", None)]) == []


def test_of_the_url_of_a_webhook_only_scheme_and_host_are_kept():
    secret = "https://me:pass@chat.example.org:8443/hooks/T0KEN?key=T0KEN#T0KEN"
    new, old = Recipient("chat", "", secret, 0), Recipient("chat", "", "http://[::1]:80", 0)
    script = founded()
    script.state.write([Put("recipients", "chat", old)])
    assert Change("recipient chat", "url", "http://[::1]:80", "https://chat.example.org:8443") in changes_of(
        script.state, [Put("recipients", "chat", new)]
    )
    asked = to_wire(RecipientEdit("chat", RecipientDoc(url=secret)))
    assert audited(asked)["definition"]["url"] == "https://chat.example.org:8443"
    for text in (f'[recipient.chat]\nurl = "{secret}"\nhourly = 5', "x" * 480 + secret):
        kept = audited({"text": text})["text"]
        assert "T0KEN" not in kept and "pass" not in kept and "https://" in kept
    assert audited({"text": f'url = "{secret}"\nhourly = 5'})["text"].endswith("\nhourly = 5")


def test_of_very_many_changes_the_first_are_told_and_how_many_more():
    script = founded()
    puts = [Put("calendars", f"c{number}", DayCalendar(f"c{number}", ("2025-12-24",))) for number in range(MOST + 7)]
    changed = changes_of(script.state, puts)
    assert len(changed) == MOST + 1
    assert changed[-1] == Change("and 7 more", "")
    (long,) = changes_of(script.state, [Put("calendars", "c", DayCalendar("c", tuple(map(str, range(100)))))])
    assert long.new["days"][-1] == "and 80 more"

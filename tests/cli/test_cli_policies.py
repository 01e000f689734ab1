"""Commands that look at a policy, a list or a media set, change it and save it; and groups of commands in groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from cli_policy_cases import LISTED, POLICY, POLICY_DOC, SELECTION
from cli_world import FakeDaemon, Shell
from msgspec.structs import replace

from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.documents import DevicePoolDoc, EntryDoc, MediaSetDoc, PolicyDoc, SelectionDoc, TemplateDoc
from caso_mesh.model.rules import ErrorRule, Then


async def saved(daemon: FakeDaemon, shell: Shell, *argv: str) -> Any:
    """What a command saves of the policy or list that is shown to it."""
    daemon.answers.update(
        {"policy.show": POLICY, "policy.set": POLICY, "selection.show": SELECTION, "selection.set": SELECTION}
    )
    result = await shell(*argv)
    assert result.status == 0, result.err
    request = daemon.received[-1].request
    assert request.before in (LISTED, POLICY_DOC)
    return request.definition


async def test_a_template_is_added_changed_and_removed_with_the_rules_about_it(
    daemon: FakeDaemon, shell: Shell
) -> None:
    added: PolicyDoc = await saved(
        daemon, shell, "policy", "template", "add", "nightly", "daily", "--type", "incremental", "--to", "devices:disks",
        "--schedule", "daily 22:00", "--no-verify", "--exclude-day", "2025-12-24", "--start-window", "2h",
    )  # fmt: skip
    assert added.templates["daily"] == TemplateDoc(
        "incremental", to="devices:disks", schedule="daily 22:00", verify=False, exclude_days=("2025-12-24",),
        start_window="2h",
    )  # fmt: skip
    assert list(added.templates) == ["full", "check", "daily"]
    changed: PolicyDoc = await saved(
        daemon, shell, "policy", "template", "edit", "nightly", "full", "--schedule", "none", "--calendar", "none",
        "--no-catch-up",
    )  # fmt: skip
    assert changed.templates["full"] == TemplateDoc("full", to="any")
    removed: PolicyDoc = await saved(daemon, shell, "policy", "template", "remove", "nightly", "check")
    assert (list(removed.templates), removed.rules) == (["full"], ())
    for words, status in (("add nightly full --type full", 6), ("edit nightly x", 5), ("remove nightly x", 5)):
        assert (await shell("policy", "template", *words.split())).status == status, words
    assert (await shell("policy", "template", "add", "nightly", "new")).status == 2


async def test_a_template_that_nothing_starts_is_told_with_how_it_would_run(daemon: FakeDaemon, shell: Shell) -> None:
    """Somebody who forgot the schedule was shown a dash, and had no backups."""
    daemon.answers["policy.show"] = POLICY
    assert (await shell("policy", "show", "nightly")).err == ""
    daemon.answers["policy.show"] = replace(POLICY, definition=replace(POLICY_DOC, rules=()))
    shown = await shell("policy", "show", "nightly")
    assert "check has no schedule, and no rule starts it" in shown.err
    assert "caso-mesh policy template edit nightly check --schedule" in shown.err
    assert "full has" not in shown.err


async def test_rules_are_added_and_removed_as_they_are_written(daemon: FakeDaemon, shell: Shell) -> None:
    added = await saved(daemon, shell, "policy", "rule", "add", "nightly", "full must complete first")
    assert added.rules == (*POLICY_DOC.rules, "full must complete first")
    removed = await saved(daemon, shell, "policy", "rule", "remove", "nightly", "when full  succeeds start check")
    assert removed.rules == ()
    assert (await shell("policy", "rule", "remove", "nightly", "no such")).status == 5
    whole = await saved(daemon, shell, "policy", "edit", "nightly", "--conflict-within", "2h", "--zone", "Asia/Tokyo")
    assert (whole.conflict_within, whole.zone) == ("2h", "Asia/Tokyo")


async def test_a_list_is_edited_entry_by_entry(daemon: FakeDaemon, shell: Shell) -> None:
    listed: SelectionDoc = await saved(
        daemon, shell, "selection", "edit", "office", "--add", "mail:/var/mail", "--remove", "web:/var", "--window",
        "none", "--within", "none", "--priority", "high",
    )  # fmt: skip
    assert listed == SelectionDoc(("files:/srv", "mail:/var/mail"), priority="high", oldest_good="26h")
    one: SelectionDoc = await saved(
        daemon, shell, "selection", "edit", "office", "--of", "files:/srv", "--exclude", "*.iso"
    )
    assert one.paths == ()
    assert one.entries == (EntryDoc("web:/var", ("*.tmp",)), EntryDoc("files:/srv", ("*.iso",)))
    assert (await shell("selection", "edit", "office", "--remove", "mail:/x")).status == 5
    assert (await shell("selection", "create", "empty")).status == 2


async def test_a_media_set_keeps_what_is_not_changed(daemon: FakeDaemon, shell: Shell) -> None:
    definition = MediaSetDoc(append="1d", protection="7d", keep="9d")
    row = v.MediaSetView("archive", 86400.0, 7 * 86400.0, 9 * 86400.0, False, definition)
    daemon.answers.update({"mediaset.list": v.MediaSetList((row,)), "mediaset.set": v.Done()})
    assert (await shell("mediaset", "edit", "archive", "--keep", "none", "--keep-last", "3")).status == 0
    assert daemon.received[-1].request == q.MediaSetEdit("archive", replace(definition, keep="none", keep_last=3))
    assert (await shell("mediaset", "edit", "other", "--keep", "1d")).status == 5


async def test_a_media_set_a_device_pool_and_a_template_are_copied_as_they_are(
    daemon: FakeDaemon, shell: Shell
) -> None:
    definition = MediaSetDoc(append="1d", protection="7d", keep="9d", keep_last=3)
    row = v.MediaSetView("archive", 86400.0, 7 * 86400.0, 9 * 86400.0, False, definition)
    daemon.answers.update({"mediaset.list": v.MediaSetList((row,)), "mediaset.create": v.Done()})
    assert (await shell("mediaset", "copy", "archive", "other")).status == 0
    assert daemon.received[-1].request == q.MediaSetEdit("other", definition)
    assert (await shell("mediaset", "copy", "none", "other")).status == 5
    pool = v.DevicePoolView("disks", DevicePoolDoc(("disk1:10", "disk2")))
    daemon.answers.update({"device-pool.list": v.DevicePoolViews((pool,)), "device-pool.create": pool})
    assert (await shell("device", "pool", "copy", "disks", "others")).status == 0
    assert daemon.received[-1].request == q.DevicePoolEdit("others", pool.definition)
    assert (await shell("device", "pool", "copy", "none", "others")).status == 5
    copied: PolicyDoc = await saved(daemon, shell, "policy", "template", "copy", "nightly", "full", "yearly")
    assert copied == replace(POLICY_DOC, templates={**POLICY_DOC.templates, "yearly": POLICY_DOC.templates["full"]})
    for words, status in (("full check", 6), ("none new", 5)):
        assert (await shell("policy", "template", "copy", "nightly", *words.split())).status == status


async def test_an_error_rule_keeps_what_is_not_changed(daemon: FakeDaemon, shell: Shell) -> None:
    rule = ErrorRule("full", ("device-full",), 3, 300.0, Then.HOLD, True)
    daemon.answers.update({"error-rule.list": v.ErrorRuleList((rule,)), "error-rule.set": v.Done()})
    assert (await shell("error-rule", "edit", "full", "--every", "1h", "--no-any-time")).status == 0
    assert daemon.received[-1].request == q.ErrorRuleCreate(replace(rule, every_s=3600.0, any_time=False))
    assert (
        await shell("error-rule", "edit", "full", "--error", "data", "--then", "wait", "--retries", "0")
    ).status == 0
    assert daemon.received[-1].request == q.ErrorRuleCreate(ErrorRule("full", ("data",), 0, 300.0, Then.WAIT, True))
    assert (await shell("error-rule", "edit", "full")).status == 2
    assert (await shell("error-rule", "edit", "full", "--every", "soon")).status == 2
    assert (await shell("error-rule", "edit", "other", "--retries", "1")).status == 5


async def test_groups_in_groups_have_help_and_errors_of_their_own(shell: Shell) -> None:
    assert "--device" in (await shell("device", "pool", "create", "--help", state=False)).out
    wrong = await shell("device", "pool", "explode", "x", "--json")
    assert wrong.status == 2
    assert msgspec.json.decode(wrong.out)["error"]["code"] == "usage"


async def test_a_file_is_applied_shown_and_its_mistakes_are_told_line_by_line(
    daemon: FakeDaemon, shell: Shell, tmp_path: Path
) -> None:
    file = tmp_path / "mesh.toml"
    file.write_text("[settings]\n")
    changes = (v.Change("create", "policy", "nightly", ('zone: "UTC"',)), v.Change("delete", "association", "a b"))
    daemon.answers["config.apply"] = v.Applied(True, changes)
    done = await shell("apply", "-f", str(file))
    assert (done.status, done.out) == (0, '+ policy nightly\n    zone: "UTC"\n- association a b\n')
    assert daemon.received[-1].request == q.ConfigApply("[settings]\n")
    tried = await shell("apply", "-f", str(file), "--dry-run", "--json")
    assert msgspec.convert(tried.document, v.Applied).changes == changes
    assert daemon.received[-1].request.dry_run
    daemon.answers["config.apply"] = v.Applied(False, (), (v.Mistake(3, "pool.x", "There is none.", "Look."),))
    wrong = await shell("apply", "-f", str(file))
    assert (wrong.status, wrong.out) == (2, "")
    assert f"{file}, line 3 (pool.x): There is none. Look." in wrong.err
    assert "nothing was changed" in wrong.err
    assert (await shell("apply", "-f", str(file), "--json")).status == 2
    daemon.answers["config.apply"] = v.Applied(True, ())
    assert "as the file says" in (await shell("apply", "-f", str(file))).out
    assert (await shell("apply", "-f", str(tmp_path / "none"))).status == 2
    assert (await shell("apply")).status == 2


async def test_the_mesh_is_exported_as_a_file(daemon: FakeDaemon, shell: Shell) -> None:
    daemon.answers["config.export"] = v.Exported("[settings]\n")
    assert (await shell("export")).out == "[settings]\n"


async def test_a_dump_of_a_list_is_given_a_logon_and_loses_it_again(daemon: FakeDaemon, shell: Shell) -> None:
    dumps = replace(SELECTION, definition=SelectionDoc(("a:@pg", "a:/srv"), (EntryDoc("b:@my", logon="old"),)))

    async def edited(*words: str) -> SelectionDoc:
        daemon.answers.update({"selection.show": dumps, "selection.set": dumps})
        result = await shell("selection", "edit", "office", *words)
        assert result.status == 0, result.err
        definition: SelectionDoc = daemon.received[-1].request.definition
        return definition

    every = await edited("--logon", "db")
    assert {entry.path: entry.logon for entry in every.entries} == {"a:@pg": "db", "a:/srv": None, "b:@my": "db"}
    one = await edited("--of", "b:@my", "--logon", "none")
    assert {entry.path: entry.logon for entry in one.entries} == {"a:@pg": None, "a:/srv": None, "b:@my": None}
    kept = await edited("--of", "b:@my", "--exclude", "*.x")
    assert kept.entries[-1] == EntryDoc("b:@my", ("*.x",), (), "old")
    assert (await shell("selection", "edit", "office", "--of", "c:@x", "--logon", "db")).status == 5
    daemon.answers["selection.show"] = SELECTION
    assert (await shell("selection", "edit", "office", "--logon", "db")).status == 2
    daemon.answers["selection.create"] = dumps
    assert (await shell("selection", "create", "new", "a:@pg", "--logon", "db")).status == 0
    assert daemon.received[-1].request.definition.entries == (EntryDoc("a:@pg", logon="db"),)


async def test_a_template_is_given_a_logon_for_its_commands(daemon: FakeDaemon, shell: Shell) -> None:
    given = await saved(
        daemon, shell, "policy", "template", "edit", "nightly", "full", "--pre", "stop", "--logon", "db"
    )
    assert (given.templates["full"].pre, given.templates["full"].logon) == ("stop", "db")
    taken = await saved(daemon, shell, "policy", "template", "edit", "nightly", "full", "--logon", "none")
    assert taken.templates["full"].logon is None


async def test_one_server_is_shown_with_its_device_and_media_data_location(daemon: FakeDaemon, shell: Shell) -> None:
    row = v.ServerView("beta", "b" * 52, "enabled", True, False, True, ("west",), "10.0.0.2:7420", "0.1.0")
    daemon.answers["server.list"] = v.ServerList((row,))
    shown = await shell("server", "show", "beta")
    assert shown.status == 0 and "device and media data location" in shown.out and "admin" in shown.out
    assert (await shell("server", "show", "beta", "--json")).document["data_location"] == "admin"
    assert (await shell("server", "show", "gamma")).status == 5


MEDIA = v.MediumList((
    v.MediumView("BETA-000001", "disk1", "archive", "beta", "full", "2025-01-01T01:00:00Z", "2025-01-02T01:00:00Z", 4096, 3),
    v.MediumView("BETA-000002", "disk1", "nights", "beta", "appendable", "2025-01-02T01:00:00Z", "2025-01-03T01:00:00Z", 1024, 1),
))  # fmt: skip


async def test_one_device_is_shown_with_its_places_pools_and_media(daemon: FakeDaemon, shell: Shell) -> None:
    device = v.DeviceView(
        "disk1", "d" * 52, "shared", ("beta", "gamma"), {"beta": "/mnt/b", "gamma": "/mnt/g"}, "offline", 7, 5120, 4, 1, 2,
        0, ("beta: no such folder",), {"beta": 1000}, ("gamma",),
    )  # fmt: skip
    other = replace(device, name="disk0", paths={}, servers=())
    pools = tuple(
        v.DevicePoolView(name, DevicePoolDoc(members))
        for name, members in (("cellar", ("disk0", "disk1:10")), ("all", ("disk1",)), ("none", ("disk0",)))
    )
    pages = [v.DeviceList((other,), True), v.DeviceList((device,))]
    daemon.answers.update(
        {"device.list": list(pages), "device-pool.list": v.DevicePoolViews(pools), "medium.list": MEDIA}
    )
    shown = await shell("device", "show", "disk1")
    assert shown.status == 0, shown.err
    for text in ("/mnt/b, may take 1.0 kB", "/mnt/g, does not use it", "cellar (priority 10), all (priority 100)", "1/2",
                 "2 (1 appendable, 1 full)", "2025-01-03T01:00:00Z", "offline"):  # fmt: skip
        assert text in shown.out
    assert "no such folder" in shown.err
    assert [each.request.after for each in daemon.received if each.call == "device.list"] == [None, "disk0"]
    assert (await shell("device", "show", "disk1", "--json")).document["paths"] == device.paths
    unknown = await shell("device", "show", "disk9")
    assert unknown.status == 5 and "disk9" in unknown.err


async def test_one_media_set_is_shown_with_what_lies_on_its_media(daemon: FakeDaemon, shell: Shell) -> None:
    row = v.MediaSetView("archive", None, 7 * 86400.0, 9 * 86400.0, False, MediaSetDoc(keep_last=3, medium_size="1TB"))
    daemon.answers.update({"mediaset.list": v.MediaSetList((row,)), "medium.list": MEDIA})
    shown = await shell("mediaset", "show", "archive")
    assert shown.status == 0, shown.err
    for text in ("9 d, 3 last", "without end", "1TB", "1 (1 full)", "disk1", "2025-01-02T01:00:00Z"):
        assert text in shown.out
    assert "2025-01-03" not in shown.out
    assert (await shell("mediaset", "show", "archive", "--json")).document["protection_s"] == 7 * 86400
    assert (await shell("mediaset", "show", "other")).status == 5

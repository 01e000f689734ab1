"""The feature level: nothing is proposed that a voter does not understand."""

from __future__ import annotations

import msgspec
import pytest
from control_world import FOUND, NOW, Script
from msgspec.structs import replace

from caso_mesh.control.reducer import validate
from caso_mesh.model import features, jobs
from caso_mesh.model.commands import Batch, CreateJob, CreatePool, Envelope, PutMediaSet, PutPolicy, SetSetting, decode
from caso_mesh.model.device_jobs import CatalogSpec
from caso_mesh.model.errors import FeatureLevelTooLow, PeerMalformed, StateTooNew
from caso_mesh.model.features import FEATURE_LEVEL, SetFeatureLevel, level_of, level_of_work
from caso_mesh.model.jobs import (
    BackupSpec,
    Job,
    SourceRoots,
    SyntheticSpec,
    Target,
    TargetKind,
    VerifySpec,
)
from caso_mesh.model.mesh import MeshInfo, Pool
from caso_mesh.model.policies import Policy, Template, TemplateType
from caso_mesh.model.storage import MediaSet

POOL = CreatePool(Pool("store", ()))
LATER = FEATURE_LEVEL + 1
ANY = Target(TargetKind.ANY)


def test_a_command_of_a_later_level_is_not_proposed_before_the_mesh_is_at_it(monkeypatch):
    script = Script()
    monkeypatch.setattr(features, "SINCE", {"create-pool": LATER})
    for command in (POOL, Batch((POOL,), "seed")):
        assert level_of(command) == LATER
        with pytest.raises(FeatureLevelTooLow) as refused:
            validate(script.state, command, at_ns=NOW)
        assert (refused.value.fields["needed"], refused.value.fields["level"]) == (LATER, FEATURE_LEVEL)
    script.do(SetFeatureLevel(LATER))
    validate(script.state, POOL, at_ns=NOW)


def test_a_media_set_with_a_size_waits_for_the_level_and_one_without_does_not():
    plain = PutMediaSet(MediaSet("m", None, None, None), new=True)
    assert level_of(plain) == 1
    assert level_of(Batch((PutMediaSet(MediaSet("m", None, None, None, medium_bytes=10**9), new=True),), "seed")) == 2


def test_closed_hours_wait_for_the_level_and_other_limits_do_not():
    for value, level in (("5MB", 1), (None, 1), ("zone UTC; 08:00-18:00 closed", 5)):
        assert level_of(SetSetting("bandwidth-limit", value)) == level


def test_what_was_committed_is_applied_whatever_its_level_since_every_voter_understood_it(monkeypatch):
    script = Script()
    monkeypatch.setattr(features, "SINCE", {"create-pool": LATER})
    script.do(POOL)
    assert script.state.pool_named("store")


def test_catalogs_as_jobs_wait_for_the_level_and_so_does_the_work():
    """They came with level 5."""
    script = Script(founded=False)
    script.do(replace(FOUND, mesh=MeshInfo("mesh-1", "home", NOW, feature_level=4)))
    job = Job("c", "catalogs", CatalogSpec(), "ann", NOW)
    command = CreateJob(job, run_now=True, at_ns=NOW)
    assert (level_of(command), level_of_work(CatalogSpec(("d",)))) == (5, 5)
    with pytest.raises(FeatureLevelTooLow) as refused:
        validate(script.state, command, at_ns=NOW)
    assert (refused.value.fields["needed"], refused.value.fields["level"]) == (5, 4)


def test_the_level_never_falls_and_lies_in_the_snapshot():
    script = Script()
    script.do(SetFeatureLevel(LATER + 1))
    script.do(SetFeatureLevel(LATER))
    assert script.state.info().feature_level == LATER + 1
    after = type(script.state)()
    after.restore(script.state.snapshot())
    assert after.info().feature_level == LATER + 1


def test_a_kind_of_work_that_older_voters_cannot_read_needs_its_level_wherever_it_is_named():
    made = Job("j1", "make", SyntheticSpec(("n1",), ("s1",)), "ann", NOW)
    plain = Job("j2", "check", VerifySpec("s1"), "ann", NOW)
    assert level_of(CreateJob(made, run_now=True, at_ns=NOW)) == 2
    assert level_of(CreateJob(plain, run_now=True, at_ns=NOW)) == 1
    two = BackupSpec((SourceRoots("n1", (b"srv",)),), ANY, second=ANY)
    for spec, level in ((two, 2), (replace(two, second=None), 1), (jobs.TestRunSpec(two), 2)):
        assert level_of(CreateJob(Job("j3", "both", spec, "ann", NOW), run_now=True, at_ns=NOW)) == level
    policy = Policy("p1", "nightly", (Template("full", TemplateType.FULL, ANY, second=ANY),), (), "ann", NOW)
    assert level_of(PutPolicy(policy, "seed")) == 2
    templates = (Template("inc", TemplateType.INCREMENTAL), Template("weekly", TemplateType.SYNTHETIC))
    for number, level in ((1, 1), (2, 2)):
        policy = Policy("p1", "nightly", templates[:number], (), "ann", NOW)
        assert level_of(PutPolicy(policy, "seed")) == level
        assert level_of(Batch((PutPolicy(policy, "seed"),), "seed")) == level


def as_a_later_version_writes_it(envelope: Envelope, **more: object) -> bytes:
    """With fields of the pool that this one does not know."""
    plain = msgspec.to_builtins(envelope, builtin_types=(bytes,))
    plain["command"]["pool"].update(more)
    return msgspec.msgpack.encode(plain)


def test_what_a_later_version_has_added_inside_of_a_command_or_a_snapshot_is_not_dropped_silently():
    """The same log made another state at an older voter: only what it did not know of the command itself was refused."""
    envelope = Envelope("id", "somebody", NOW, POOL)
    assert decode(as_a_later_version_writes_it(envelope, colour="", marks=[], size=0, of=None)) == envelope
    for more in ({"colour": "red"}, {"marks": [1]}, {"colour": "", "size": 7}):
        with pytest.raises(PeerMalformed, match=r"does not understand command\.pool\.(colour|marks|size)"):
            decode(as_a_later_version_writes_it(envelope, **more))
    script = Script()
    script.do(POOL)
    image = msgspec.msgpack.decode(script.state.snapshot())
    image["pools"][0]["colour"] = "red"
    with pytest.raises(StateTooNew, match=r"pools\[0\]\.colour"):
        type(script.state)().restore(msgspec.msgpack.encode(image))
    del image["pools"][0]["colour"], image["error_rules"]  # as an earlier version wrote it
    type(script.state)().restore(msgspec.msgpack.encode(image))

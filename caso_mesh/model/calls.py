"""The table of calls: every operation of the product, once. CLI, console and nodes are thin callers of it.

``place`` says who answers: ``local`` any server for itself, ``admin`` the administrator in office (any server
forwards), ``node`` a server to another server, ``own`` the server that is asked, of the work that it does by itself. ``role`` is the least role; ``anonymous`` calls need no certificate.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from caso_mesh.model import audit, history, metrics
from caso_mesh.model import catalogs as c
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.orders import OrdersChange
from caso_mesh.model.reports import Report, ReportList, ReportShow
from caso_mesh.model.states import Role

Needs = Literal["anonymous", "node", "viewer", "restore", "operator", "admin"]
Place = Literal["local", "admin", "node", "own"]
#: What the fields of a request name, by which it is found which servers a call concerns: a set and a job (also a run or
#: attempt) concern the servers whose files they are about, a device those that reach it, an alert who it is about.
#: ``source``: a set, or the server whose newest one is meant. A list concerns the servers that it names.
Names = Literal["server", "servers", "pool", "set", "source", "device", "job", "alert", "list"]
Scope = tuple[tuple[str, Names], ...]
#: A call that shows what there is: whoever has the role on some server is shown what concerns those.
SHOWN: Scope = (("*", "servers"),)
OF_SERVER: Scope = (("server", "server"),)
OF_SERVER_OR_POOL: Scope = (("server", "server"), ("pool", "pool"))
OF_SET: Scope = (("set", "set"),)
OF_DEVICE: Scope = (("name", "device"),)
OF_JOB: Scope = (("name", "job"),)


class Call(Struct, frozen=True):
    """One call. ``changes``: it has an effect, is audited, and its request id makes a repetition harmless.
    ``scope``: fields of the request that name what it concerns; the role is needed on all those servers. If there are none,
    or they are all empty, it is needed in the whole mesh; a call that a server answers for itself concerns that one.
    ``SHOWN``: it is needed on any server, and the answer is limited to those on which it is held."""

    name: str
    needs: Needs
    place: Place
    request: type[Struct]
    reply: type[Struct]
    text: str
    changes: bool = False
    scope: Scope = ()

    @property
    def role(self) -> Role | None:
        return None if self.needs in {"anonymous", "node"} else Role(self.needs)


_OF_MESH: tuple[Call, ...] = (
    # joining
    Call("enrol.anchors", "anonymous", "local", q.Nothing, q.AnchorsReply,
         "The certificates this mesh trusts, to be compared with a join link."),
    Call("enrol.operator", "anonymous", "admin", q.OperatorRequest, q.OperatorReply,
         "Become an operator with the secret of an invitation.", changes=True),
    Call("enrol.join", "anonymous", "admin", q.JoinRequest, q.JoinReply,
         "Join with the secret of a join link.", changes=True),
    Call("adopt.commit", "anonymous", "local", q.AdoptCommit, q.AdoptCommitReply,
         "The administrator greets a server that belongs to no mesh: exchange of commitments."),
    Call("adopt.reveal", "anonymous", "local", q.AdoptReveal, q.AdoptRevealReply,
         "Exchange of nonces and keys; both ends now show the same code."),
    Call("adopt.accept", "anonymous", "local", q.AdoptAccept, v.Done,
         "The new server was approved: its certificate and first orders.", changes=True),
    # between nodes
    Call("link.hello", "node", "node", q.HelloRequest, q.HelloReply,
         "First on every link: who, which version, whom it takes for the administrator."),
    Call("server.seen", "node", "node", q.ServerSeen, v.Done,
         "A server that looks for the administrator came by, and where it is: the administrator may reach it. A "
         "notification."),
    Call("roster.get", "node", "node", q.Nothing, q.RosterNow,
         "Whom the other end trusts now: asked by a server that was away while the voters were replaced, of one that it "
         "knows as a voter."),
    Call("identity.renew", "node", "admin", q.Nothing, q.RenewReply,
         "New certificates for the asking server; also with one that has expired."),
    Call("server.heartbeat", "node", "admin", q.Heartbeat, q.HeartbeatReply,
         "A server is there, with the space of its devices."),
    Call("orders.put", "node", "node", q.Orders, v.Done, "A server's orders, replaced whole."),
    Call("orders.change", "node", "node", OrdersChange, q.OrdersTaken,
         "A server's orders, replaced whole; of the roster and the addresses only what differs from those that it holds."),
    Call("journal.cursors", "node", "admin", q.Nothing, q.JournalCursors,
         "How far the administrator holds the asking server's journal."),
    Call("journal.push", "node", "admin", q.JournalPush, q.JournalCursors,
         "Facts of a server's journal, in order."),
    Call("journal.hash", "node", "admin", q.JournalHashAt, q.JournalHashReply,
         "One hash of the administrator's copy of the asking server's journal."),
    Call("voter.prepare", "node", "node", q.VoterPrepare, q.VoterPrepared,
         "This server is to become a voter: the key that its issuing certificate is for."),
    Call("voter.become", "node", "node", q.VoterBecome, v.Done,
         "This server's issuing certificate; it opens an empty log and waits for what is in it."),
    Call("consensus.message", "node", "node", q.ConsensusMessage, v.Done,
         "What the members of the replicated log say to each other. A notification."),
    Call("replica.begin", "node", "node", q.ReplicaBegin, q.ReplicaPlace,
         "A voter wants to follow the tables of this one: where to begin."),
    Call("replica.pull", "node", "node", q.ReplicaPull, q.ReplicaPiece,
         "What came into the tables of this voter behind a place."),
    Call("replica.floors", "node", "node", q.Nothing, q.ReplicaFloors,
         "Which records this voter has pruned, so that another one may."),
    Call("replica.copy", "node", "node", q.ReplicaCopy, q.ReplicaCopyPiece,
         "A piece of a copy of this voter's tables, for one that was away while records were pruned."),
    Call("voter.relay", "node", "admin", q.VoterRelay, q.VoterRelayed,
         "A voter that is not in office fetches a catalog detail by way of the administrator."),
    Call("catalog.read", "node", "node", q.CatalogRead, q.CatalogPiece,
         "A piece of the catalog detail of a set that this server made."),
    Call("catalog.make", "node", "node", q.CatalogMake, q.CatalogMade,
         "Make the catalog detail of a set anew out of its tree in a device of this server."),
    Call("catalog.assigned", "node", "admin", c.CatalogAssigned, c.CatalogAssignment,
         "Which sets' catalogs the asking server is to keep."),
    Call("catalog.records", "node", "admin", c.CatalogSets, c.CatalogRecords,
         "The records of sets that the asking server made, and which of them are deleted."),
    Call("catalog.export", "node", "admin", c.CatalogExport, q.CatalogMade,
         "Lay the catalog of a set that the asking server made ready for it."),
    Call("catalog.exported", "node", "admin", q.CatalogRead, q.CatalogPiece,
         "A piece of a catalog that was laid ready."),
    Call("catalog.kept", "node", "admin", c.CatalogKept, c.CatalogSets,
         "Which catalogs of the asking server a majority of the voters keeps, so that it need not."),
    Call("catalog.keeps", "node", "node", c.CatalogKeeps, c.CatalogSets,
         "Which catalogs this voter has, and goes on having."),
    Call("catalog.look", "node", "node", q.Nothing, v.Done,
         "There may be other catalogs to keep than before. A notification."),
    Call("catalog.folder", "node", "node", c.CatalogFolder, q.SetFolderReply,
         "A folder of a set whose catalog this server keeps."),
    Call("catalog.lookup", "node", "node", c.CatalogLookup, c.CatalogLookedUp,
         "Whether a set whose catalog this server keeps has some paths."),
    Call("catalog.search", "node", "node", c.CatalogSearch, c.CatalogHits,
         "Files by name in the catalogs that this server keeps."),
    Call("catalog.history", "node", "node", c.CatalogHistory, c.CatalogHistoryReply,
         "The versions of a path in the catalogs that this server keeps."),
    Call("set.folder", "node", "node", q.SetFolder, q.SetFolderReply,
         "A folder in a set on a device of this server."),
    Call("vault.sets", "node", "node", q.VaultSets, q.VaultSetsReply, "The sets that lie on a device of this server."),
    Call("device.prepare", "node", "node", q.DevicePrepare, q.DevicePrepareReply,
         "Make or recognise the vault of a device in a folder of this server."),
    Call("device.proof", "node", "node", q.DeviceProof, q.DeviceProofReply,
         "Prove that several servers see one shared folder."),
    Call("device.grant", "node", "node", q.DeviceGrant, q.DeviceGrantReply,
         "Wrap the content keys of a device to recovery kits."),
    Call("device.keys", "node", "node", q.DeviceKeys, q.DeviceKeysReply,
         "The content keys of a device that was carried to this server, as they are wrapped to others."),
    Call("device.rewrap", "node", "node", q.DeviceRewrap, q.DeviceKeysReply,
         "Wrap content keys that are wrapped to this server to another one."),
    Call("device.take-keys", "node", "node", q.DeviceTakeKeys, v.Done,
         "Lay down content keys that were wrapped to this server."),
    Call("mesh.keep", "node", "node", q.MeshKeep, v.Done, "Lay down a sealed copy of the mesh in a device."),
    Call("logon.grant", "node", "node", q.LogonGrant, q.LogonGranted,
         "Seal the secret of a logon, which this server has, to others that may use it."),
    Call("path.check", "node", "node", q.PathCheck, q.PathCheckReply,
         "Whether this server has, and allows to read or write, some paths."),
    Call("set.piece", "node", "node", q.SetPiece, q.SetPieceReply,
         "A piece of a file in a set on a device of this server."),
    Call("set.hold", "node", "node", q.SetHold, v.Done,
         "Delete or lock a set on a device of this server, which looks at the protection itself."),
    Call("attempt.watch", "node", "node", q.WatchAttempts, v.Done,
         "Somebody watches these attempts: report twice a second for a while."),
    Call("attempt.held", "node", "node", q.AttemptHeld, q.HeldPiece,
         "What a server holds back of the job log and the exceptions of an attempt: somebody looks."),
    Call("attempt.progress", "node", "admin", q.ProgressReport, v.Done, "Progress of running attempts."),
    Call("mesh.summary", "node", "admin", q.Nothing, q.MeshSummary, "The numbers of the status line."),
    Call("call.signed", "node", "admin", q.SignedCall, q.Nothing,
         "A person's call, forwarded by a server. It answers what the call itself answers."),
    # people: the mesh
    Call("operator.renew", "viewer", "admin", q.Nothing, q.OperatorRenewReply,
         "A new certificate for the operator who asks; also with one that has expired.", scope=SHOWN),
    Call("operator.create", "admin", "admin", q.OperatorCreate, v.OperatorInvited,
         "Invite an operator: a link by which the key that he makes himself is admitted.", changes=True),
    Call("operator.list", "viewer", "admin", q.Nothing, v.OperatorList,
         "The operators and what each may do, and who is invited."),
    Call("operator.revoke", "admin", "admin", q.OperatorName, v.Done,
         "Refuse an operator's key from now on, or take an invitation back.", changes=True),
    Call("status", "viewer", "local", q.Nothing, v.StatusView, "The mesh on one line.", scope=SHOWN),
    Call("metrics", "viewer", "local", q.Nothing, metrics.Exposition,
         "The figures of the server that is asked, in office also those of the mesh, for Prometheus."),
    Call("server.list", "viewer", "admin", q.ServerListRequest, v.ServerList,
         "The servers, or those that were discovered and are not managed yet.", scope=SHOWN),
    Call("server.approve", "admin", "admin", q.ServerApprove, v.ServerView,
         "Make a discovered server a member, after its code was compared.", changes=True),
    Call("server.set-state", "operator", "admin", q.ServerSetState, v.ServerView,
         "Enable, pause or disable a server.", changes=True, scope=(("name", "server"),)),
    Call("server.set", "admin", "admin", q.ServerSet, v.ServerView,
         "Say where the device and media data of a server lie.", changes=True, scope=(("name", "server"),)),
    Call("queue.hold", "operator", "admin", q.QueueHold, v.ServerList,
         "Hold or release the queue of a server, of a pool's servers, or of all.", changes=True,
         scope=OF_SERVER_OR_POOL),
    Call("server.remove", "admin", "admin", q.ServerName, v.Done,
         "Remove a server from the mesh; its identity is refused from now on.", changes=True),
    Call("voter.add", "admin", "admin", q.ServerName, v.ServerView,
         "Make a server a voter: it may be elected administrator.", changes=True),
    Call("voter.remove", "admin", "admin", q.ServerName, v.ServerView,
         "Let a server vote no more; it stays a member, and is not asked again.", changes=True),
    Call("admin.transfer", "admin", "admin", q.AdminTransfer, v.Done,
         "Hand the office over to another voter.", changes=True),
    Call("ca.rotate", "admin", "admin", q.CaRotate, v.CaView,
         "A new certification authority for the mesh: announced to all, then switched to.", changes=True),
    Call("ca.show", "viewer", "admin", q.Nothing, v.CaView, "The certification authority, and who lacks it."),
    Call("token.create", "admin", "admin", q.TokenCreate, v.TokenView,
         "A join link: short-lived, for one server.", changes=True),
    Call("peer.add", "admin", "local", q.PeerAdd, v.PeerList,
         "A static address where another server may be reached.", changes=True),
    Call("peer.list", "viewer", "local", q.Nothing, v.PeerList, "Addresses of other servers that are known here."),
    Call("pool.create", "admin", "admin", q.PoolEdit, v.PoolView, "A media server pool.", changes=True),
    Call("pool.set", "admin", "admin", q.PoolEdit, v.PoolView, "Replace the members of a pool.", changes=True),
    Call("pool.delete", "admin", "admin", q.PoolName, v.Done, "Delete a pool; its servers stay.", changes=True),
    Call("pool.list", "viewer", "admin", q.Nothing, v.PoolList, "The pools.", scope=SHOWN),
    Call("device.add", "admin", "admin", q.DeviceAdd, v.DeviceView,
         "A storage device: a disk folder of one server, or a folder shared by several.", changes=True),
    Call("device.set", "operator", "admin", q.DeviceSet, v.DeviceView,
         "Pause, resume or change a device.", changes=True, scope=OF_DEVICE),
    Call("device.move", "admin", "admin", q.DeviceMove, v.DeviceView,
         "A device lies elsewhere now: all its places.", changes=True),
    Call("device.share", "admin", "admin", q.DeviceShare, v.DeviceView,
         "One more server sees a device, or one sees it no more.", changes=True),
    Call("device.remove", "admin", "admin", q.DeviceName, v.Done,
         "Take a device without sets out of the mesh; nothing on it is deleted.", changes=True),
    Call("device.list", "viewer", "admin", q.DeviceListRequest, v.DeviceList, "The storage devices.", scope=SHOWN),
    Call("kit.create", "admin", "admin", q.KitCreate, q.KitMaterial,
         "What goes into a new recovery kit; content keys are wrapped to it.", changes=True),
    Call("kit.confirm", "admin", "admin", q.KitConfirm, v.KitView,
         "The file of a recovery kit was written and opens: the root key leaves the server.", changes=True),
    Call("kit.list", "viewer", "admin", q.Nothing, v.KitList, "The recovery kits that were made."),
    Call("logon.recipients", "admin", "admin", q.LogonUsers, v.LogonRecipients,
         "To whose keys the secret of a logon is to be sealed."),
    Call("logon.create", "admin", "admin", q.LogonCreate, v.LogonView,
         "Logon information: a user and a secret for the commands of servers.", changes=True),
    Call("logon.set", "admin", "admin", q.LogonSet, v.LogonView,
         "Change a logon: its user, its secret, who may use it.", changes=True),
    Call("logon.delete", "admin", "admin", q.Named, v.Done, "Delete a logon that nothing uses.", changes=True),
    Call("logon.list", "viewer", "admin", q.Nothing, v.LogonList,
         "The logons, never their secrets, and which servers have each.", scope=SHOWN),
    Call("error-rule.create", "admin", "admin", q.ErrorRuleCreate, v.Done,
         "An error-handling rule: what becomes of jobs that failed with some error.", changes=True),
    Call("error-rule.set", "admin", "admin", q.ErrorRuleCreate, v.Done,
         "Change an error-handling rule; what it has tried or holds by now stays as it is.", changes=True),
    Call("error-rule.list", "viewer", "admin", q.Nothing, v.ErrorRuleList, "The error-handling rules.", scope=SHOWN),
    Call("error-rule.delete", "admin", "admin", q.Named, v.Done,
         "Delete an error-handling rule; what it holds stays on hold.", changes=True),
    Call("mediaset.list", "viewer", "admin", q.Nothing, v.MediaSetList, "The media sets.", scope=SHOWN),
    Call("mediaset.create", "admin", "admin", q.MediaSetEdit, v.Done, "A media set.", changes=True),
    Call("mediaset.set", "admin", "admin", q.MediaSetEdit, v.Done,
         "Change a media set; its overwrite protection never becomes shorter.", changes=True),
    Call("mediaset.delete", "admin", "admin", q.Named, v.Done,
         "Delete a media set that nothing uses and that has no sets.", changes=True),
    Call("device-pool.create", "admin", "admin", q.DevicePoolEdit, v.DevicePoolView,
         "A device pool, each device with its priority.", changes=True),
    Call("device-pool.set", "admin", "admin", q.DevicePoolEdit, v.DevicePoolView,
         "Replace the devices of a pool.", changes=True),
    Call("device-pool.delete", "admin", "admin", q.Named, v.Done,
         "Delete a device pool; its devices stay.", changes=True),
    Call("device-pool.list", "viewer", "admin", q.Nothing, v.DevicePoolViews, "The device pools.", scope=SHOWN),
    Call("medium.retire", "admin", "admin", q.MediumLabel, v.Done,
         "A medium takes no further sets; those on it stay.", changes=True),
    Call("medium.list", "viewer", "admin", q.MediumListRequest, v.MediumList, "The media.", scope=SHOWN),
    Call("settings.list", "viewer", "admin", q.SettingsListRequest, v.SettingList,
         "Effective settings and where each comes from.", scope=OF_SERVER_OR_POOL),
    Call("settings.set", "admin", "admin", q.SettingSet, v.SettingList,
         "Change a setting of the mesh, a pool or a server.", changes=True, scope=OF_SERVER_OR_POOL),
    # people: work
    Call("backup", "operator", "admin", q.BackupRequest, v.Submitted,
         "Back up paths of servers, now or by a schedule.", changes=True, scope=(("sources", "servers"),)),
    Call("restore", "restore", "admin", q.RestoreRequest, v.Submitted, "Restore a set or parts of it.", changes=True,
         scope=(("set", "set"), ("to", "server"), ("into_command", "server"))),
    Call("verify", "operator", "admin", q.VerifyRequest, v.Submitted, "Read back and check a set.", changes=True,
         scope=OF_SET),
    Call("duplicate", "operator", "admin", q.DuplicateRequest, v.Submitted, "Copy a set to another device.", changes=True,
         scope=OF_SET),
    Call("synthetic", "operator", "admin", q.SyntheticRequest, v.Submitted,
         "Make full sets out of the newest ones, without reading the source.", changes=True,
         scope=(("sources", "servers"), ("selection", "list"))),
    Call("drill", "operator", "admin", q.DrillRequest, v.Submitted,
         "Restore a random sample of a set to scratch and compare it.", changes=True,
         scope=(("set", "source"), ("server", "server"))),
    Call("run.follow", "viewer", "admin", q.RunFollow, v.RunProgress, "Where a run is, and its result once closed.",
         scope=(("run", "job"),)),
    Call("job.list", "viewer", "admin", q.JobListRequest, v.JobList, "Jobs and runs, with the reason of each wait.",
         scope=SHOWN),
    Call("job.show", "viewer", "admin", q.JobName, v.JobDetail, "A job with its runs and attempts.", scope=OF_JOB),
    Call("why", "viewer", "admin", q.Why, v.Story,
         "What became of a run, or of a night of a selection list or a server, and why, in the order in which it happened.",
         scope=SHOWN),
    Call("job.log", "viewer", "admin", q.JobLogRequest, v.JobLogView,
         "The job log of the attempts of a run.", scope=OF_JOB),
    Call("log.follow", "viewer", "admin", history.LogFollow, history.LogTail,
         "The lines that the job log of a run got since it was asked for last; waits for them.", scope=OF_JOB),
    Call("history", "viewer", "admin", history.HistoryRequest, history.History,
         "What was done, one entry for each attempt: times, counts, rate, result, error.", scope=SHOWN),
    Call("job.run", "operator", "admin", q.JobName, v.Submitted, "Run a job now.", changes=True, scope=OF_JOB),
    Call("job.cancel", "operator", "admin", q.JobCancel, v.Done, "End a run.", changes=True, scope=OF_JOB),
    Call("job.set", "operator", "admin", q.JobSet, v.Done,
         "Change the priority of a job and of what waits of it, or of one run.", changes=True, scope=OF_JOB),
    Call("job.hold", "operator", "admin", q.JobName, v.Done,
         "Hold a job (no further runs), or one run.", changes=True, scope=OF_JOB),
    Call("job.release", "operator", "admin", q.JobName, v.Done, "Release what was held.", changes=True, scope=OF_JOB),
    Call("job.delete", "operator", "admin", q.JobName, v.Done,
         "Delete a job without open runs; its sets stay.", changes=True, scope=OF_JOB),
    # people: policies
    Call("selection.create", "operator", "admin", q.SelectionCreate, v.SelectionView,
         "A selection list: what to back up.", changes=True),
    Call("selection.set", "operator", "admin", q.SelectionSet, v.SelectionView,
         "Change a selection list, and the jobs that were made of it.", changes=True),
    Call("selection.rename", "operator", "admin", q.Renamed, v.SelectionView, "Rename a selection list.", changes=True),
    Call("selection.copy", "operator", "admin", q.Renamed, v.SelectionView,
         "Copy a selection list; the copy has no policies.", changes=True),
    Call("selection.delete", "operator", "admin", q.Named, v.Done,
         "Delete a selection list that no policy is associated with.", changes=True),
    Call("selection.list", "viewer", "admin", q.SelectionListRequest, v.SelectionViews,
         "The selection lists.", scope=SHOWN),
    Call("selection.show", "viewer", "admin", q.Named, v.SelectionView, "One selection list.", scope=SHOWN),
    Call("policy.create", "operator", "admin", q.PolicyCreate, v.PolicyView,
         "A policy: templates and the rules between them.", changes=True),
    Call("policy.set", "operator", "admin", q.PolicySet, v.PolicyView,
         "Change a policy, and the jobs that were made of it.", changes=True),
    Call("policy.rename", "operator", "admin", q.Renamed, v.PolicyView, "Rename a policy.", changes=True),
    Call("policy.copy", "operator", "admin", q.Renamed, v.PolicyView,
         "Copy a policy; the copy has no selection lists.", changes=True),
    Call("policy.delete", "operator", "admin", q.Named, v.Done,
         "Delete a policy that is associated with no selection list.", changes=True),
    Call("policy.list", "viewer", "admin", q.Nothing, v.PolicyViews, "The policies.", scope=SHOWN),
    Call("policy.show", "viewer", "admin", q.Named, v.PolicyView, "One policy.", scope=SHOWN),
    Call("associate", "operator", "admin", q.AssociationEdit, v.PolicyView,
         "Associate a policy with a selection list: one job for each template.", changes=True),
    Call("dissociate", "operator", "admin", q.AssociationEdit, v.PolicyView,
         "Take a policy from a selection list: its jobs go, history and sets stay.", changes=True),
    Call("copy.to", "admin", "admin", q.CopyTo, v.Copied,
         "Copy policies, selection lists, jobs, error-handling rules or settings to a server, or to those of a pool, which "
         "run them by themselves.", changes=True),
    Call("copy.list", "viewer", "admin", q.CopyListRequest, v.CopyList, "What was copied to servers, and what came of it.",
         scope=SHOWN),
    Call("calendar.create", "operator", "admin", q.CalendarEdit, v.CalendarView,
         "Named days without runs.", changes=True),
    Call("calendar.set", "operator", "admin", q.CalendarEdit, v.CalendarView,
         "Replace the days of a calendar.", changes=True),
    Call("calendar.delete", "operator", "admin", q.Named, v.Done,
         "Delete a calendar that no template names.", changes=True),
    Call("calendar.list", "viewer", "admin", q.Nothing, v.CalendarViews, "The calendars.", scope=SHOWN),
    Call("schedule.preview", "viewer", "admin", q.SchedulePreview, v.PreviewList,
         "What is due in the next days, with the rules of policies applied.", scope=SHOWN),
    Call("what-if", "viewer", "admin", q.WhatIf, v.WhatIfView,
         "What the coming night will be like, or would be without some servers or devices."),
    Call("config.apply", "admin", "admin", q.ConfigApply, v.Applied,
         "Make the mesh as a file says, all of it or nothing.", changes=True),
    Call("config.export", "viewer", "admin", q.Nothing, v.Exported, "The file that would make the mesh as it is."),
    # people: what is there
    Call("set.list", "viewer", "admin", q.SetListRequest, v.SetList, "The backup sets.", scope=SHOWN),
    Call("set.delete", "admin", "admin", q.SetName, v.Done,
         "Delete a set whose protection is over. What it alone needs is freed by a reclaim.", changes=True,
         scope=OF_SET),
    Call("set.lock", "operator", "admin", q.SetLock, v.Done,
         "Protect a set until some time, or without end. Nobody can shorten it.", changes=True, scope=OF_SET),
    Call("set.expiry", "viewer", "admin", q.Nothing, v.ExpiryView,
         "Which sets expire with the next pass, and what keeps each other.", scope=SHOWN),
    Call("set.expire", "admin", "admin", q.Nothing, v.Expired,
         "Delete what nothing keeps any more now, and not at the next full hour.", changes=True),
    Call("set.as-of", "restore", "admin", q.SetAsOf, v.SetChoice,
         "The set that has paths of a server as they were at some time.", scope=OF_SERVER),
    Call("file.open", "restore", "admin", q.FileOpen, v.FileOpened,
         "Begin to read one file out of a set. Who read what is in the audit log.", changes=True, scope=OF_SET),
    Call("file.read", "restore", "admin", q.FileRead, q.FilePiece, "A piece of a file that was opened.", scope=SHOWN),
    Call("catalog.ls", "restore", "admin", q.CatalogList, v.EntryList, "A folder as of a set.", scope=OF_SET),
    Call("catalog.find", "restore", "admin", q.CatalogFind, v.MatchList, "Files by name in all sets.", scope=SHOWN),
    Call("catalog.versions", "restore", "admin", q.CatalogVersions, v.VersionList, "All versions of one path.",
         scope=OF_SERVER),
    Call("catalog.modes", "viewer", "admin", c.CatalogModesRequest, c.CatalogModes,
         "Where the catalogs of each server's sets are kept, and how far a move is.", scope=SHOWN),
    Call("catalog.rebuild", "operator", "admin", q.DeviceName, v.CatalogRebuilt,
         "Make the records of sets and their catalog anew from what lies on a device.", changes=True, scope=OF_DEVICE),
    Call("alert.list", "viewer", "admin", q.AlertListRequest, v.AlertList, "Alerts that are not answered, or all.",
         scope=SHOWN),
    Call("alert.answer", "operator", "admin", q.AlertAnswer, v.Done, "Answer an alert.", changes=True,
         scope=(("id", "alert"),)),
    Call("report.list", "viewer", "admin", q.Nothing, ReportList, "The reports that there are.", scope=SHOWN),
    Call("report.show", "viewer", "admin", ReportShow, Report,
         "A report: one question about the mesh, answered with figures, charts and tables.", scope=SHOWN),
    Call("audit.list", "viewer", "admin", audit.AuditListRequest, audit.AuditList,
         "Who did what, from where, what became of it, and what it changed."),
    Call("audit.trim", "admin", "admin", audit.AuditTrim, audit.AuditTrimmed,
         "Forget old entries of the audit log. That it was trimmed stays in it.", changes=True),
)  # fmt: skip

#: Calls that a server also answers by itself, of its own work: as ``local.NAME``.
LOCAL: tuple[str, ...] = (
    "backup", "restore", "verify", "run.follow",
    "job.list", "job.show", "job.log", "job.run", "job.cancel", "job.set", "job.hold", "job.release", "job.delete",
    "selection.list", "selection.show", "selection.delete", "policy.list", "policy.show", "policy.delete", "dissociate",
    "error-rule.list", "error-rule.delete", "schedule.preview",
)  # fmt: skip


def _local(call: Call) -> Call:
    text = f"{call.text.rstrip('.')}: of what the server that is asked does by itself."
    return Call(f"local.{call.name}", call.needs, "own", call.request, call.reply, text, call.changes)


CALLS: tuple[Call, ...] = (*_OF_MESH, *(_local(call) for call in _OF_MESH if call.name in LOCAL))
BY_NAME: dict[str, Call] = {call.name: call for call in CALLS}

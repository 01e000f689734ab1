"""The table of calls: every operation of the product, once. CLI, console and nodes are thin callers of it.

``place`` says who answers: ``local`` any server for itself, ``admin`` the administrator in office (any server
forwards), ``node`` a server to another server, ``own`` the server that is asked, of the work that it does by itself. ``role`` is the least role; ``anonymous`` calls need no certificate.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from caso_mesh.model import alert_calls as a
from caso_mesh.model import audit, history, metrics, overview
from caso_mesh.model import browsing as b
from caso_mesh.model import catalogs as c
from caso_mesh.model import importing as i
from caso_mesh.model import joining as j
from caso_mesh.model import nodes as s
from caso_mesh.model import notice_docs as n
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import telling as t
from caso_mesh.model import views as v
from caso_mesh.model import what_if as w
from caso_mesh.model.audit_chain import AuditDigests, AuditSpans, AuditVerified, AuditVerify
from caso_mesh.model.canceling import RunsCanceled
from caso_mesh.model.cataloguing import DeviceCatalog
from caso_mesh.model.device_work import (
    CatalogsAsked,
    CatalogsStand,
    DeviceCompared,
    DeviceFound,
    DeviceLacks,
    EraseGranted,
    MayErase,
)
from caso_mesh.model.erasing import DeviceErase
from caso_mesh.model.fates import Fate, FateAsked
from caso_mesh.model.inventories import DeviceInventory
from caso_mesh.model.job_edits import JobCopy, JobEdit, JobEdited
from caso_mesh.model.join_links import TokenList, TokenListRequest, TokenName
from caso_mesh.model.listing import CatalogFind
from caso_mesh.model.orders import Orders, OrdersChange
from caso_mesh.model.report_schedules import (
    ReportScheduleEdit,
    ReportScheduleList,
    ReportScheduleName,
    ReportScheduleView,
)
from caso_mesh.model.reports import Report, ReportList, ReportShow
from caso_mesh.model.states import Role
from caso_mesh.model.voters import VoterList

Needs = Literal["anonymous", "node", "viewer", "restore", "operator", "admin"]
Place = Literal["local", "admin", "node", "own"]
#: What the fields of a request name, by which it is found which servers a call concerns: a set and a job (also a run or
#: attempt) concern the servers whose files they are about, a device those that reach it, an alert who it is about.
#: ``source``: a set, or the server whose newest one is meant. A list concerns the servers that it names.
Names = Literal["server", "servers", "pool", "set", "source", "device", "devices", "job", "alert", "list"]
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
    Call("enrol.anchors", "anonymous", "local", q.Nothing, j.AnchorsReply,
         "The certificates this mesh trusts, to be compared with a join link."),
    Call("enrol.operator", "anonymous", "admin", j.OperatorRequest, j.OperatorReply,
         "Become an operator with the secret of an invitation.", changes=True),
    Call("enrol.join", "anonymous", "admin", j.JoinRequest, j.JoinReply,
         "Join with the secret of a join link.", changes=True),
    Call("adopt.commit", "anonymous", "local", j.AdoptCommit, j.AdoptCommitReply,
         "The administrator greets a server that belongs to no mesh: exchange of commitments."),
    Call("adopt.reveal", "anonymous", "local", j.AdoptReveal, j.AdoptRevealReply,
         "Exchange of nonces and keys; both ends now show the same code."),
    Call("adopt.accept", "anonymous", "local", j.AdoptAccept, v.Done,
         "The new server was approved: its certificate and first orders.", changes=True),
    # between nodes
    Call("link.hello", "node", "node", s.HelloRequest, s.HelloReply,
         "First on every link: who, which version, whom it takes for the administrator."),
    Call("server.seen", "node", "node", s.ServerSeen, v.Done,
         "A server that looks for the administrator came by, and where it is: the administrator may reach it. A "
         "notification."),
    Call("roster.get", "node", "node", q.Nothing, s.RosterNow,
         "Whom the other end trusts now: asked by a server that was away while the voters were replaced, of one that it "
         "knows as a voter."),
    Call("identity.renew", "node", "admin", q.Nothing, s.RenewReply,
         "New certificates for the asking server; also with one that has expired."),
    Call("server.heartbeat", "node", "admin", s.Heartbeat, s.HeartbeatReply,
         "A server is there, with the space of its devices."),
    Call("orders.put", "node", "node", Orders, v.Done, "A server's orders, replaced whole."),
    Call("orders.change", "node", "node", OrdersChange, s.OrdersTaken,
         "A server's orders, replaced whole; of the roster and the addresses only what differs from those that it holds."),
    Call("journal.cursors", "node", "admin", q.Nothing, t.JournalCursors,
         "How far the administrator holds the asking server's journal."),
    Call("journal.push", "node", "admin", t.JournalPush, t.JournalCursors,
         "Facts of a server's journal, in order."),
    Call("journal.hash", "node", "admin", t.JournalHashAt, t.JournalHashReply,
         "One hash of the administrator's copy of the asking server's journal."),
    Call("voter.prepare", "node", "node", t.VoterPrepare, t.VoterPrepared,
         "This server is to become a voter: the key that its issuing certificate is for."),
    Call("voter.become", "node", "node", t.VoterBecome, v.Done,
         "This server's issuing certificate; it opens an empty log and waits for what is in it."),
    Call("consensus.message", "node", "node", t.ConsensusMessage, v.Done,
         "What the members of the replicated log say to each other. A notification."),
    Call("replica.begin", "node", "node", t.ReplicaBegin, t.ReplicaPlace,
         "A voter wants to follow the tables of this one: where to begin."),
    Call("replica.pull", "node", "node", t.ReplicaPull, t.ReplicaPiece,
         "What came into the tables of this voter behind a place."),
    Call("replica.floors", "node", "node", q.Nothing, t.ReplicaFloors,
         "Which records this voter has pruned, so that another one may."),
    Call("replica.copy", "node", "node", t.ReplicaCopy, t.ReplicaCopyPiece,
         "A piece of a copy of this voter's tables, for one that was away while records were pruned."),
    Call("replica.audit", "node", "node", AuditSpans, AuditDigests,
         "What this voter holds of the audit log, as digests, to be compared."),
    Call("voter.relay", "node", "admin", t.VoterRelay, t.VoterRelayed,
         "A voter that is not in office fetches a catalog detail by way of the administrator."),
    Call("catalog.read", "node", "node", s.CatalogRead, s.CatalogPiece,
         "A piece of the catalog detail of a set that this server made."),
    Call("catalog.make", "node", "node", s.CatalogMake, s.CatalogMade,
         "Make the catalog detail of a set anew out of its tree in a device of this server."),
    Call("catalog.assigned", "node", "admin", c.CatalogAssigned, c.CatalogAssignment,
         "Which sets' catalogs the asking server is to keep."),
    Call("catalog.records", "node", "admin", c.CatalogSets, c.CatalogRecords,
         "The records of sets that the asking server made, and which of them are deleted."),
    Call("catalog.export", "node", "admin", c.CatalogExport, s.CatalogMade,
         "Lay the catalog of a set that the asking server made ready for it."),
    Call("catalog.exported", "node", "admin", s.CatalogRead, s.CatalogPiece,
         "A piece of a catalog that was laid ready."),
    Call("catalog.kept", "node", "admin", c.CatalogKept, c.CatalogSets,
         "Which catalogs of the asking server a majority of the voters keeps, so that it need not."),
    Call("catalog.keeps", "node", "node", c.CatalogKeeps, c.CatalogSets,
         "Which catalogs this voter has, and goes on having."),
    Call("catalog.look", "node", "node", q.Nothing, v.Done,
         "There may be other catalogs to keep than before. A notification."),
    Call("catalog.folder", "node", "node", c.CatalogFolder, s.SetFolderReply,
         "A folder of a set whose catalog this server keeps."),
    Call("catalog.lookup", "node", "node", c.CatalogLookup, c.CatalogLookedUp,
         "Whether a set whose catalog this server keeps has some paths."),
    Call("catalog.search", "node", "node", c.CatalogSearch, c.CatalogHits,
         "Files by name in the catalogs that this server keeps."),
    Call("catalog.sizes", "node", "node", c.CatalogSizes, c.CatalogSizesReply,
         "How large folders of a set are whose catalog this server keeps."),
    Call("catalog.history", "node", "node", c.CatalogHistory, c.CatalogHistoryReply,
         "The versions of a path in the catalogs that this server keeps."),
    Call("set.folder", "node", "node", s.SetFolder, s.SetFolderReply,
         "A folder in a set on a device of this server."),
    Call("vault.sets", "node", "node", s.VaultSets, s.VaultSetsReply, "The sets that lie on a device of this server."),
    Call("device.prepare", "node", "node", s.DevicePrepare, s.DevicePrepareReply,
         "Make or recognise the vault of a device in a folder of this server."),
    Call("device.proof", "node", "node", s.DeviceProof, s.DeviceProofReply,
         "Prove that several servers see one shared folder."),
    Call("device.grant", "node", "node", s.DeviceGrant, s.DeviceGrantReply,
         "Wrap the content keys of a device to recovery kits."),
    Call("device.keys", "node", "node", s.DeviceKeys, s.DeviceKeysReply,
         "The content keys of a device that was carried to this server, as they are wrapped to others."),
    Call("device.rewrap", "node", "node", s.DeviceRewrap, s.DeviceKeysReply,
         "Wrap content keys that are wrapped to this server to another one."),
    Call("device.take-keys", "node", "node", s.DeviceTakeKeys, v.Done,
         "Lay down content keys that were wrapped to this server."),
    Call("foreign.look", "node", "node", i.FolderLook, i.ForeignVault,
         "What of the vault of another mesh in a folder of this server is needed to open it."),
    Call("foreign.read", "node", "node", i.FolderRead, i.ForeignObjects,
         "Sealed keys and copies of the mesh, out of such a vault."),
    Call("foreign.open", "node", "node", i.FolderOpen, i.FolderOpened,
         "Whether such a vault can be read with what was sealed to this server."),
    Call("foreign.seal", "node", "node", i.ForeignSeal, i.ForeignSealed,
         "Seal what opens an imported device to more servers."),
    Call("mesh.keep", "node", "node", s.MeshKeep, v.Done, "Lay down a sealed copy of the mesh in a device."),
    Call("logon.grant", "node", "node", s.LogonGrant, s.LogonGranted,
         "Seal the secret of a logon, which this server has, to others that may use it."),
    Call("device.found", "node", "admin", DeviceFound, DeviceCompared,
         "What an attempt that looks at a device as a whole found, put before what is believed to be there."),
    Call("device.lacks", "node", "admin", DeviceLacks, v.Done,
         "Which sets an inventory did not find in a device, having looked for them twice."),
    Call("device.catalogs", "node", "admin", CatalogsAsked, CatalogsStand,
         "How far the catalogs are that an attempt at their device had made anew."),
    Call("device.may-erase", "node", "admin", MayErase, EraseGranted,
         "Whether an attempt that stands at its device may erase it now. It may only once that is committed."),
    Call("path.check", "node", "node", s.PathCheck, s.PathCheckReply,
         "Whether this server has, and allows to read or write, some paths."),
    Call("set.piece", "node", "node", s.SetPiece, s.SetPieceReply,
         "A piece of a file in a set on a device of this server."),
    Call("set.hold", "node", "node", s.SetHold, v.Done,
         "Delete or lock a set on a device of this server, which looks at the protection itself."),
    Call("attempt.watch", "node", "node", s.WatchAttempts, v.Done,
         "Somebody watches these attempts: report twice a second for a while."),
    Call("attempt.held", "node", "node", s.AttemptHeld, s.HeldPiece,
         "What a server holds back of the job log and the exceptions of an attempt: somebody looks."),
    Call("attempt.fate", "node", "admin", FateAsked, Fate,
         "How an attempt ended that the orders of the asking server do not name any more."),
    Call("attempt.progress", "node", "admin", s.ProgressReport, v.Done, "Progress of running attempts."),
    Call("mesh.summary", "node", "admin", q.Nothing, s.MeshSummary, "The numbers of the status line."),
    Call("call.signed", "node", "admin", s.SignedCall, q.Nothing,
         "A person's call, forwarded by a server. It answers what the call itself answers."),
    # people: the mesh
    Call("operator.renew", "viewer", "admin", q.Nothing, s.OperatorRenewReply,
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
    Call("overview", "viewer", "admin", overview.OverviewRequest, overview.Overview,
         "The mesh at a glance: servers, what runs, what waits and why, open alerts, the last day, what is due.", scope=SHOWN),
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
    Call("voter.list", "viewer", "admin", q.Nothing, VoterList,
         "The voters: which of them vote, are there and in office, and how far each is with the replicated log."),
    Call("admin.transfer", "admin", "admin", q.AdminTransfer, v.Done,
         "Hand the office over to another voter.", changes=True),
    Call("ca.rotate", "admin", "admin", q.CaRotate, v.CaView,
         "A new certification authority for the mesh: announced to all, then switched to.", changes=True),
    Call("ca.show", "viewer", "admin", q.Nothing, v.CaView, "The certification authority, and who lacks it."),
    Call("token.create", "admin", "admin", q.TokenCreate, v.TokenView,
         "A join link: short-lived, for one server.", changes=True),
    Call("token.list", "admin", "admin", TokenListRequest, TokenList,
         "The links by which servers and operators may join, without their secrets."),
    Call("token.revoke", "admin", "admin", TokenName, v.Done,
         "Take a link back: nobody joins by it any more.", changes=True),
    Call("peer.add", "admin", "local", q.PeerAdd, v.PeerList,
         "A static address where another server may be reached. It holds on the server that is asked, and on no other.",
         changes=True),
    Call("peer.list", "viewer", "local", q.Nothing, v.PeerList, "Addresses of other servers that the one that is asked knows."),
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
         "Take a device without sets, or an imported one, out of the mesh; nothing on it is deleted.", changes=True),
    Call("device.inventory", "operator", "admin", DeviceInventory, o.Submitted,
         "Look what lies in devices, now or by a schedule, and compare it with what is believed to be there.",
         changes=True, scope=(("devices", "devices"),)),
    Call("device.look", "admin", "admin", i.DeviceLook, i.ForeignVault,
         "What of the vault of another mesh is needed to open it with its recovery kit."),
    Call("device.read", "admin", "admin", i.DeviceRead, i.ForeignObjects,
         "Sealed keys and copies of that mesh, which only its recovery kit opens."),
    Call("device.import", "admin", "admin", i.DeviceImport, v.DeviceView,
         "Take over a device that another mesh wrote, for reading.", changes=True),
    Call("device.erase", "admin", "admin", DeviceErase, o.Submitted,
         "Erase all that lies in a device and begin a new, empty vault in it.", changes=True),
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
    # people: whom the administrator tells of what
    Call("mail-server.show", "admin", "admin", q.Nothing, n.MailServerView, "The mail server, if there is one."),
    Call("mail-server.set", "admin", "admin", n.MailServerSet, v.Done,
         "The server that takes the mail of the mesh, or that there is none.", changes=True),
    Call("recipient.list", "admin", "admin", q.Nothing, n.RecipientViews,
         "Whom the administrator can tell something, and how it goes."),
    Call("recipient.create", "admin", "admin", n.RecipientEdit, v.Done, "A recipient: a mail address or a webhook.",
         changes=True),
    Call("recipient.set", "admin", "admin", n.RecipientEdit, v.Done, "Change a recipient; what waits for it goes to the new address.",
         changes=True),
    Call("recipient.delete", "admin", "admin", q.Named, v.Done, "Delete a recipient that no group and no rule names.",
         changes=True),
    Call("recipient-group.list", "admin", "admin", q.Nothing, n.RecipientGroupViews, "The groups of recipients."),
    Call("recipient-group.create", "admin", "admin", n.RecipientGroupEdit, v.Done, "Recipients under one name.",
         changes=True),
    Call("recipient-group.set", "admin", "admin", n.RecipientGroupEdit, v.Done, "Replace the recipients of a group.",
         changes=True),
    Call("recipient-group.delete", "admin", "admin", q.Named, v.Done, "Delete a group that no rule names.", changes=True),
    Call("notify-rule.list", "admin", "admin", q.Nothing, n.NoticeRuleViews, "Who is told of what."),
    Call("notify-rule.create", "admin", "admin", n.NoticeRuleEdit, v.Done,
         "A rule: which alerts and ends of runs are told to whom.", changes=True),
    Call("notify-rule.set", "admin", "admin", n.NoticeRuleEdit, v.Done,
         "Change a rule; it holds for what happens from then on.", changes=True),
    Call("notify-rule.delete", "admin", "admin", q.Named, v.Done, "Delete a rule.", changes=True),
    Call("notify.test", "admin", "admin", n.NoticeTest, n.NoticesTested,
         "Send something to a recipient, or to all of a group, now, and say what the receiving servers answered.",
         changes=True),
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
    Call("backup", "operator", "admin", q.BackupRequest, o.Submitted,
         "Back up paths of servers, now or by a schedule.", changes=True, scope=(("sources", "servers"),)),
    Call("restore", "restore", "admin", q.RestoreRequest, o.Submitted, "Restore a set or parts of it.", changes=True,
         scope=(("set", "set"), ("to", "server"), ("into_command", "server"))),
    Call("restore.selected", "restore", "admin", q.RestoreRequest, o.Submitted,
         "Restore paths of a set by the thousand, which are packed.", changes=True,
         scope=(("set", "set"), ("to", "server"), ("into_command", "server"))),
    Call("verify", "operator", "admin", q.VerifyRequest, o.Submitted, "Read back and check a set.", changes=True,
         scope=OF_SET),
    Call("duplicate", "operator", "admin", q.DuplicateRequest, o.Submitted, "Copy a set to another device.", changes=True,
         scope=OF_SET),
    Call("synthetic", "operator", "admin", q.SyntheticRequest, o.Submitted,
         "Make full sets out of the newest ones, without reading the source.", changes=True,
         scope=(("sources", "servers"), ("selection", "list"))),
    Call("drill", "operator", "admin", q.DrillRequest, o.Submitted,
         "Restore a random sample of a set to scratch and compare it.", changes=True,
         scope=(("set", "source"), ("server", "server"))),
    Call("run.follow", "viewer", "admin", q.RunFollow, o.RunProgress, "Where a run is, and its result once closed.",
         scope=(("run", "job"),)),
    Call("job.list", "viewer", "admin", q.JobListRequest, o.JobList, "Jobs and runs, with the reason of each wait.",
         scope=SHOWN),
    Call("job.show", "viewer", "admin", q.JobName, o.JobDetail, "A job with its runs and attempts.", scope=OF_JOB),
    Call("why", "viewer", "admin", q.Why, o.Story,
         "What became of a run, or of a night of a selection list or a server, and why, in the order in which it happened.",
         scope=SHOWN),
    Call("job.log", "viewer", "admin", q.JobLogRequest, o.JobLogView,
         "The job log of the attempts of a run.", scope=OF_JOB),
    Call("log.follow", "viewer", "admin", history.LogFollow, history.LogTail,
         "The lines that the job log of a run got since it was asked for last; waits for them.", scope=OF_JOB),
    Call("history", "viewer", "admin", history.HistoryRequest, history.History,
         "What was done, one entry for each attempt: times, counts, rate, result, error.", scope=SHOWN),
    Call("job.run", "operator", "admin", q.JobName, o.Submitted, "Run a job now.", changes=True, scope=OF_JOB),
    Call("job.cancel", "operator", "admin", q.JobCancel, RunsCanceled, "End a run.", changes=True, scope=OF_JOB),
    Call("job.set", "operator", "admin", q.JobSet, v.Done,
         "Change the priority of a job and of what waits of it, or of one run.", changes=True, scope=OF_JOB),
    Call("job.edit", "operator", "admin", JobEdit, JobEdited,
         "Change a job that a person made; runs that are open go on as they began.", changes=True,
         scope=(("name", "job"), ("sources", "servers"), ("devices", "devices"))),
    Call("job.copy", "operator", "admin", JobCopy, JobEdited,
         "Another job that does the same; its schedule counts from now on.", changes=True, scope=OF_JOB),
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
    Call("what-if", "viewer", "admin", w.WhatIf, w.WhatIfView,
         "What the coming night will be like, or would be without some servers or devices."),
    Call("config.apply", "admin", "admin", q.ConfigApply, v.Applied,
         "Make the mesh as a file says, all of it or nothing.", changes=True),
    Call("config.export", "viewer", "admin", q.Nothing, v.Exported, "The file that would make the mesh as it is."),
    # people: what is there
    Call("set.list", "viewer", "admin", q.SetListRequest, b.SetList, "The backup sets.", scope=SHOWN),
    Call("set.delete", "admin", "admin", b.SetName, v.Done,
         "Delete a set whose protection is over. What it alone needs is freed by a reclaim.", changes=True,
         scope=OF_SET),
    Call("set.lock", "operator", "admin", b.SetLock, v.Done,
         "Protect a set until some time, or without end. Nobody can shorten it.", changes=True, scope=OF_SET),
    Call("set.expiry", "viewer", "admin", q.Nothing, b.ExpiryView,
         "Which sets expire with the next pass, and what keeps each other.", scope=SHOWN),
    Call("set.expire", "admin", "admin", q.Nothing, b.Expired,
         "Delete what nothing keeps any more now, and not at the next full hour.", changes=True),
    Call("set.as-of", "restore", "admin", b.SetAsOf, b.SetChoice,
         "The set that has paths of a server as they were at some time.", scope=OF_SERVER),
    Call("file.open", "restore", "admin", b.FileOpen, b.FileOpened,
         "Begin to read one file out of a set. Who read what is in the audit log.", changes=True, scope=OF_SET),
    Call("file.read", "restore", "admin", b.FileRead, b.FilePiece, "A piece of a file that was opened.", scope=SHOWN),
    Call("catalog.ls", "restore", "admin", b.CatalogList, b.EntryList, "A folder as of a set.", scope=OF_SET),
    Call("catalog.find", "restore", "admin", CatalogFind, b.MatchList, "Files by name in all sets.", scope=SHOWN),
    Call("catalog.versions", "restore", "admin", b.CatalogVersions, b.VersionList, "All versions of one path.",
         scope=OF_SERVER),
    Call("catalog.du", "restore", "admin", c.CatalogUsage, c.UsageList,
         "How many files lie below the folders of a set, and how large they are.", scope=OF_SET),
    Call("catalog.as-of", "restore", "admin", c.CatalogAsOf, c.CatalogChoice,
         "The set that shows a path of a server as it was at some time, to be looked into.", scope=OF_SERVER),
    Call("catalog.modes", "viewer", "admin", c.CatalogModesRequest, c.CatalogModes,
         "Where the catalogs of each server's sets are kept, and how far a move is.", scope=SHOWN),
    Call("catalog.remake", "operator", "admin", DeviceCatalog, o.Submitted,
         "Make the records of sets and their catalog anew from what lies on devices, now or by a schedule.",
         changes=True, scope=(("devices", "devices"),)),
    Call("catalog.rebuild", "operator", "admin", q.DeviceName, b.CatalogRebuilt,
         "As catalog.remake, for programs of before: without a job, and answered once the records are there.",
         changes=True, scope=OF_DEVICE),
    Call("alert.list", "viewer", "admin", q.AlertListRequest, v.AlertList, "Alerts that are not answered, or all.",
         scope=SHOWN),
    Call("alert.show", "viewer", "admin", q.Named, a.AlertDetail, "One alert: what it means and what to do about it.",
         scope=(("name", "alert"),)),
    Call("alert.follow", "viewer", "admin", a.AlertFollow, a.AlertsNow,
         "The alerts that fit, as soon as they are others than the caller knows.", scope=SHOWN),
    Call("alert.answer", "operator", "admin", q.AlertAnswer, a.AlertAnswered, "Answer an alert.", changes=True,
         scope=(("id", "alert"),)),
    Call("report.list", "viewer", "admin", q.Nothing, ReportList, "The reports that there are.", scope=SHOWN),
    Call("report.show", "viewer", "admin", ReportShow, Report,
         "A report: one question about the mesh, answered with figures, charts and tables.", scope=SHOWN),
    Call("report.schedule", "operator", "admin", ReportScheduleEdit, ReportScheduleView,
         "Make a report by itself whenever it is due, and send it to recipients.", changes=True),
    Call("report.unschedule", "operator", "admin", ReportScheduleName, v.Done,
         "A report is not sent by itself any more.", changes=True),
    Call("report.scheduled", "viewer", "admin", q.Nothing, ReportScheduleList, "The reports that are sent by themselves."),
    Call("audit.list", "viewer", "admin", audit.AuditListRequest, audit.AuditList,
         "Who did what, from where, what became of it, and what it changed."),
    Call("audit.verify", "viewer", "admin", AuditVerify, AuditVerified,
         "Whether the audit log is what was written: here, at the other voters, and against marks that were noted earlier."),
    Call("audit.trim", "admin", "admin", audit.AuditTrim, audit.AuditTrimmed,
         "Forget old entries of the audit log. That it was trimmed stays in it.", changes=True),
)  # fmt: skip

#: Calls that a server also answers by itself, of its own work: as ``local.NAME``.
LOCAL: tuple[str, ...] = (
    "backup", "restore", "restore.selected", "verify", "run.follow",
    "job.list", "job.show", "job.log", "job.run", "job.cancel", "job.set", "job.edit", "job.copy", "job.hold", "job.release",
    "job.delete",
    "selection.list", "selection.show", "selection.delete", "policy.list", "policy.show", "policy.delete", "dissociate",
    "error-rule.list", "error-rule.delete", "schedule.preview",
)  # fmt: skip

#: Alerts that a server told of itself are seen and answered at it: it opens nothing of its own work for that.
OWN_ALERTS: tuple[str, ...] = ("alert.list", "alert.show", "alert.follow", "alert.answer")


def _local(call: Call) -> Call:
    text = f"{call.text.rstrip('.')}: of what the server that is asked does by itself."
    return Call(f"local.{call.name}", call.needs, "own", call.request, call.reply, text, call.changes)


CALLS: tuple[Call, ...] = (*_OF_MESH, *(_local(call) for call in _OF_MESH if call.name in {*LOCAL, *OWN_ALERTS}))
BY_NAME: dict[str, Call] = {call.name: call for call in CALLS}

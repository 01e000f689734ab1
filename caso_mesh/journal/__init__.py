"""A server's own append-only journal of facts: incarnation, sequence, hash chain, cursor; and the replica of other servers'
journals.

It must not interpret facts.
"""

from caso_mesh.journal import compare, replica
from caso_mesh.journal.compare import Plan, RolledBack, Send, find_fork
from caso_mesh.journal.journal import Journal
from caso_mesh.journal.record import Head, Record

__all__ = ["Head", "Journal", "Plan", "Record", "RolledBack", "Send", "compare", "find_fork", "replica"]

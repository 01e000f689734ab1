"""A server's append-only journal of facts: incarnation, sequence, hash chain, cursor; and the replica of other servers'
journals.

It must not interpret facts.
"""

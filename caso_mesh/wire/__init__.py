"""Bounded msgpack frames, typed calls, streams with credit, links and bulk channels over mutual-TLS websockets, the
handoff of a bulk connection to a worker, and the in-memory network for tests.

It takes a TLS context and ``authorise(certificate) -> peer``; it must not know what the calls mean.
"""

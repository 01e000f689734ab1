"""The store inside a device: format, chunking, packs, index, sessions, trees, sets, verify.

It must not know of servers, jobs or what a certificate means.
"""

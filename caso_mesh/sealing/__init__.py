"""Authenticated encryption, key wrapping, key derivation and signatures.

It must not know of meshes.
"""

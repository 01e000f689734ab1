"""The replicated log behind one narrow port (``propose``, ``committed``, ``leadership``), with its log store.

It must not know what a command means.
"""

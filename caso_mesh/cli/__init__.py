"""The command line, one file per command. Daily commands import only ``model``, ``wire`` and ``identity``; the starters
import the rest when they are called.

It must not be slow to start.
"""

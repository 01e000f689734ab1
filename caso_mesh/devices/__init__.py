"""Storage devices behind one small interface of named objects: a disk folder, a shared folder.

It must not know what a backup is.
"""

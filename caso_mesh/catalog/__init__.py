"""What was backed up, as of any time: listing, search, versions of a path.

It must not read content.
"""

"""What was backed up, as of any time: listing, search, versions of a path.

It stores change, not copies: a *version* of a path is an interval of backup sets. It must not read content.
"""

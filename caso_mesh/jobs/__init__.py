"""Running one attempt: the nursery that forks workers, the worker process and its protocol; backup, restore and verify;
the remote end of a source or a target.

It must not decide what runs.
"""

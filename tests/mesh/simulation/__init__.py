"""The mesh simulator: the real composition of five servers in one process, in virtual time, under faults that a seed
draws. Whatever happened, at the end each promise must hold (``checks.py``). ``python -m tests.mesh.simulation --help``.

Nothing here may use a real clock, thread, process or source of randomness: any seed replays exactly.
"""

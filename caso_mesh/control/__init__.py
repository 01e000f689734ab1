"""The control state: a pure reducer over committed commands, their validation, snapshots, and the orders cut out of it
for each server.

Nothing here does I/O.
"""

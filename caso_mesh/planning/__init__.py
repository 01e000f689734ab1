"""Pure rules: schedules, placement, the life cycle of a run and its attempts, liveness, retention.

Events and tables in, decisions out. Nothing here does I/O or reads a clock.
"""

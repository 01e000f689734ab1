"""What only the administrator in office does: due runs, delegation, liveness, recovery, enrolment, the tables made of all
journals. It starts when its no-op is applied and ends on stepping down, in one task group.

It must not keep state outside the control state and the journals.
"""

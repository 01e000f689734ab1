"""The control endpoint: handlers for the table of calls, roles, forwarding to the administrator in office.

It must not hold logic.
"""

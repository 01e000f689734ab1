"""The desks of an office: each makes the duties and answers that belong together out of the same means, and says what others
may use of it. An office is a list of desks; a server's own work is an office with fewer of them.

A desk does not decide anything: that is in the duties.
"""

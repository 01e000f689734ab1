"""A server's own work: jobs that were copied to it or made there, by its own schedule, also without the administrator.

A server is, for this work, an administrator of itself: a control state with one server in it, changed by the same commands
through the same reducer, in a log of its own (one member, always in office); the same duties open due runs, place and close
them; tables made of its own journal alone. Its attempts lie beside those of its orders, and run in the same workers. Who
has nothing of the kind opens nothing of it.

What flows: copies come down with the orders and are taken once; facts go up by the journal as all others, and arrive once.
Nothing here delegates to, or speaks for, another server; what it may do ends with its certificate.
"""

"""The words of the product: identifiers, states, waiting reasons, records, settings, the error tree, commands of the
control state, facts of the journal and the table of calls. Everything else builds on it.

Nothing here does I/O or reads a clock.
"""

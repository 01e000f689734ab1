"""What every server does: links, orders, the local queue, attempts, its journal, its devices, joining.

It must not act as the administrator.
"""

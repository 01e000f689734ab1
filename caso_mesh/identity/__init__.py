"""Keys and certificates of nodes and operators, the mesh CA and its issuing certificates, the roster, join links,
approval codes and tickets.

It must not hold a dialogue: the messages of joining travel in ``server/`` and ``admin/``.
"""

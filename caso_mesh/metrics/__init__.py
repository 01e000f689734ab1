"""Figures for monitoring: what a server, and the administrator the mesh, knows, in the text format of Prometheus; and the
plain HTTP listener that shows it, with ``/healthz`` and ``/readyz``.

It reads, and must not change anything: no request has an effect, and nothing else in the daemon waits for it.
"""

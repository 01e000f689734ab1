"""caso-mesh: backup for all your servers, run by an elected central administrator.

The rooms and the rules between them are in ``ARCHITECTURE.md`` beside this file.
"""

__version__ = "0.1.0"

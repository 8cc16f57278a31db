"""The ``hadas`` command.  Only this package prints.

``commands`` lists all commands; ``beginning``, ``steps`` and ``accuracy`` hold them; ``opening`` and ``printing``
hold what they share.
"""

from .commands import app, main

__all__ = ["app", "main"]

"""Modules that most agents never need, or only at their end: loaded when something of them is first used.

Until then they take no memory. Loading one may fail, for want of memory or of a descriptor, or as the installation has
been removed: that is as if the look which it is for had failed, and holds up no stop. What the deadline, the stop
signal to the agent, and the exit depend on is never loaded later.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Module:
    """The module `name` of this package, loaded at the first use of an attribute."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = f"{__package__}.{name}"

    def __getattr__(self, attribute: str) -> "Any":
        return getattr(__import__(self._name, fromlist=("*",)), attribute)

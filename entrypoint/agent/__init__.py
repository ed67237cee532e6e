"""For the agent's own process: an asyncio runner that stops gracefully and leaves nothing suspended.

from entrypoint.agent import run, ready, stop_requested
"""

from .executor import DaemonThreadPool
from .runner import ready, run, status, stop_requested
from .stopping import StopRequest

__all__ = ["DaemonThreadPool", "StopRequest", "ready", "run", "status", "stop_requested"]

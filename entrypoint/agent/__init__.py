"""What an agent can use in its own process: a runner for asyncio that ends as it was asked to, and what goes with it.

from entrypoint.agent import run, ready, stop_requested
"""

from .runner import StopRequest, ready, run, status, stop_requested

__all__ = ["StopRequest", "ready", "run", "status", "stop_requested"]

"""An agent on the runner. It sets a handler for USR1 itself; the runner reports that, with its own for TERM and INT."""

from __future__ import annotations

import asyncio
import signal

from entrypoint import agent


async def main() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: print("got SIGUSR1", flush=True))
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.5)
        print("cleaned up", flush=True)


agent.run(main())

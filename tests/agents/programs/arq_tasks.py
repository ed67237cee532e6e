"""Tasks of an arq worker. `python arq_tasks.py` queues one."""

# mypy: disable-error-code="import-not-found, untyped-decorator"
# Its imports are installed only in its own environment.

import asyncio
import os

from arq.connections import RedisSettings, create_pool
from record import note


async def answer(_: object) -> None:
    note("task begun")
    await asyncio.sleep(2.5)
    note("task done")


async def ready(_: object) -> None:
    note("worker ready")


async def closed(_: object) -> None:
    note("worker closed")


class WorkerSettings:
    functions = (answer,)
    on_startup = ready
    on_shutdown = closed
    redis_settings = RedisSettings(unix_socket_path=os.environ["AGENT_REDIS"].removeprefix("unix://"))
    job_completion_wait = float(os.environ.get("AGENT_WAIT", "0"))


async def main() -> None:
    pool = await create_pool(WorkerSettings.redis_settings)
    await pool.enqueue_job("answer")
    await pool.aclose()


if __name__ == "__main__":
    asyncio.run(main())

import asyncio

from arq import create_pool
from arq.connections import RedisSettings
from job import PORT, store


async def answer(_: object, name: str) -> None:
    store.rpush(name, "begun")
    await asyncio.sleep(2)
    store.rpush(name, "done")


class WorkerSettings:
    functions = (answer,)
    redis_settings = RedisSettings(port=PORT)
    job_completion_wait = 60  # without it a stop cancels the job, which is run again later


async def queue(name: str) -> None:
    pool = await create_pool(WorkerSettings.redis_settings)
    await pool.enqueue_job("answer", name)
    await pool.aclose()


def enqueue(name: str) -> None:
    asyncio.run(queue(name))

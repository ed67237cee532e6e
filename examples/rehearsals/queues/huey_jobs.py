from huey import RedisHuey
from job import PORT, think

queue = RedisHuey(port=PORT)
answer = queue.task()(think)


def enqueue(name: str) -> None:
    answer(name)

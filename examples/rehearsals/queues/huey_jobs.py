from huey import RedisHuey
from job import think

queue = RedisHuey()
answer = queue.task()(think)


def enqueue(name: str) -> None:
    answer(name)

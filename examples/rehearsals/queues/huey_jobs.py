from huey import RedisHuey
from job import URL, think

queue = RedisHuey(url=URL)
answer = queue.task()(think)


def enqueue(name: str) -> None:
    answer(name)

from job import URL, think
from redis import Redis
from rq import Queue


def enqueue(name: str) -> None:
    Queue(connection=Redis.from_url(URL)).enqueue(think, name)

from job import PORT, think
from redis import Redis
from rq import Queue


def enqueue(name: str) -> None:
    Queue(connection=Redis(port=PORT)).enqueue(think, name)

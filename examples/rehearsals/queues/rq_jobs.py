from job import think
from redis import Redis
from rq import Queue


def enqueue(name: str) -> None:
    Queue(connection=Redis()).enqueue(think, name)

"""The job of all queues here: it takes two seconds, and notes in Redis what has become of it."""

import time

from redis import Redis

store = Redis(decode_responses=True)


def think(name: str) -> None:
    store.rpush(name, "begun")
    time.sleep(2)
    store.rpush(name, "done")

"""The job of all queues here: it takes two seconds, and notes in Redis what has become of it."""

import os
import time

from redis import Redis

URL = os.environ["REDIS_URL"]  # redis.sh sets it
store = Redis.from_url(URL, decode_responses=True)


def think(name: str) -> None:
    store.rpush(name, "begun")
    time.sleep(2)
    store.rpush(name, "done")

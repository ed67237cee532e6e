"""The job of all queues here: it takes two seconds, and notes in Redis what has become of it."""

import os
import time

from redis import Redis

PORT = int(os.environ["REDIS_PORT"])  # redis.sh sets it
store = Redis(port=PORT, decode_responses=True)


def think(name: str) -> None:
    store.rpush(name, "begun")
    time.sleep(2)
    store.rpush(name, "done")

"""Tasks of an rq worker. `python rq_tasks.py` queues one."""

# mypy: disable-error-code="import-not-found, untyped-decorator"
# Its imports are installed only in its own environment.

import os
import time

from record import note


def answer() -> None:
    note("task begun")
    time.sleep(2.5)
    note("task done")


if __name__ == "__main__":
    from redis import Redis
    from rq import Queue

    Queue(connection=Redis.from_url(os.environ["AGENT_REDIS"])).enqueue("rq_tasks.answer")

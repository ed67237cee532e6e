"""Tasks of a Huey consumer with an SQLite file as its queue. `python huey_tasks.py` queues one."""

# mypy: disable-error-code="import-not-found, untyped-decorator"
# Its imports are installed only in its own environment.

import os
import time

from huey import SqliteHuey
from record import note

queue = SqliteHuey(filename=os.environ["AGENT_QUEUE"])


@queue.task()
def answer() -> None:
    note("task begun")
    time.sleep(2.5)
    note("task done")


@queue.on_startup()
def ready() -> None:
    note("worker ready")


if __name__ == "__main__":
    import huey_tasks

    huey_tasks.answer()

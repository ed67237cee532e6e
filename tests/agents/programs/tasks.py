"""A Celery worker with a folder as its queue, so that it needs no service. When ready it queues one task."""

# mypy: disable-error-code="import-not-found, untyped-decorator"
# Its imports are installed only in its own environment.

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery, signals
from record import note

queue = Path(os.environ["AGENT_QUEUE"])
queue.mkdir(exist_ok=True)
app = Celery(
    "tasks",
    broker="filesystem://",
    broker_transport_options={f"{name}_folder": str(queue) for name in ("data_in", "data_out", "control")}
    | {"data_folder_in": str(queue), "data_folder_out": str(queue)},
)
app.conf.update(worker_hijack_root_logger=False, task_ignore_result=True, broker_connection_retry_on_startup=False)


@app.task
def answer() -> None:
    note("task begun")
    time.sleep(2.5)
    note("task done")


@signals.worker_ready.connect
def ask(**_: Any) -> None:
    answer.delay()


@signals.worker_process_shutdown.connect
def child_closed(**_: Any) -> None:
    note("child closed")


@signals.worker_shutdown.connect
def closed(**_: Any) -> None:
    note("worker closed")

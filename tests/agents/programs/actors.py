"""A Dramatiq worker on a Redis server."""

# mypy: disable-error-code="import-not-found, misc, untyped-decorator"
# Its imports are installed only in its own environment.

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from record import note

broker = RedisBroker(url=os.environ["AGENT_REDIS"])
dramatiq.set_broker(broker)


class Closing(dramatiq.Middleware):
    def after_process_boot(self, broker: dramatiq.Broker) -> None:
        note("process booted")

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        note("worker closed")


broker.add_middleware(Closing())


@dramatiq.actor(max_retries=0)
def answer() -> None:
    note("message begun")
    time.sleep(2.5)
    note("message done")


if __name__ == "__main__":
    answer.send()

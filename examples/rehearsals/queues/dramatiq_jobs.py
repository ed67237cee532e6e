import dramatiq
from dramatiq.brokers.redis import RedisBroker
from job import think

dramatiq.set_broker(RedisBroker())
answer = dramatiq.actor(think)


def enqueue(name: str) -> None:
    answer.send(name)

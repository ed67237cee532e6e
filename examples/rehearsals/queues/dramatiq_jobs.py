import dramatiq
from dramatiq.brokers.redis import RedisBroker
from job import PORT, think

dramatiq.set_broker(RedisBroker(port=PORT))
answer = dramatiq.actor(think)


def enqueue(name: str) -> None:
    answer.send(name)

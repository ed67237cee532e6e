import dramatiq
from dramatiq.brokers.redis import RedisBroker
from job import URL, think

dramatiq.set_broker(RedisBroker(url=URL))
answer = dramatiq.actor(think)


def enqueue(name: str) -> None:
    answer.send(name)

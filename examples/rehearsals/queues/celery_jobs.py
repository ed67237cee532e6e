from celery import Celery
from job import URL, think

app = Celery(broker=URL, task_ignore_result=True)
answer = app.task(think, name="answer")


def enqueue(name: str) -> None:
    answer.delay(name)

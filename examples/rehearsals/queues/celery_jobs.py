from celery import Celery
from job import think

app = Celery(broker="redis://localhost", task_ignore_result=True)
answer = app.task(think, name="answer")


def enqueue(name: str) -> None:
    answer.delay(name)

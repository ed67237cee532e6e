from celery import Celery
from job import PORT, think

app = Celery(broker=f"redis://localhost:{PORT}", task_ignore_result=True)
answer = app.task(think, name="answer")


def enqueue(name: str) -> None:
    answer.delay(name)

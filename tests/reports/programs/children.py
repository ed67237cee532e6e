"""An agent whose worker processes hang: `python children.py fork|spawn|forkserver`."""

import multiprocessing
import signal
import sys
import time


def serve_caller(number: int) -> None:
    signal.alarm(100)
    time.sleep(100)


if __name__ == "__main__":
    signal.alarm(100)
    multiprocessing.set_start_method(sys.argv[1])
    workers = [multiprocessing.Process(target=serve_caller, args=(number,)) for number in range(2)]
    for worker in workers:
        worker.start()
    print("ready", flush=True)
    for worker in workers:
        worker.join()

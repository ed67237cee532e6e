"""Queue one job, and wait until it is done: `python work.py MODULE`. Fails if it is lost, or begun a second time."""

import importlib
import sys
import uuid

from job import store

name = uuid.uuid4().hex
importlib.import_module(sys.argv[1]).enqueue(name)
for wanted in ("begun", "done"):
    happened = store.blpop(name, timeout=30)
    assert happened, f"the job is not {wanted}"
    assert happened[1] == wanted, f"{happened[1]} a second time"
    print(wanted, flush=True)

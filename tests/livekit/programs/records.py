"""What a caller and an agent note down about their call: one JSON object a line, with the time."""

import json
import os
import time


class Records:
    """A file of records, appended to. `at` is time.time() in seconds: the same clock in every container."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def note(self, event: str, **facts: object) -> None:
        line = json.dumps({"at": time.time(), "event": event, **facts})
        os.write(self._file, line.encode() + b"\n")  # in one write: several processes may append

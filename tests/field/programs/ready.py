"""An agent that reports that it is ready: `ready.py SECONDS NAME LOG`, as `drain.py`. It exits at TERM."""

import json
import os
import signal
import socket
import sys
import time

NAME, LOG = sys.argv[2:4]
address = os.environ["NOTIFY_SOCKET"]
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
    out.sendto(b"READY=1", "\0" + address[1:] if address.startswith("@") else address)
with open(LOG, "a") as log:
    log.write(json.dumps({"pid": os.getpid(), "name": NAME, "event": "up", "t": time.monotonic()}) + "\n")
while True:
    signal.pause()

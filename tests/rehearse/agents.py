"""Agents, good and bad, as Python code."""

from __future__ import annotations

# A plain asyncio program: agent-init interrupts it.
PLAIN = """
import asyncio

async def main():
    print("up", flush=True)
    try:
        await asyncio.sleep(1000)
    finally:
        await asyncio.sleep(0.4)
        print("cleaned", flush=True)

asyncio.run(main())
"""

# An HTTP server that finishes what it has in hand: /slow takes a second.
SERVER = """
import signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/slow":
            time.sleep(1.5)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"done")

    def log_message(self, *_):
        pass

class Server(ThreadingHTTPServer):
    daemon_threads = DAEMON
    block_on_close = not DAEMON

server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
HANDLER
server.serve_forever()
server.server_close()
"""
DRAINS = "signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())"
DROPS = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))"
GOOD_SERVER = SERVER.replace("DAEMON", "False").replace("HANDLER", DRAINS)
BAD_SERVER = SERVER.replace("DAEMON", "True").replace("HANDLER", DROPS)
# Finishes what it has in hand when it is interrupted, but takes TERM for "now".
NEEDS_INT = GOOD_SERVER.replace(
    DRAINS,
    DRAINS.replace("SIGTERM", "SIGINT") + "\nsignal.signal(signal.SIGTERM, lambda *_: __import__('os')._exit(0))",
)

DEAF = """
import signal, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
print("up", flush=True)
while True:
    time.sleep(1)
"""

NEEDS_THREE_SECONDS = """
import signal, sys, time

def stop(*_):
    time.sleep(3)
    sys.exit(0)

signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
while True:
    time.sleep(1)
"""

LEAVES_A_CHILD = """
import signal, subprocess, sys, time
subprocess.Popen(["sh", "-c", "trap '' TERM INT; while :; do sleep 1; done"])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("up", flush=True)
while True:
    time.sleep(1)
"""

# The loop is closed while a coroutine is suspended: its `finally` runs when the interpreter collects it.
LOOP_CLOSED_TOO_EARLY = """
import asyncio, signal

async def call():
    try:
        await asyncio.sleep(1000)
    finally:
        await asyncio.sleep(0.1)

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    task = asyncio.create_task(call())
    print("up", flush=True)
    await stop.wait()
    asyncio.get_running_loop().stop()
    await asyncio.sleep(1000)

loop = asyncio.new_event_loop()
try:
    loop.run_until_complete(main())
except RuntimeError:
    pass
loop.close()
"""

SLOW_START = """
import signal, sys, time
print("starting", flush=True)
time.sleep(1.5)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("agent registered", flush=True)
while True:
    print("tick", flush=True)
    time.sleep(0.2)
"""

WITH_WORKERS = """
import os, signal, sys, time
children = []
def stop(*_):
    for child in children:
        try:
            os.kill(child, signal.SIGTERM)
        except ProcessLookupError:
            pass
    sys.exit(0)
for _ in range(2):
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        while True:
            time.sleep(1)
    children.append(child)
signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
while True:
    time.sleep(1)
"""

RELOADS = """
import signal, sys, time
signal.signal(signal.SIGHUP, lambda *_: print("reloaded", flush=True))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("up", flush=True)
while True:
    time.sleep(1)
"""

BEGINS_ANEW = """
import os, signal, sys, time
def begin_anew(*_):
    signal.signal(signal.SIGTERM, lambda *_: print("a TERM is lost", flush=True))
    time.sleep(2)
    os.execv(sys.executable, [sys.executable, *sys.argv])
signal.signal(signal.SIGHUP, begin_anew)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("up", flush=True)
while True:
    time.sleep(1)
"""

NOTIFIES = """
import os, signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
time.sleep(0.5)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
    address = os.environ["NOTIFY_SOCKET"]
    out.sendto(b"READY=1", "\\0" + address[1:] if address.startswith("@") else address)
while True:
    print("tick", flush=True)
    time.sleep(0.2)
"""

"""Flood the control socket of an agent-init with pid 1: `python flood.py KIND`, below it, until it is killed."""

from __future__ import annotations

import array
import os
import socket
import struct
import sys
import time

NAME = "\0agent-init/{}/1".format(os.readlink("/proc/self/ns/pid").partition("[")[2].rstrip("]"))
MAX_HELD = 100


def connect() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.settimeout(1)
    made.connect(NAME)
    return made


def garbage() -> None:
    with connect() as made:
        made.send(os.urandom(900))
        made.send(b"COMMAND=\xff\0" + b"A" * 2000)


def silent() -> None:
    held.append(connect())


def unread() -> None:
    held.append(connect())
    held[-1].send(b"COMMAND=events\nFOLLOW=1")


def descriptors() -> None:
    """With SO_LINGER, close(2) of one that has unsent data would wait for a minute."""
    server = socket.create_server(("127.0.0.1", 0))
    sender = socket.create_connection(server.getsockname())
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
    sender.setblocking(False)
    try:
        while True:
            sender.send(b"x" * 65536)
    except BlockingIOError:
        pass
    with connect() as made:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sender.fileno()] * 10))]
        made.sendmsg([b"COMMAND=status"], rights)
    held.append(server)
    sender.close()


def requests() -> None:
    with connect() as made:
        made.send(b"COMMAND=status")
        made.recv(20000)


held: list[socket.socket] = []
KINDS = {f.__name__: f for f in (garbage, silent, unread, descriptors, requests)}

if __name__ == "__main__":
    print(flush=True)
    while True:
        try:
            KINDS[sys.argv[1]]()
        except OSError:  # refused, cut off, or busy
            time.sleep(0.001)
        while len(held) > MAX_HELD:
            held.pop(0).close()

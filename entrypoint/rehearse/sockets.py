"""TCP sockets, as /proc/net/tcp lists them (proc(5))."""

from __future__ import annotations

import os
import threading
import time

LISTEN, TIME_WAIT = "0A", "06"  # states
TIME_WAIT_SECONDS = 61.0  # at most; Linux's TCP_TIMEWAIT_LEN and a little more
LOCAL, REMOTE, STATE, INODE = 1, 2, 3, 9  # columns


def listening(pid: int) -> dict[str, int]:
    """Return the inode numbers of all listening sockets in a process's network namespace, each with its port."""
    return {row[INODE]: int(row[LOCAL].rpartition(":")[2], 16) for row in _rows(str(pid)) if row[STATE] == LISTEN}


def await_end_of_time_wait(cancelled: threading.Event) -> None:
    """Wait until the connections that are closed now no longer have their ports, or until `cancelled`."""
    end = time.monotonic() + TIME_WAIT_SECONDS
    waited_for = _closed()
    while waited_for & _closed() and time.monotonic() < end and not cancelled.wait(0.2):
        pass


def _closed() -> set[tuple[str, str]]:
    return {(row[LOCAL], row[REMOTE]) for row in _rows("self") if row[STATE] == TIME_WAIT}


def _rows(pid: str) -> list[list[str]]:
    found: list[list[str]] = []
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{name}", encoding="ascii") as file:
                found += [row for line in file if len(row := line.split()) > INODE]
        except OSError:
            continue
    return found


def inodes(pid: int) -> set[str]:
    """Return the inode numbers of the sockets that a process has open."""
    found = set()
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                try:
                    target = os.readlink(entry.path)
                except OSError:
                    continue
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    except OSError:
        pass
    return found

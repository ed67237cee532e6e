"""Memory limits and OOM kills of the control group, from files as the kernel writes them."""

from __future__ import annotations

import os
import posix
from typing import TYPE_CHECKING

import pytest

from entrypoint.init.cgroup import Memory

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
V2 = {
    "memory.events": "low 0\nhigh 0\nmax 12\noom 1\noom_kill {kills}\noom_group_kill 0\n",
    "memory.max": f"{64 * MIB}\n",
    "memory.current": f"{60 * MIB}\n",
    "memory.peak": f"{64 * MIB}\n",
    "memory.stat": f"anon 100\nfile 200\ninactive_file {8 * MIB}\nactive_file 5\n",
}
V1 = {
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n",
    "memory.limit_in_bytes": f"{64 * MIB}\n",
    "memory.usage_in_bytes": f"{60 * MIB}\n",
    "memory.max_usage_in_bytes": f"{64 * MIB}\n",
    "memory.stat": f"cache 100\ninactive_file {8 * MIB}\ntotal_inactive_file {8 * MIB}\n",
}


def fill(directory: Path, files: dict[str, str], kills: int = 0) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text.format(kills=kills))


@pytest.mark.parametrize(
    ("files", "place", "own"),
    [
        pytest.param(V2, "", "0::/\n", id="v2, in a container"),
        pytest.param(V2, "system.slice/agent.service", "0::/system.slice/agent.service\n", id="v2, a unit"),
        pytest.param(V2, "", "0::/not/visible/here\n", id="v2, a path of the host"),
        pytest.param(V1, "memory", "9:name=x:/\n4:cpu,memory:/docker/1\n", id="v1, in a container"),
        pytest.param(V1, "memory/docker/1", "9:name=x:/\n4:cpu,memory:/docker/1\n0::/x\n", id="v1, on the host"),
    ],
)
def test_limit_peak_available_bytes_and_kills(tmp_path: Path, files: dict[str, str], place: str, own: str) -> None:
    (tmp_path / "own").write_text(own)
    fill(tmp_path / "fs" / place, files, kills=3)
    memory = Memory(str(tmp_path / "fs"), str(tmp_path / "own"))
    assert (memory.limit, memory.peak, memory.available_bytes, memory.new_kills) == (64 * MIB, 64 * MIB, 12 * MIB, 0)
    fill(tmp_path / "fs" / place, files, kills=5)
    assert memory.new_kills == 2


@pytest.mark.parametrize("pid", [1, 7])
@pytest.mark.parametrize(
    ("files", "place", "own", "is_containers"),
    [
        pytest.param(V2, "", "0::/\n", True, id="v2, in a container"),
        pytest.param(V2, "", "0::/not/visible/here\n", True, id="v2, a path of the host"),
        pytest.param(V2, "system.slice/agent.service", "0::/system.slice/agent.service\n", False, id="v2, a unit"),
        pytest.param(V1, "memory", "4:cpu,memory:/docker/1\n", True, id="v1, in a container"),
        pytest.param(V1, "memory", "4:cpu,memory:/\n", False, id="v1, the topmost group"),
        pytest.param(V1, "memory/docker/1", "4:cpu,memory:/docker/1\n", False, id="v1, on the host"),
    ],
)
def test_a_kill_before_the_first_look_counts_in_a_containers_own_group(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    place: str,
    own: str,
    is_containers: bool,
    pid: int,
) -> None:
    """The agent runs before that: it may be killed in its first milliseconds."""
    (tmp_path / "own").write_text(own)
    fill(tmp_path / "fs" / place, files, kills=1)
    monkeypatch.setattr(posix, "getpid", lambda: pid)
    assert Memory(str(tmp_path / "fs"), str(tmp_path / "own")).new_kills == (1 if is_containers and pid == 1 else 0)


@pytest.mark.parametrize("unlimited", ["max\n", "9223372036854771712\n"])
def test_without_a_limit_nothing_is_known_of_available_bytes(tmp_path: Path, unlimited: str) -> None:
    files, name = (V2, "memory.max") if unlimited == "max\n" else (V1, "memory.limit_in_bytes")
    fill(tmp_path / ("" if files is V2 else "memory"), {**files, name: unlimited})
    memory = Memory(str(tmp_path), str(tmp_path / "none"))
    assert (memory.limit, memory.available_bytes, memory.new_kills) == (None, None, 0)


@pytest.mark.parametrize("text", ["", "x", "-1", "oom_kill\n", "oom_kill x\n", "\n\n"])
def test_figures_that_cannot_be_read_are_none(tmp_path: Path, text: str) -> None:
    fill(tmp_path, dict.fromkeys(V2, text))
    memory = Memory(str(tmp_path), str(tmp_path / "none"))
    assert (memory.new_kills, memory.available_bytes) == (None, None)
    nothing = Memory(str(tmp_path / "nowhere"), str(tmp_path / "none"))
    assert (nothing.limit, nothing.peak, nothing.available_bytes, nothing.new_kills) == (None, None, None, None)


def test_available_bytes_are_never_negative(tmp_path: Path) -> None:
    fill(tmp_path, {**V2, "memory.current": f"{99 * MIB}\n"})
    assert Memory(str(tmp_path), str(tmp_path / "none")).available_bytes == 0


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("memory.max", (None, 64 * MIB, None, 0)),
        ("memory.current", (64 * MIB, 64 * MIB, None, 0)),
        ("memory.peak", (64 * MIB, None, 12 * MIB, 0)),
        ("memory.stat", (64 * MIB, 64 * MIB, 4 * MIB, 0)),
    ],
)
@pytest.mark.parametrize("kind", ["missing", "a directory"])
def test_one_unreadable_file_leaves_the_other_figures(
    tmp_path: Path, kind: str, name: str, figures: tuple[int | None, ...]
) -> None:
    fill(tmp_path, V2)
    (tmp_path / name).unlink()
    if kind == "a directory":
        (tmp_path / name).mkdir()
    opened = len(os.listdir("/proc/self/fd"))
    memory = Memory(str(tmp_path), str(tmp_path / "none"))
    assert (memory.limit, memory.peak, memory.available_bytes, memory.new_kills) == figures
    assert len(os.listdir("/proc/self/fd")) == opened

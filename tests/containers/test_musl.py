"""An image like Alpine's: musl as C library, busybox as shell, no coreutils.

It is built from Debian's packages of musl and busybox, and from Debian's sources of OpenSSL and CPython, compiled for
musl (`musl.sh`). The compilation takes minutes and its result is cached.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import skip_or_fail
from .container import RECORDER, TOLERANCE, Containers, wait_until
from .engine import Engine, NotAvailable
from .first_signal import assert_no_stop_is_lost
from .images import CHANGES, HERE, PIP_SETTINGS, PROJECT, PYTHON, SUITE, build, cached, collect_wheels

BASE, PROBE = "agent-init-test/python:musl", "agent-init-test/probe:musl"

SOURCES = (f"python{PYTHON}/{SUITE}", f"libffi/{SUITE}", f"openssl/{SUITE}", f"zlib/{SUITE}")
NEEDS = ("musl-gcc", "busybox", "gcc", "make", "apt-get")

DOCKERFILE = f"""\
FROM {BASE}
COPY wheels /wheels
ENV {PIP_SETTINGS}
RUN pip install --no-cache-dir agent-init
COPY programs /probe
COPY agent.py /app/
ENTRYPOINT ["agent-init", "--"]
"""


def root_file_system() -> Path:
    """A tar file of the root file system. Raises NotAvailable."""
    missing = [name for name in NEEDS if shutil.which(name) is None]
    if missing:
        raise NotAvailable(f"making an image with musl takes {', '.join(missing)} (Debian: musl-tools, busybox-static)")
    script = HERE / "musl.sh"
    with cached("musl", script.read_text(), ".tar") as (path, to_be_made):
        if to_be_made:
            with tempfile.TemporaryDirectory(prefix="agent-init-musl-") as folder:
                sources, root = Path(folder, "sources"), Path(folder, "root")
                root.mkdir()
                fetch_sources(sources)
                log = Path(folder, "log")
                with log.open("wb") as output:
                    made = subprocess.run(["sh", script, sources, root], stdout=output, stderr=output)
                assert made.returncode == 0, log.read_text(errors="replace")[-3000:]
                partial = path.with_suffix(".partial")
                subprocess.run(["tar", "--create", "--file", partial, "--directory", root, "."], check=True)
                partial.rename(path)
    return path


def fetch_sources(folder: Path) -> None:
    """Download Debian's source archives from this machine's package sources. Raises NotAvailable."""
    lists = folder / "apt"
    (lists / "state" / "partial").mkdir(parents=True)
    (lists / "parts").mkdir()
    for path in (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d/debian.sources")):
        if path.exists():
            text = path.read_text().replace("Types: deb\n", "Types: deb-src\n")
            lines = ["deb-src " + line[4:] if line.startswith("deb ") else line for line in text.splitlines()]
            name = "debian.sources" if path.suffix == ".sources" else "debian.list"
            (lists / "parts" / name).write_text("\n".join(lines) + "\n")
    settings = (
        "Dir::Etc::sourcelist=/dev/null",
        f"Dir::Etc::sourceparts={lists}/parts",
        f"Dir::State::lists={lists}/state",
    )
    apt = ["apt-get", "--quiet", *(word for setting in settings for word in ("-o", setting))]
    for arguments in (["update"], ["source", "--download-only", *SOURCES]):
        done = subprocess.run([*apt, *arguments], cwd=folder, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise NotAvailable(f"no sources of {', '.join(SOURCES)}: {done.stderr[-500:]}")


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    """An image with agent-init and the tests' programs."""
    try:
        tar = root_file_system()
    except NotAvailable as error:
        skip_or_fail(str(error))
    changes = [word for change in CHANGES for word in ("--change", change)]
    engine("import", *changes, str(tar), BASE, timeout=300)
    with tempfile.TemporaryDirectory(prefix="agent-init-context-") as folder:
        collect_wheels(Path(folder, "wheels"), ("musllinux_1_2", "musllinux_1_1"))
        shutil.copytree(HERE / "programs", Path(folder, "programs"), ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PROJECT / "examples" / "agent.py", folder)
        build(engine, PROBE, Path(folder), DOCKERFILE)
    return PROBE


@pytest.fixture
def musl(image: str, engine: Engine) -> Iterator[Containers]:
    with Containers(engine, image) as made:
        yield made


def test_environment_is_the_intended_one(musl: Containers) -> None:
    """musl, busybox, the musl wheels of psutil and uvloop, and the launcher."""
    code = (
        "import os, sysconfig, psutil._psutil_linux, uvloop.loop; print(sysconfig.get_config_var('SOABI'))\n"
        "print(os.readlink('/bin/sh'))\n"
        "maps = {line.split()[-1] for line in open('/proc/self/maps') if 'musl' in line}\n"
        "print(any('ld-musl-' in name for name in maps), any('uvloop/loop' in name for name in maps))\n"
        "print(open('/usr/local/bin/agent-init', 'rb').read(4), open('/proc/1/comm').read().strip())\n"
    )
    container = musl.run("python", "-c", code, ready=None)
    assert container.wait_for_exit().code == 0
    soabi, shell, loaded, command = container.output()
    assert soabi.endswith("-linux-musl")
    assert shell == "busybox"
    assert loaded == "True True"
    assert command == r"b'\x7fELF' agent-init"


def test_example_agent_runs_on_uvloop(musl: Containers) -> None:
    """The example agent runs on uvloop's musl wheel and handles the stop signal."""
    container = musl.run("python", "/app/agent.py", ready=None)
    wait_until(lambda: any("ready, on uvloop" in line for line in container.output()), "the agent is ready, on uvloop")
    ended, seconds = container.stop()
    assert ended.code == 0
    assert seconds < 10
    assert "cleaned up" in container.output()[-1]
    assert container.other_stderr_lines() == []


def test_stop_passes_the_agents_exit_code_on(musl: Containers) -> None:
    container = musl.run(*RECORDER, "--code=3")
    ended, seconds = container.stop()
    assert ended.code == 3
    assert seconds < 10
    assert container.signals() == ["TERM"]
    assert [line["event"] for line in container.events()] == ["started", "stop-requested", "ended"]
    assert container.event("stop-requested")["sender"] == "outside the container"  # signalfd, through musl
    assert container.other_stderr_lines() == []


def test_no_stop_is_lost(musl: Containers) -> None:
    assert_no_stop_is_lost(musl)


def test_agent_behind_busybox_sh_gets_the_signal(musl: Containers) -> None:
    """busybox's `sh -c` does not exec its last command and handles no signal."""
    container = musl.run("sh", "-c", "python /probe/recorder.py --code=3; exit $?")
    ended, seconds = container.stop()
    assert ended.code == 3
    assert seconds < 10
    assert container.signals() == ["TERM"]
    assert container.events("looked-through")


def test_signals_are_forwarded_or_shielded(musl: Containers) -> None:
    container = musl.run(*RECORDER, "--handle=TERM,USR1")
    container.signal("USR1")
    container.wait_for_line("got USR1")
    container.signal("USR2")
    container.wait_for_events("shielded")
    container.signal("HUP")
    assert container.wait_for_exit().code == 0
    assert container.signals() == ["USR1", "TERM"]


def test_orphans_are_reaped_and_leftover_processes_stopped(musl: Containers) -> None:
    container = musl.run(*RECORDER, "--orphans=3", "--children=1", ready=None, VERBOSE="1")
    container.wait_for_line("ready", times=2)
    assert len(container.wait_for_events("reaped", times=3)) == 3
    ended, _ = container.stop()
    assert ended.code == 0
    assert container.signals() == ["TERM", "TERM"]
    assert container.output().count("cleaned up") == 2


def test_agent_that_ignores_the_stop_is_killed_at_the_deadline(musl: Containers) -> None:
    container = musl.run(*RECORDER, "--stop-on=", "--children=1", ready=None, GRACE="2s")
    container.wait_for_line("ready", times=2)
    ended, seconds = container.stop("-t", "60")
    assert ended.code == 137
    assert 2 <= seconds < 2 + TOLERANCE
    assert len(container.event("deadline")["processes"]) == 2


def test_command_not_found_is_127(musl: Containers) -> None:
    container = musl.run("no-such-program", ready=None)
    assert container.wait_for_exit().code == 127
    assert "not found in PATH" in container.event("not-started")["message"]

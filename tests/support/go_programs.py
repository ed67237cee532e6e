"""Build programs from Go's module proxy, once; the binaries are kept in the tests' cache.

`GOFLAGS`, `GOPROXY` and Go's own caches are those of the user.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.agents import environments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REFUSED = re.compile(r"""([^\s"]+@v[^\s:"]+): ([^"]*)""")
REPLACED = re.compile(r"^\s*(?:replace\s+)?(\S+) => (\./\S+)", re.MULTILINE)


class BuildFailed(Exception):
    """The text is one line. If the module proxy refuses a module, it names the module."""


def programs(
    module: str, version: str, packages: Sequence[str], *, ldflags: str = "", local: str | None = None
) -> Path:
    """Return the folder with the programs of these packages of a module; build them if they are missing.

    `local`: the version of the modules that the module's go.mod takes from its own tree: the proxy has them apart.
    Raises BuildFailed.
    """
    name = module.rpartition("/")[2]
    recipe = json.dumps([module, version, sorted(packages), ldflags, local])
    folder = environments.cache() / f"{name}-{version}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    with environments._made_once(folder) as missing:
        if missing:
            if shutil.which("go") is None:
                raise BuildFailed(f"building {module} takes Go (Debian: golang-go)")
            folder.mkdir(parents=True)
            _build(folder, module, version, packages, ldflags, local)
    return folder


def _build(folder: Path, module: str, version: str, packages: Sequence[str], ldflags: str, local: str | None) -> None:
    with tempfile.TemporaryDirectory(prefix="agent-init-go-") as made:
        wrapper = Path(made)
        found = json.loads(_go(wrapper, "mod", "download", "-json", f"{module}@{version}"))
        go_mod = Path(found["GoMod"]).read_text()
        lines = ["module agent-init-tests", *re.findall(r"^(?:go|godebug) \S.*$", go_mod, re.MULTILINE)]
        lines += [f"require {module} {version}"]
        lines += [f"replace {name} => {name} {local}" for name, _ in REPLACED.findall(go_mod) if local]
        (wrapper / "go.mod").write_text("\n".join(lines) + "\n")
        # Half the time of a build: no debugging information, not optimized.
        flags = ("-mod=mod", "-trimpath", f"-ldflags=-s -w {ldflags}", "-gcflags=all=-dwarf=false -N -l")
        _go(wrapper, "build", *flags, "-o", f"{folder}/", *(f"{module}/{package}" for package in packages))


def _go(folder: Path, *arguments: str) -> str:
    """Run `go` in a folder and return its output. Raises BuildFailed."""
    variables = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false"}
    done = subprocess.run(["go", *arguments], cwd=folder, env=variables, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildFailed(_reason(done.stdout + done.stderr))
    return done.stdout


def _reason(output: str) -> str:
    """Return the line of Go's output that says why: of a refused module, its name first."""
    lines = [line for line in output.splitlines() if line.strip()]
    for line in lines:
        if refused := REFUSED.search(line):
            return f"Go's module proxy does not provide {refused[1]}: {refused[2]}"
    return lines[-1] if lines else "go failed, and printed nothing"


def main(build: Callable[[], Path]) -> int:
    """Build the programs and print where they are, or why they could not be built; return the exit code."""
    try:
        print(build())
    except BuildFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0

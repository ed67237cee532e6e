"""The image that the pods run, as a docker-archive: the tests' Debian, with the project's own image on it.

The first layer is the root that tests/containers makes. The second has what `Dockerfile.example` adds: agent-init and
what it depends on, in the base's Python, and the example agent; and tini and the tests' programs.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.containers import images

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
NAME = "agent-init.test/agent:1"
EXAMPLE = "my-agent:1.0"  # the name in the examples
LIBRARY, BIN = "/usr/local/lib/python3.11/site-packages", "/usr/local/bin"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def make(folder: Path, name: str = NAME, *, wanted: Sequence[str] = (), more: Mapping[str, Path] | None = None) -> Path:
    """Write the archive of an image into a folder, and return its path.

    `wanted`: arguments of `pip install`, for what the agents need; `more`: files, their paths in the image and here.
    Raises NotAvailable of tests.containers.engine.
    """
    base = images.debian()
    with tempfile.TemporaryDirectory(prefix="agent-init-image-") as made:
        wheels, installed = Path(made) / "wheels", Path(made) / "installed"
        images.collect_wheels(wheels)
        if wanted:
            images.download(wheels, *wanted)
        subprocess.run(
            [
                *(*images.PIP, "install", "--no-index", "--no-deps", "--no-compile", "--target", str(installed)),
                *("--only-binary=:all:", "--implementation", "cp", "--python-version", images.PYTHON),
                *(word for name in images.MANYLINUX for word in ("--platform", f"{name}_{platform.machine()}")),
                *map(str, wheels.glob("*.whl")),
            ],
            check=True,
        )
        files = {f"{LIBRARY}/{file.relative_to(installed)}": file for file in installed.rglob("*") if file.is_file()}
        files = {name: file for name, file in files.items() if not name.startswith(f"{LIBRARY}/bin/")}
        for own in ("agent-init", "agent-initctl"):
            command = installed / "bin" / own  # the launcher needs no interpreter's path
            command.write_bytes(re.sub(rb"\A#!.*", f"#!{BIN}/python".encode(), command.read_bytes()))
            files[f"{BIN}/{own}"] = command
        files["/usr/bin/tini"] = Path(shutil.which("tini") or "tini")
        files["/app/agent.py"] = PROJECT / "examples" / "agent.py"
        files |= {f"/probe/{file.name}": file for file in (HERE / "programs").glob("*.py")} | dict(more or {})
        layer = Path(made) / "layer.tar"
        pack_layer(layer, files)
        archive = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:12]}.tar"
        pack(archive, name, [base, layer], _settings(), also=(EXAMPLE,) if name == NAME else ())
    return archive


def _settings() -> dict[str, object]:
    """What `Dockerfile.example` says about the container."""
    lines = (PROJECT / "Dockerfile.example").read_text().splitlines()
    found = {word: rest for word, _, rest in (line.partition(" ") for line in lines)}
    path = ":".join((BIN, "/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"))
    return {
        "Entrypoint": json.loads(found["ENTRYPOINT"]),
        "Cmd": json.loads(found["CMD"]),
        "WorkingDir": found["WORKDIR"],
        "User": found["USER"],
        "Env": [f"PATH={path}", "LANG=C.UTF-8"],
    }


def pack_layer(layer: Path, files: Mapping[str, Path]) -> None:
    """Write a layer with these files, owned by root: their paths in the image, and here."""
    with tarfile.open(layer, "w") as tar:
        for name, file in sorted(files.items()):
            tar.add(file, name.lstrip("/"), filter=_owned_by_root)


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mode |= 0o444 | (0o111 if member.mode & 0o100 else 0)
    return member


def pack(
    archive: Path, name: str, layers: Sequence[Path], settings: Mapping[str, object], also: Sequence[str] = ()
) -> None:
    """Write a docker-archive of layers (uncompressed tar files), as `docker save` does."""
    digests = [hashlib.sha256(layer.read_bytes()).hexdigest() for layer in layers]
    content = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": dict(settings),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created_by": "tests"} for _ in layers],
    }
    config = json.dumps(content).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    names = [f"{digest}/layer.tar" for digest in digests]
    manifest = [{"Config": config_name, "RepoTags": [name, *also], "Layers": names}]
    with tarfile.open(archive, "w") as tar:
        for member, data in ((config_name, config), ("manifest.json", json.dumps(manifest).encode())):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for member, layer in zip(names, layers, strict=True):
            tar.add(layer, member)

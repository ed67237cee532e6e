"""The wheel's commands: this project's Python files, or the launchers for the machine that AGENT_INIT_LAUNCHER names.

The man pages of both are made here, too. Without the variable (`pip install .`, an editable installation, the pure
wheel) no C compiler is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import shutil
import tempfile
import tomllib
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "AGENT_INIT_LAUNCHER"
COMMANDS = {"agent-init": "launcher/agent-init.py", "agent-initctl": "entrypoint/ctl/__main__.py"}


class Hook(BuildHookInterface):  # type: ignore[type-arg]
    """Called by hatchling for each wheel."""

    scratch = ""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Choose the commands, the tags and the SBOM; make the man pages."""
        machine = os.environ.get(VARIABLE, "") if version == "standard" else ""
        self.scratch = tempfile.mkdtemp(prefix="agent-init-wheel-")
        for page in self.run("manual.py")["write"](Path(self.scratch, "man")):
            build_data["shared_data"][str(page)] = f"share/man/man1/{page.name}"
        if not machine:
            # The files themselves and not console scripts made by the installer: those may import `re` first.
            build_data["shared_scripts"].update({file: command for command, file in COMMANDS.items()})
            return
        compiling = self.run("compile.py")
        if machine not in compiling["TARGETS"]:
            raise SystemExit(f"{VARIABLE}={machine}: no such machine; one of {', '.join(compiling['TARGETS'])}")
        compiled = [Path(self.scratch, command) for command in COMMANDS]
        for launcher in compiled:
            compiling["with_zig"](machine, launcher)
            build_data["shared_scripts"][str(launcher)] = launcher.name
        build_data["tag"] = f"py3-none-{compiling['TARGETS'][machine].tags}"
        build_data["pure_python"] = False
        sbom = Path(self.scratch, "agent-init.cdx.json")
        sbom.write_text(self.sbom(machine, compiled))
        build_data["sbom_files"].append(str(sbom))

    def run(self, name: str) -> dict[str, Any]:
        """Return what a file of this folder defines."""
        return runpy.run_path(os.path.join(self.root, "launcher", name))

    def dependencies(self) -> list[str]:
        """The compiler, where there is something to compile: the one version that the release is built with."""
        if not os.environ.get(VARIABLE):
            return []
        with open(os.path.join(self.root, "pyproject.toml"), "rb") as file:
            group = tomllib.load(file)["dependency-groups"]["release"]
        return [name for name in group if isinstance(name, str) and name.startswith("ziglang")]

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made."""
        if self.scratch:
            shutil.rmtree(self.scratch)

    def sbom(self, machine: str, compiled: list[Path]) -> str:
        """What the compiled files are made of: CycloneDX 1.6, in the place that PEP 770 gives it."""
        release = self.metadata.version
        tools = [
            {"type": "application", "name": name, "version": version_of(name)} for name in ("hatchling", "ziglang")
        ]
        binaries = [
            {
                "type": "application",
                "bom-ref": f"launcher of {launcher.name}",
                "name": f"{launcher.name} launcher for {machine}",
                "version": release,
                "description": "launcher/launcher.c, static; no other code is in it, and no C library",
                "licenses": [{"license": {"id": "MIT"}}],
                "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(launcher.read_bytes()).hexdigest()}],
            }
            for launcher in compiled
        ]
        references = [binary["bom-ref"] for binary in binaries]
        project = {
            "type": "application",
            "bom-ref": "agent-init",
            "name": "agent-init",
            "version": release,
            "purl": f"pkg:pypi/agent-init@{release}",
            "licenses": [{"license": {"id": "MIT"}}],
        }
        document = {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {"component": project, "tools": {"components": tools}},
            "components": binaries,
            "dependencies": [
                {"ref": "agent-init", "dependsOn": references},
                *({"ref": reference} for reference in references),
            ],
        }
        return json.dumps(document, indent=2, sort_keys=True) + "\n"

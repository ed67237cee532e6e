"""A build that the registry refuses fails, and names the module."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import go_programs

MODULE, VERSION = "example.org/refused", "v1.0.0"


@pytest.fixture
def refusing_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module proxy that has the go.mod of one module, and nothing of what it needs; and an empty cache."""
    versions = tmp_path / "proxy" / MODULE / "@v"
    versions.mkdir(parents=True)
    monkeypatch.setenv("GOPROXY", f"file://{tmp_path}/proxy")
    monkeypatch.setenv("GONOSUMDB", "*")
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("AGENT_INIT_TEST_CACHE", str(tmp_path / "cache"))
    return versions


def test_refused_module_is_named(refusing_proxy: Path) -> None:
    with pytest.raises(go_programs.BuildFailed, match=f"does not provide {MODULE}@{VERSION}") as raised:
        go_programs.programs(MODULE, VERSION, ["cmd/server"])
    assert "\n" not in str(raised.value)


def test_failed_build_is_tried_again(refusing_proxy: Path) -> None:
    for _ in range(2):
        with pytest.raises(go_programs.BuildFailed):
            go_programs.programs(MODULE, VERSION, ["cmd/server"])


@pytest.mark.parametrize(
    ("output", "module"),
    [
        (
            "go: github.com/pion/x@v1.2.3: reading https://proxy/x/@v/v1.2.3.zip: 404 Not Found",
            "github.com/pion/x@v1.2.3",
        ),
        (
            'go: downloading a v1\n/m/main.go:3:2: github.com/a/b@v0.1.0: Get "https://proxy/b": dial tcp: refused',
            "github.com/a/b@v0.1.0",
        ),
        ("go: a@v1.0.0 requires\n\tb@v2.0.0: reading https://proxy/b: 403 Forbidden", "b@v2.0.0"),
    ],
)
def test_module_is_found_in_what_go_prints(output: str, module: str) -> None:
    assert go_programs._reason(output).startswith(f"Go's module proxy does not provide {module}: ")

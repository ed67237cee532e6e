"""The share of a processor that a control group has, from files as the kernel writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from entrypoint.init import cpu_limit

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("files", "own", "cpus"),
    [
        ({"cpu.max": "8000 100000\n"}, "0::/\n", 0.08),
        ({"cpu.max": "max 100000\n"}, "0::/\n", None),
        ({"a/cpu.max": "250000 100000\n"}, "0::/a\n", 2.5),
        ({"a/cpu.max": "8000 100000\n"}, "0::/../b\n", None),
        ({"cpu/cpu.cfs_quota_us": "8000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "3:cpu,cpuacct:/docker/1\n", 0.08),
        ({"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, "3:cpuacct,cpu:/a\n", None),
        ({"cpu/a/cpu.cfs_quota_us": "5000\n", "cpu/a/cpu.cfs_period_us": "10000\n"}, "0::/\n3:cpu:/a\n", 0.5),
        ({"cpu/cpu.cfs_quota_us": "5000\n", "cpu/cpu.cfs_period_us": "0\n"}, "3:cpu:/\n", None),
        ({"cpu/cpu.cfs_quota_us": "5000\n"}, "3:cpu:/\n", None),
        ({"cpu.max": "8000 100000\n"}, "3:cpu:/\n", 0.08),
        ({"cpu/cpu.cfs_quota_us": "5000\n", "cpu/cpu.cfs_period_us": "10000\n"}, "0::/\n", 0.5),
        ({}, "", None),
    ],
)
def test_the_share_of_a_processor_is_the_quota_of_the_group(
    tmp_path: Path, files: dict[str, str], own: str, cpus: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    (tmp_path / "own").write_text(own)
    assert cpu_limit.cpus(str(tmp_path / "root"), str(tmp_path / "own")) == cpus

"""How much processor time our control group may use. The agent's start waits for this where a grace period is set.

From cgroup v2 (cpu.max) or v1 (cpu.cfs_quota_us, cpu.cfs_period_us), as the kernel's admin-guide/cgroup-v2 and
scheduler/sched-bwc have them.
"""

from ..paths import fsdecode, read_or_empty

V2, V1 = ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")


def cpus(root: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> float | None:
    """Return how many processors the group may use, such as 0.08; None for no limit, or if that is not known."""
    paths = group_paths(own, b"cpu")
    on_v2 = [(root + paths.get(b"", ""), V2), (root, V2)]
    on_v1 = [(f"{root}/cpu{paths.get(b'cpu', '')}", V1), (f"{root}/cpu", V1)]
    for directory, names in (on_v1 + on_v2) if b"cpu" in paths else (on_v2 + on_v1):
        figures = [figure for name in names for figure in read_or_empty(f"{directory}/{name}").split()]
        if len(figures) == 2:
            quota, period = figures
            return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None
    return None


def group_paths(own: str, controller: bytes) -> dict[bytes, str]:
    """Return the paths of our group below the mounts, by controller: that one's on v1, and v2's by an empty name.

    One that the kernel does not list in `own` is left out: a controller that is not on v1, or v2 where it is not there.
    """
    paths: dict[bytes, str] = {}
    for line in read_or_empty(own).splitlines():
        _, _, rest = line.partition(b":")
        controllers, _, path = rest.partition(b":")
        for name in controllers.split(b","):  # of v2's line, one empty name
            if name in (b"", controller):
                paths[name] = fsdecode(path).rstrip("/")
    return paths

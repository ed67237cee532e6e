"""Fixtures: one cluster for all tests, and what the trials came to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers import engine
from tests.support import go_programs

from . import cluster as clusters
from . import image
from .cluster import Cluster
from .pods import Watch
from .running import Run, run_restarts, run_together

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
HTTP = ("h11", "prometheus-client")  # the extra `http`
TEST_TIMEOUT = 3600  # seconds, including the build, on a busy machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster with the image."""
    try:
        with clusters.running_cluster() as made:
            made.import_image(image.make(made.root, wanted=HTTP))
            yield made
    except (clusters.NotAvailable, engine.NotAvailable) as error:
        pytest.skip(str(error))
    except go_programs.BuildFailed as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def watch(cluster: Cluster) -> Watch:
    return Watch(cluster)


@pytest.fixture(scope="session")
def together(watch: Watch) -> Run:
    """The trials that run at the same time."""
    return run_together(watch)


@pytest.fixture(scope="session")
def restarts(watch: Watch, together: Run) -> Run:
    """Those during which a program of the node is killed and started again."""
    return run_restarts(watch)

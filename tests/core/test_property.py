"""Users, faults and workers in any order, on both databases: rows and cluster agree with the model."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.core.property_bench import bench

STEPS = 500
QUICK = settings(
    max_examples=18,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(600)
def test_500_steps_agree_with_the_model(db_url: str, tmp_path: Path) -> None:
    with bench(db_url, tmp_path) as platform:
        run_state_machine_as_test(platform, settings=QUICK)
        assert platform.steps >= STEPS

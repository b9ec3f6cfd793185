"""The whole table, sent by the twin: each request gets the status that the client needs, and the answers make
the prints that the rows expect."""

from pathlib import Path

import pytest

from tests.client.story import begin
from tests.client.table import STORY
from tests.client.twin import Twin
from tests.platform import Platform


@pytest.mark.e2e
@pytest.mark.timeout(300)
async def test_the_table_holds_from_login_to_destroy(platform: Platform, tmp_path: Path) -> None:
    story = await begin(platform)
    twin = Twin(story.facts("v1.10.2", platform.controller, tmp_path), platform.http_port)
    await story.tell(STORY, twin)
    assert not twin.faults, "\n".join(twin.faults)

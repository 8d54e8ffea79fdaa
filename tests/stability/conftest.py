"""What the tests of stability share: what is published."""

import pytest

from effective_lr.evidence import tidy
from effective_lr.evidence.tidy import Tables
from shared import published_layout


@pytest.fixture(scope="session")
def published() -> Tables:
    layout = published_layout()
    return tidy.read(layout.chapters["stability"], layout.tables("stability"))

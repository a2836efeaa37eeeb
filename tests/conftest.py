"""For pytest: what trial does on its own."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def scratch_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run in a folder of its own, where ``mktemp`` makes its files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trial"))
        yield

"""For all tests: linear algebra on one thread, no deadline for a single example of hypothesis, figures drawn quickly, and a word on
what was left out."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import settings

# pytest itself keeps every core busy, and threads that wait for one another make small SVDs many times slower then.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read once, when numpy is loaded

settings.register_profile("unhurried", deadline=None)  # a busy machine is no error
settings.load_profile("unhurried")


@pytest.fixture(scope="module", autouse=True)
def quick_figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Figures are saved small, and with nothing moved out of anything's way: that takes longer than a study of a small space.

    Modules whose name ends in "figures" test what figures look like, and have them as they are.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not request.path.stem.endswith("figures"):
            patch.setattr("matplotlib.layout_engine.ConstrainedLayoutEngine.execute", lambda engine, figure: None)
            patch.setattr("formulation.records.files._RESOLUTION", 30)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that load PyTorch come first: they are the longest, and one that began last would keep one worker busy alone."""
    items.sort(key=lambda item: not {"merino_net", "studies"} & set(item.path.parts[-2:-1]))


LEFT_OUT = pytest.StashKey[int]()
"""How many tests marked slow are not run."""


class LeftOut:
    """Counts the slow tests that are left out and says so at the end; under pytest-xdist nothing else does."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        config.stash[LEFT_OUT] = 0

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self._config.stash[LEFT_OUT] += sum(item.get_closest_marker("slow") is not None for item in items)

    def pytest_sessionfinish(self) -> None:
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput["left_out"] = self._config.stash[LEFT_OUT]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self._config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", 0)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if count := self._config.stash[LEFT_OUT]:
            terminalreporter.write_line(f"{count:,} slow tests were left out; make test ARGS='-m slow' runs them")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(LeftOut(config))

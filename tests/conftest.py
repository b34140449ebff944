"""What every test starts from."""

import gc
import signal
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

# A shell that runs the tests in the background has them, and whatever they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says something of the machine and what else it does, and nothing of the property.
settings.register_profile("whatever the machine does", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("whatever the machine does")


LONG: Final = (
    "tests/simulation/test_schedules.py",
    "tests/faults/test_fixed_rows.py",
    "tests/system/test_cancel_at_every_phase.py",
    "tests/system/test_qemu_crashes.py",
    "tests/under_systemd/test_daemons_under_systemd.py",
    "tests/under_systemd/test_operations_page.py",
    "tests/versions/test_restarts_as_the_other_version.py",
    "tests/system/test_orchestrator_restart.py",
    "tests/system/test_recovery_by_hand.py",
    "tests/system/test_two_orchestrators.py",
)
"""Files that take a minute or more: they begin first, so that no worker is left alone with one at the end."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have long files begin first; all others stay in the order that was drawn."""
    items.sort(key=lambda item: LONG.index(file) if (file := item.nodeid.partition("::")[0]) in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """Keep what was collected, which stays to the end, out of the collector's way: agents have it collect."""
    gc.collect()
    gc.freeze()

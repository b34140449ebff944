"""The page of updates against the codes that there are."""

import re
from pathlib import Path

from vmm.update.blockers import UpdateBlockerCode

PAGE = (Path(__file__).parents[2] / "docs" / "update.md").read_text()


def test_every_code_that_keeps_a_machine_in_its_process_is_explained() -> None:
    told = re.findall(r"^\| `([a-z-]+)` \|", PAGE.partition("## What keeps a machine in its process")[2], re.MULTILINE)
    assert set(UpdateBlockerCode) <= set(told)
    assert len(told) == len(set(told))

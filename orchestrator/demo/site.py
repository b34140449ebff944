"""The demo's site: certificates, broker, two hosts with two agents each, an orchestrator; all real, all on loopback."""

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from orchestrator.demo.scene import HOSTS, SITE, DemoOptions
from vm_migration.daemon.broker import local_broker
from vm_migration.daemon.configuration import Configuration, load
from vm_migration.loopback.site import SitePlan, running_site

_BESIDES: Final = 64 << 20


@contextlib.asynccontextmanager
async def demo_site(options: DemoOptions) -> AsyncIterator[Configuration]:
    """Run the site; yield the operator's configuration. Nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="viaduct-") as name:
        async with local_broker() as broker:
            plan = SitePlan(
                SITE,
                HOSTS,
                memory_budget=2 * options.memory + _BESIDES,
                broker=broker,
                orchestrator=True,
                insecure=options.insecure,
            )
            async with running_site(Path(name), plan) as path:
                yield load(path, {}, insecure=options.insecure)

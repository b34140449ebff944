"""Brokers for the tests of the status publisher."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.vm_migration.daemon.mqtt_brokers import Mosquitto, RunningBroker
from vm_migration.daemon.broker import local_broker


@pytest.fixture
async def mosquitto(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    async with Mosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture(params=["amqtt", "mosquitto"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RunningBroker]:
    if request.param == "amqtt":
        async with local_broker() as url:
            host, _, port = url.removeprefix("mqtt://").partition(":")
            yield RunningBroker("amqtt", host, int(port))
        return
    async with Mosquitto(tmp_path) as server:
        yield server.running

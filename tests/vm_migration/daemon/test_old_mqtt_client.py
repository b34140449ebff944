"""The one file that imports the MQTT client also works with the library under its old name, asyncio-mqtt."""

import asyncio
import os
import sys
from pathlib import Path

from tests.vm_migration.daemon.mqtt_brokers import RunningBroker

ROOT = Path(__file__).parents[3]
PROGRAM = """
import asyncio, sys
from vm_migration.daemon import mqtt
from vm_migration.daemon.broker_url import parse_broker
from vm_migration.daemon.mqtt_version import BrokerGone, find_version
from vm_migration.daemon.publication import Publication

async def main():
    assert mqtt.OLD_NAME and "aiomqtt" not in sys.modules
    broker = parse_broker(sys.argv[1])
    version = await find_version(broker, None)
    will = Publication("viaduct/v1/home/old/status", b"offline", retain=True)
    async with mqtt.connect(broker, "old", will, version) as connection:
        lost = asyncio.create_task(connection.lost())
        online = Publication("viaduct/v1/home/old/status", b"online", properties=(("schema", "s"),))
        await connection.publish(online, 60)
        await connection.publish(Publication("viaduct/v1/home/old/progress", b"1", qos=0))
        lost.cancel()
    print(version.name)

asyncio.run(main())
"""


async def finished(*command: str, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=os.environ | environment, cwd=ROOT
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_it_publishes_through_asyncio_mqtt(broker: RunningBroker, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    install = (sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check")
    locked = ROOT / "tests" / "asyncio-mqtt.lock"
    await finished(*install, "--no-deps", "--require-hashes", "--target", str(packages), "-r", str(locked))
    async with broker.reader() as reader:
        # Without site-packages (-S) there is no aiomqtt, as on a machine that has the old package only.
        path = os.pathsep.join([str(packages), str(ROOT)])
        version = await finished(sys.executable, "-S", "-c", PROGRAM, broker.url, PYTHONPATH=path)
        messages = await reader.until(lambda messages: len(messages) == 2)
    assert version.strip() == ("V5" if broker.kind == "mosquitto" else "V311")
    assert [message.payload for message in messages] == ["online", "1"]

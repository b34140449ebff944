"""Real messages against their description, docs/asyncapi.yaml."""

import re
import time
from pathlib import Path

import jsonschema
import yaml

from tests.vm_migration.daemon.mqtt_brokers import Received, RunningBroker
from tests.vm_migration.daemon.published_site import (
    ATTEMPT,
    EVACUATION,
    OWNER,
    TOPICS,
    Journal,
    connected,
    event,
    progress,
    publisher,
    state,
)
from vm_migration.daemon import status_documents as documents
from vm_migration.daemon.broker_url import parse_broker
from vm_migration.daemon.status_publisher import StatusPublisher

ROOT = Path(__file__).parents[3]


async def test_real_messages_are_as_described(broker: RunningBroker) -> None:
    journal = Journal()
    journal.add(OWNER)
    journal.add(EVACUATION)
    journal.add(documents.state_message(TOPICS, state(1, "completed"), time.time() + 3600))
    journal.add(event(2, documents.Problem(code="timeout", message="Too long", hint="Try again")))
    async with broker.reader() as reader:
        async with publisher(broker.url, journal) as status:
            await connected(status)
            status.progress(ATTEMPT, progress(41))
            await reader.until_topic("/progress")
        async with StatusPublisher(
            parse_broker(broker.url), status_topic=TOPICS.agent("host-a", "dest"), identifier="agent"
        ) as agent:
            await connected(agent)
        await reader.until_topic("/dest/status", 2)
    description = Description()
    for message in reader.messages:
        description.check(message)
    assert description.used == set(description.channels)


class Description:
    """docs/asyncapi.yaml."""

    def __init__(self) -> None:
        self.document = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text(encoding="utf-8"))
        self.channels = self.document["channels"]
        self.used: set[str] = set()

    def check(self, message: Received) -> None:
        [name] = [name for name, channel in self.channels.items() if self._matches(channel["address"], message.topic)]
        self.used.add(name)
        [kind] = self.channels[name]["messages"]
        schema = {"$ref": f"#/components/schemas/{kind}", "components": self.document["components"]}
        checker = jsonschema.Draft7Validator.FORMAT_CHECKER
        jsonschema.Draft7Validator(schema, format_checker=checker).validate(message.document)
        [binding] = [
            operation["bindings"]["mqtt"]
            for operation in self.document["operations"].values()
            if operation["channel"]["$ref"] == f"#/channels/{name}"
        ]
        if message.properties:  # from mosquitto; amqtt delivers with the subscription's QoS
            assert message.qos == binding["qos"]
            assert message.properties["content-type"] == self.document["defaultContentType"]
            assert message.properties["payload-format-indicator"] == 1
            user = message.properties["user-properties"]
            facts = {"schema", "attempt", "epoch", "evacuation"} & set(message.document)
            assert user == {fact: str(message.document[fact]) for fact in facts}

    @staticmethod
    def _matches(address: str, topic: str) -> bool:
        return re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(address)), topic) is not None

"""The one file that imports the MQTT client library.

It is aiomqtt, once named asyncio-mqtt; under that name it needs paho-mqtt below 2, and works here too: a test runs this
file against both. Every failure is a BrokerGone.
"""

import contextlib
import functools
import importlib.util
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Final

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from vm_migration.daemon.broker_url import Broker
from vm_migration.daemon.mqtt_version import ANSWER_SECONDS, BrokerGone, Version, tls_context
from vm_migration.daemon.publication import Publication

OLD_NAME: Final = importlib.util.find_spec("aiomqtt") is None
if TYPE_CHECKING:
    from paho.mqtt.reasoncodes import ReasonCode
if TYPE_CHECKING or not OLD_NAME:
    import aiomqtt
else:
    import asyncio_mqtt as aiomqtt

KEEPALIVE_SECONDS: Final = 20
MOST_UNANSWERED: Final = 512
"""Publications at a time that are waited for; above that the library warns."""


class Connection:
    """A live connection to a broker."""

    def __init__(self, client: "aiomqtt.Client", version: Version) -> None:
        self._client = client
        self.version = version
        self.refusal = ""
        """Why the broker did not take a publication, where it said so (MQTT 5, 3.4.2.1); empty until then."""
        self._hear_refusals()

    async def publish(self, publication: Publication, seconds: int | None = None) -> None:
        """Hand a message to the broker; with QoS 1, return when it has said that it has it.

        From MQTT 5 on the broker drops the message after so many seconds.

        Raises:
            BrokerGone: It did not; whether it has the message is not known.
        """
        properties = _properties(publication, seconds) if self.version is Version.V5 else None
        with _translated():
            await self._client.publish(
                publication.topic,
                publication.payload,
                qos=publication.qos,
                retain=publication.retain,
                properties=properties,
                timeout=ANSWER_SECONDS,
            )

    def _hear_refusals(self) -> None:
        if OLD_NAME:
            return  # what is under the old name hands no reasons on
        paho = self._client._client  # noqa: SLF001  # aiomqtt drops the reason that a broker gives
        told = paho.on_publish

        def heard(client: object, userdata: object, mid: int, reason: "ReasonCode", properties: object) -> None:
            if reason.is_failure:
                self.refusal = str(reason)
            told(client, userdata, mid, reason, properties)  # type: ignore[arg-type, call-arg, misc]  # typed otherwise

        paho.on_publish = heard

    async def lost(self) -> None:
        """Wait until the connection is lost.

        Raises:
            BrokerGone: Always, when that happens.
        """
        with _translated():
            if OLD_NAME:
                async with self._client.messages() as messages:  # type: ignore[operator]  # a method, by then
                    async for _ in messages:
                        pass
            else:
                async for _ in self._client.messages:
                    pass


@contextlib.asynccontextmanager
async def connect(broker: Broker, identifier: str, will: Publication, version: Version) -> AsyncIterator[Connection]:
    """Connect, and disconnect at the end; the broker publishes `will` when the connection ends in any other way.

    Raises:
        BrokerGone: The broker does not answer, or refuses us; or the connection was lost inside.
    """
    with _translated():
        async with _client(broker, identifier, will, version) as client:
            client.pending_calls_threshold = MOST_UNANSWERED
            yield Connection(client, version)


def _client(broker: Broker, identifier: str, will: Publication, version: Version) -> "aiomqtt.Client":
    last_will = aiomqtt.Will(
        will.topic,
        will.payload,
        will.qos,
        will.retain,
        _properties(will, None, PacketTypes.WILLMESSAGE) if version is Version.V5 else None,
    )
    make = functools.partial(
        aiomqtt.Client,
        broker.host,
        broker.port,
        username=broker.user,
        password=broker.password,
        protocol=aiomqtt.ProtocolVersion(version.value),
        will=last_will,
        keepalive=KEEPALIVE_SECONDS,
        tls_context=tls_context(broker.tls) if broker.tls is not None else None,
        clean_session=True if version is Version.V311 else None,
    )
    if OLD_NAME:
        return make(client_id=identifier)  # type: ignore[call-arg]  # the argument's old name
    return make(identifier=identifier, timeout=ANSWER_SECONDS)


def _properties(publication: Publication, seconds: int | None, kind: int = PacketTypes.PUBLISH) -> Properties:
    return _properties_of(kind, bool(publication.payload), publication.properties, seconds)


@functools.lru_cache(maxsize=1024)
def _properties_of(kind: int, has_payload: bool, user: tuple[tuple[str, str], ...], seconds: int | None) -> Properties:
    """Return properties: three kinds of message of an attempt have theirs, which take longer to make than the rest."""
    properties = Properties(kind)  # type: ignore[no-untyped-call]  # paho types it no further
    if has_payload:
        properties.ContentType = "application/json"
        properties.PayloadFormatIndicator = 1
    if user:
        properties.UserProperty = list(user)
    if seconds is not None:
        properties.MessageExpiryInterval = seconds
    return properties


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except aiomqtt.MqttError as error:
        raise BrokerGone(str(error)) from None

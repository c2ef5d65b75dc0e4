"""One connection to an MQTT 5 broker for a source or a sink, and what its errors mean. The only importer of paho-mqtt.

paho, which aiomqtt stands on, is used itself: aiomqtt acknowledges a message before anybody has journaled it. paho's network
thread hands everything to the loop of the connector; here nothing else happens in it. It never reconnects by itself.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tidewarp.errors import InternalError, MissingExtra, OperatorError

__all__ = ["Client", "Failed"]

_KEEPALIVE_S = 10  # a broker that is silent for twice as long is lost
_ANSWER_S = 30.0
_ERROR = 128  # reason codes of MQTT 5 from here on are errors
_CREDENTIALS = (133, 134, 135, 138, 140)  # of CONNACK: client id, user, rights, banned, method
_TAKEN_OVER = 142


class Failed(Exception):
    """The broker answered with a reason code that is an error."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} ({code})")
        self.code = code


class Client:
    """A connection. ``what`` names its user in errors, as "mqtt source 'readings'".

    Args:
        what: as above.
        host, port: the broker.
        client_id: "" has the broker choose one.
        username, password: what the broker wants to hear; None: nothing.
        tls: a context, or True for the default one.
    """

    def __init__(
        self,
        what: str,
        host: str,
        port: int,
        *,
        client_id: str = "",
        username: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | bool | None = None,
    ) -> None:
        self.target = f"{what} at {host}:{port}"
        self.session_present = False
        self.packet_bytes_max: int | None = None  # as the broker says
        self._what, self._host, self._port, self._client_id = what, host, port, client_id
        self._username, self._password, self._tls = username, password, tls
        self._paho: Any = None
        self._complaint = ""  # of the network thread: why a connection ended, which it tells nobody else
        self._answers: dict[int, asyncio.Future[Sequence[Any]]] = {}

    # ------------------------------------------------------------------ life
    async def connect(
        self,
        *,
        clean_start: bool,
        properties: Mapping[str, int] | None = None,
        take: Callable[[Any], object] | None = None,
    ) -> None:
        """Connect anew; ``take`` gets every message, which is acknowledged by :meth:`acknowledge` alone.

        OperatorError for wrong credentials, OSError for what may pass.
        """
        await self.close()
        mqtt = self._driver()
        loop = asyncio.get_running_loop()
        self._complaint = ""
        self._answers, self._connected, self._lost = {}, loop.create_future(), loop.create_future()
        paho = self._paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        if self._username is not None:
            paho.username_pw_set(self._username, self._password)
        if self._tls:
            paho.tls_set_context(self._tls if isinstance(self._tls, ssl.SSLContext) else ssl.create_default_context())

        def on_loop(function: Callable[..., object], *arguments: Any) -> None:
            loop.call_soon_threadsafe(function, paho, *arguments)

        paho.on_connect = lambda _, __, flags, code, found: on_loop(self._hear_connected, flags, code, found)
        paho.on_disconnect = lambda _, __, ___, code, ____: on_loop(self._hear_lost, code)
        paho.on_subscribe = lambda _, __, mid, codes, ___: on_loop(self._hear_answer, mid, codes)
        paho.on_publish = lambda _, __, mid, code, ___: on_loop(self._hear_answer, mid, [code])
        paho.on_log = lambda _, __, level, text: self._note(text) if level == mqtt.MQTT_LOG_ERR else None
        if take is not None:
            paho.on_message = lambda _, __, message: on_loop(self._hear_message, take, message)
        try:
            await asyncio.to_thread(
                paho.connect,
                self._host,
                self._port,
                _KEEPALIVE_S,
                clean_start=clean_start,
                properties=self._properties("CONNECT", properties),
            )
        except ssl.SSLCertVerificationError as error:
            raise OperatorError(self.target, str(error.verify_message), "give tls= a context that trusts it") from error
        except OSError as error:
            raise ConnectionError(f"{self.target}: {error}") from error
        paho.loop_start()
        await self._wait(self._connected)

    async def close(self, properties: Mapping[str, int] | None = None) -> None:
        """Disconnect, with these properties. Safe to call twice."""
        paho, self._paho = self._paho, None
        if paho is None:
            return
        for future in self._answers.values():
            future.cancel()
        paho.disconnect(properties=self._properties("DISCONNECT", properties))
        await asyncio.to_thread(paho.loop_stop)

    @property
    def is_connected(self) -> bool:
        """Not closed, and not lost."""
        return self._paho is not None and bool(self._paho.is_connected())

    # ------------------------------------------------------------------ what a connector does
    async def subscribe(self, topics: Sequence[str], qos: int) -> None:
        """Subscribe; what is retained there comes if the subscription is new. OperatorError where the broker refuses."""
        from paho.mqtt.subscribeoptions import SubscribeOptions

        options = SubscribeOptions(qos=qos, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        try:
            result, mid = self._connection.subscribe([(topic, options) for topic in topics])
        except ValueError as error:
            raise OperatorError(self.target, f"topics={[*topics]}: {error}", "give topic filters of MQTT") from None
        try:
            await self._wait(self._answer(result, mid))
        except Failed as error:
            raise OperatorError(self.target, f"topics={[*topics]}: {error}", "allow it, or give others") from None

    def fits(self, topics: str, topic: str) -> bool:
        """Does the filter ``topics`` hold this topic?"""
        return bool(self._driver().topic_matches_sub(topics, topic))

    def publish(
        self, topic: str, payload: bytes, qos: int, user_properties: Mapping[str, str]
    ) -> asyncio.Future[Sequence[Any]]:
        """Publish; the future is done when the broker has acknowledged it, with Failed if it has refused it."""
        found = self._properties("PUBLISH", {})
        found.UserProperty = [*user_properties.items()]
        info = self._connection.publish(topic, payload, qos, properties=found)
        return self._answer(info.rc, info.mid)

    async def acknowledged(self, futures: Sequence[asyncio.Future[Sequence[Any]]]) -> list[Failed | None]:
        """Wait for these publications, and say of each whether it was refused. OSError if the connection is lost."""
        await self._wait(asyncio.gather(*futures, return_exceptions=True))
        found = [future.exception() for future in futures]
        return [one if isinstance(one, Failed) else None for one in found]

    def acknowledge(self, message_id: int, qos: int) -> None:
        """Let the broker forget a message that it has sent."""
        self._connection.ack(message_id, qos)

    async def until_lost(self, waiting: asyncio.Future[Any]) -> None:
        """Wait for ``waiting``, for ever. ConnectionError as soon as the connection is lost."""
        await self._wait(waiting, None)

    # ------------------------------------------------------------------ how it is done
    @property
    def _connection(self) -> Any:
        if self._paho is None:
            raise InternalError(self._what, "it is opened before it is used", "report this")
        return self._paho

    def _answer(self, result: int, mid: int | None) -> asyncio.Future[Sequence[Any]]:
        if result or mid is None:
            raise ConnectionError(f"{self.target}: the connection is lost ({result})")
        self._answers[mid] = future = asyncio.get_running_loop().create_future()
        return future

    async def _wait(self, future: asyncio.Future[Any], timeout_s: float | None = _ANSWER_S) -> None:
        """Until it is done; raises what it raises, or says that the connection is lost."""
        await asyncio.wait({future, self._lost}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            future.result()
            return
        future.cancel()
        await asyncio.wait({future})
        if not future.cancelled():  # of several together: else asyncio complains that nobody has asked for it
            future.exception()
        if not self._lost.done():
            raise TimeoutError(f"{self.target}: no answer in {timeout_s:g} s")
        code, reason = self._lost.result()
        if code == _TAKEN_OVER:
            raise OperatorError(self.target, "another client has this client_id", "give each twin its own client_id=")
        raise ConnectionError(f"{self.target}: the connection is lost ({self._complaint or reason})")

    def _note(self, complaint: str) -> None:
        self._complaint = self._complaint or complaint  # what follows are its consequences

    def _hear_connected(self, paho: Any, flags: Any, code: Any, found: Any) -> None:
        if paho is not self._paho or self._connected.done():
            return
        if code.value in _CREDENTIALS:
            rule = f"it refused the connection: {code}"
            error: Exception = OperatorError(self.target, rule, "correct user, password, rights or client_id")
            self._connected.set_exception(error)
        elif code.value >= _ERROR:
            self._connected.set_exception(ConnectionError(f"{self.target}: {code}"))
        else:
            self.session_present = bool(flags.session_present)
            self.packet_bytes_max = getattr(found, "MaximumPacketSize", None)
            self._connected.set_result(None)

    def _hear_lost(self, paho: Any, code: Any) -> None:
        if paho is self._paho and not self._lost.done():
            self._lost.set_result((code.value, str(code)))

    def _hear_answer(self, paho: Any, mid: int, codes: Sequence[Any]) -> None:
        future = self._answers.pop(mid, None) if paho is self._paho else None
        if future is None or future.done():
            return
        refused = [code for code in codes if code.value >= _ERROR]
        if refused:
            future.set_exception(Failed(refused[0].value, str(refused[0])))
        else:
            future.set_result(codes)

    def _hear_message(self, paho: Any, take: Callable[[Any], object], message: Any) -> None:
        if paho is self._paho:
            take(message)

    def _driver(self) -> Any:
        try:
            import paho.mqtt.client as mqtt
        except ImportError:
            raise MissingExtra(self._what, "it needs paho-mqtt", "pip install 'tidewarp[mqtt]'") from None
        return mqtt

    def _properties(self, packet: str, found: Mapping[str, int] | None) -> Any:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        untyped: Any = Properties
        properties = untyped(getattr(PacketTypes, packet))
        for key, value in (found or {}).items():
            setattr(properties, key, value)
        return properties

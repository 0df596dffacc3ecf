"""NATS for trio: the only file that knows nats-py, asyncio and trio-asyncio.

All of it runs in one thread. trio-asyncio gives asyncio one trio task, in which every asyncio callback runs; we call
that "inside the loop". What costs here is going from task to task, so:

* `Bridge.soon` takes a plain function into the loop; there `publish` and `expect` are plain calls, not coroutines.
* Answers are handed over as they arrive, without a queue and a task between (`_Transport`); a taker may set a
  `trio.Event`, which wakes a trio task directly.

A connection is never mended. When it is lost, or does not echo, everything that waits on it is told so, its unsent
bytes are thrown away, and a new client connects from scratch: so no write is sent after its caller has given up, and no
state of nats-py's own reconnecting has to be trusted.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeVar

import nats.aio.client
import nats.errors
import trio
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport

from arc_es.nats_access import Access, ServerInfo
from arc_es.nats_frames import NO_RESPONDERS, Incoming, Run, Sorter, Take, Taker, none_at_once, status_of
from arc_es.nats_writing import may_write, publish_frame, write
from arc_es.ports import JournalUnavailable

PING_SECONDS: Final = 5.0
"""How often a connection is checked."""
ECHO_SECONDS: Final = 3.0
"""How long a connection may take to echo before it counts as lost."""
CONNECT_SECONDS: Final = 5.0
REQUEST_SECONDS: Final = 5.0
"""How long a read may take."""
CLOSE_SECONDS: Final = 2.0
RECONNECT_SECONDS_MIN: Final = 0.1
RECONNECT_SECONDS_MAX: Final = 2.0
BEFORE_ECHO_BYTES_MAX: Final = 64 * 1024 * 1024
"""As much as nats-server keeps for a connection (`max_pending`)."""
EVERYTHING_BYTES: Final = 1 << 30
"""More than is ever there to be read."""

log = logging.getLogger("arc_es.nats")
T = TypeVar("T")


class _Transport(TcpTransport):
    """nats-py's transport, before which the messages of our own subscriptions go straight to their takers.

    They are nearly all there is, and nats-py spends many times as long on one as this. Everything else, whole frames
    only, goes on to nats-py's reader, from when its read loop begins to read. None of this is public; should nats-py
    use another transport, it parses everything again and `_Sink` still takes what is ours.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sorter = Sorter()
        self.arrived_bytes = 0
        self._sorted: asyncio.StreamReader | None = None

    async def read(self, buffer_size: int) -> bytes:
        reader = self._io_reader
        if reader is None or reader is self._sorted:
            return bytes(await super().read(buffer_size))
        data = bytes(await super().read(EVERYTHING_BYTES))
        feed, self._sorted = reader.feed_data, reader

        def sort(arrived: bytes) -> None:
            self.arrived_bytes += len(arrived)
            if others := self.sorter.sort(arrived):
                feed(others)

        reader.feed_data = sort  # type: ignore[assignment,method-assign]  # of this one reader
        return self.sorter.sort(data)


nats.aio.client.TcpTransport = _Transport  # type: ignore[attr-defined]  # see there


class _Sink(asyncio.Future[Msg]):
    """A future that never completes: nats-py hands it every message of a subscription at once."""

    def __init__(self, take: Take) -> None:
        super().__init__()
        self._take = take

    def set_result(self, result: Msg) -> None:
        _hand_over(self._take, result)


def _hand_over(take: Take, message: Incoming | None) -> None:
    try:
        take(message)
    except Exception:
        # Raised further it would end nats-py's read loop without a word.
        log.exception("A taker of messages failed")


def _past_nats_py(client: Client, subscription: Subscription, take: Take, run: Run | None = None) -> None:
    """Have the messages of a subscription taken before nats-py sees them."""
    transport = getattr(client, "_transport", None)
    if isinstance(transport, _Transport):
        sid = str(subscription._id).encode()  # noqa: SLF001 - see _Transport
        transport.sorter.takers[sid] = Taker(partial(_hand_over, take), run or none_at_once)


def _run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that does not wait. nats-py's publish and subscribe only fill a buffer that we left unbounded."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("nats-py waits in a call that is known not to wait")


class _Exchange:
    """Requests that wait for their answers."""

    def __init__(self, take: Callable[[int, Incoming], bool]) -> None:
        self._take = take
        self.trouble = ""
        self.done = trio.Event()

    def take(self, index: int, message: Incoming | None) -> None:
        """An answer to the request with that index, or none will come."""
        if message is None:
            self.trouble = "The connection to NATS was lost"
        elif status_of(message) == NO_RESPONDERS:
            self.trouble = "NATS has nobody to answer; is JetStream on, is there a leader?"
        elif not self._take(index, message):
            return
        self.done.set()


class Bridge:
    """One connection to NATS, renewed for ever. Made by `open_bridge`."""

    def __init__(self, loop: Any, access: Access, ping_seconds: float, echo_seconds: float) -> None:
        self._loop = loop
        self._access = access
        self._ping_seconds = ping_seconds
        self._echo_seconds = echo_seconds
        self._client: Client | None = None
        self._inbox = ""
        self._tokens = itertools.count(1)
        self._waiting: dict[str, Take] = {}
        self._listeners: dict[str, tuple[Take, Subscription]] = {}
        self._on_lost: list[Callable[[], None]] = []
        self._up = trio.Event()
        self._down = trio.Event()
        self._last_trouble = ""

    # --- for trio tasks

    @property
    def available(self) -> bool:
        """Whether there is a connection, as far as we know."""
        return self._client is not None

    async def wait_available(self) -> None:
        """Wait for a connection."""
        while not self.available:
            await self._up.wait()

    def server_info(self) -> ServerInfo:
        """What the connected server says of itself.

        Raises:
            JournalUnavailable: there is no connection.
        """
        if self._client is None:
            raise JournalUnavailable("There is no connection to NATS")
        version = self._client.connected_server_version
        return ServerInfo(f"{version.major}.{version.minor}.{version.patch}", self._client.max_payload)

    def soon(self, step: Callable[[], None]) -> None:
        """Have a plain function called inside the loop. It must not raise."""
        self._loop.call_soon(step)

    async def call(self, step: Callable[[], T]) -> T:
        """Call a plain function inside the loop and return what it returns.

        Raises:
            JournalUnavailable: there is no connection, so it was not called.
        """
        results: list[T] = []
        done = trio.Event()

        def run() -> None:
            if self.available and not done.is_set():
                results.append(step())
            done.set()

        self.soon(run)
        try:
            await done.wait()
        finally:
            done.set()  # cancelled: it need not be called any more
        if not results:
            raise JournalUnavailable("There is no connection to NATS")
        return results[0]

    async def ask(self, requests: Sequence[tuple[str, bytes]]) -> list[Incoming]:
        """Send requests (subject, payload), all at once, and return the answer to each.

        Raises:
            JournalUnavailable: there is no connection, nobody to answer, or no answer in `REQUEST_SECONDS`.
        """
        if not requests:
            return []
        answers: dict[int, Incoming] = {}

        def take(index: int, message: Incoming) -> bool:
            answers[index] = message
            return len(answers) == len(requests)

        await self._exchange(requests, take)
        return [answers[index] for index in range(len(requests))]

    async def collect(self, subject: str, payload: bytes, *, is_last: Callable[[Incoming], bool]) -> list[Incoming]:
        """Send one request and return its many answers, up to and with the last. Raises as `ask`."""
        answers: list[Incoming] = []

        def take(index: int, message: Incoming) -> bool:
            answers.append(message)
            return is_last(message)

        await self._exchange([(subject, payload)], take)
        return answers

    async def _exchange(self, requests: Sequence[tuple[str, bytes]], take: Callable[[int, Incoming], bool]) -> None:
        """Send requests and wait until `take(index, answer)` says that it has all."""
        exchange = _Exchange(take)
        inboxes: list[str] = []

        def send() -> None:
            for index, (subject, payload) in enumerate(requests):
                inboxes.append(self.expect(partial(exchange.take, index)))
                self.publish(subject, payload, reply=inboxes[-1])

        try:
            with trio.move_on_after(REQUEST_SECONDS):
                await self.call(send)
                await exchange.done.wait()
        finally:
            for inbox in inboxes:
                self.forget(inbox)
        if exchange.trouble or not exchange.done.is_set():
            raise JournalUnavailable(exchange.trouble or "NATS did not answer in time")

    # --- inside the loop

    def publish(
        self, subject: str, payload: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Put one message into the send buffer; it leaves when the loop goes on. Trouble shows as a lost connection."""
        if (client := self._client) is None:
            return
        try:
            frame = publish_frame(subject, reply, headers, payload) if headers and may_write(client) else None
            _run_now(write(client, frame) if frame else client.publish(subject, payload, reply, headers))  # type: ignore[arg-type]  # only read
        except (nats.errors.Error, OSError, RuntimeError) as error:
            self._report("Could not send", error)
            self.soon(self._drop)

    def expect(self, take: Take) -> str:
        """A fresh reply subject; `take` gets what arrives there until `forget`."""
        token = str(next(self._tokens))
        self._waiting[token] = take
        return self._inbox + token

    def forget(self, inbox: str) -> None:
        """Ignore what still arrives at a reply subject. Harmless when it is forgotten already."""
        self._waiting.pop(inbox.rpartition(".")[2], None)

    def listen(self, take: Take, run: Run | None = None, subject: str = "") -> str:
        """Have what arrives at a subject taken until `unlisten`; without one, at a fresh one, which is returned.

        To that a consumer may deliver, messages keep their own subjects. run: takes many frames at once, before `take`
        is asked. It must not raise.
        """
        client = self._client
        if client is None:
            raise JournalUnavailable("There is no connection to NATS")
        subject = subject or f"{self._inbox}deliver.{next(self._tokens)}"
        subscription = _run_now(client.subscribe(subject, future=_Sink(take)))
        _past_nats_py(client, subscription, take, run)
        self._listeners[subject] = (take, subscription)
        return subject

    def unlisten(self, subject: str) -> None:
        """End `listen`. Harmless when the connection is gone."""
        _, subscription = self._listeners.pop(subject, (None, None))
        if subscription is not None and self._client is not None and self._client.is_connected:
            _run_now(subscription.unsubscribe())

    def on_lost(self, hook: Callable[[], None]) -> None:
        """Have `hook` called inside the loop each time the connection is lost, after the takers."""
        self._on_lost.append(hook)

    # --- the life of connections

    async def run(self) -> None:
        """Connect, watch, and connect again, for ever."""
        pause = RECONNECT_SECONDS_MIN
        while True:
            client = Client()
            try:
                if await self._connect(client):
                    pause = RECONNECT_SECONDS_MIN
                    await self._watch()
            finally:
                self._drop()
                with trio.CancelScope(shield=True):
                    await self._close(client)
            await trio.sleep(pause)
            pause = min(2 * pause, RECONNECT_SECONDS_MAX)

    async def _connect(self, client: Client) -> bool:
        cause: Exception | None = None  # of not being able to connect; nats-py itself then says "no servers"

        async def lost() -> None:
            self._drop_if(client)

        async def trouble(error: Exception) -> None:
            nonlocal cause
            if client is self._client:
                self._report("Trouble with the connection", error)
                if isinstance(error, (nats.errors.UnexpectedEOF, OSError)):
                    self._drop()
            else:
                cause = error

        try:
            with trio.fail_after(CONNECT_SECONDS):
                await _trio_asyncio().aio_as_trio(client.connect)(
                    **self._access.options(),
                    name="arc_es",
                    error_cb=trouble,
                    disconnected_cb=lost,
                    closed_cb=lost,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,  # of each server in this one try; 0 would mean for ever
                    reconnect_time_wait=RECONNECT_SECONDS_MIN,
                    connect_timeout=CONNECT_SECONDS,
                    ping_interval=3600,  # we ask for an echo instead, which goes through the read loop
                    pending_size=0,  # publish never waits, and nothing is kept for another connection
                )
                await self._open_inbox(client)
        except (nats.errors.Error, OSError, trio.TooSlowError) as error:
            self._report("Cannot connect", cause or error)
            return False
        return self.available

    async def _open_inbox(self, client: Client) -> None:
        inbox = f"_INBOX.{secrets.token_hex(8)}."
        subscription = await _trio_asyncio().aio_as_trio(client.subscribe)(inbox + "*", future=_Sink(self._answered))
        _past_nats_py(client, subscription, self._answered)
        if not client.is_connected:
            raise nats.errors.ConnectionClosedError
        self._inbox = inbox
        self._client = client
        self._down = trio.Event()
        self._up.set()
        if self._last_trouble:
            log.warning("Connected to NATS")
        self._last_trouble = ""

    def _answered(self, message: Incoming | None) -> None:
        if message is not None:
            take = self._waiting.get(message.subject[len(self._inbox) :])
            if take is not None:
                take(message)

    async def _watch(self) -> None:
        """Return when the connection is lost or does not echo."""
        while self.available:
            with trio.move_on_after(self._ping_seconds):
                await self._down.wait()
                return
            if not await self._echoes():
                self._report("The connection does not answer", None)
                return

    async def _echoes(self) -> bool:
        """Whether it does, be it late because much comes before: a replay on a busy machine."""
        echoed = trio.Event()
        started = seen = self._arrived_bytes()

        def send() -> str:
            inbox = self.expect(lambda _: echoed.set())
            self.publish(inbox, b"")
            return inbox

        try:
            inbox = await self.call(send)
        except JournalUnavailable:
            return False
        while True:
            with trio.move_on_after(self._echo_seconds):
                await echoed.wait()
            arrived = self._arrived_bytes()
            if echoed.is_set() or arrived <= seen or arrived - started > BEFORE_ECHO_BYTES_MAX:
                self.forget(inbox)
                return echoed.is_set()
            seen = arrived

    def _arrived_bytes(self) -> int:
        return getattr(getattr(self._client, "_transport", None), "arrived_bytes", 0)

    def _drop_if(self, client: Client) -> None:
        if client is self._client:
            self._drop()

    def _drop(self) -> None:
        """Tell everyone who waits that the connection is lost."""
        if self._client is None:
            return
        self._client = None
        self._up = trio.Event()
        self._down.set()
        waiting, self._waiting = self._waiting, {}
        listeners, self._listeners = self._listeners, {}
        for take in (*waiting.values(), *(take for take, _ in listeners.values())):
            take(None)
        for hook in self._on_lost:
            hook()

    async def _close(self, client: Client) -> None:
        with trio.move_on_after(CLOSE_SECONDS):
            try:
                await _trio_asyncio().aio_as_trio(_abort)(client)
                await _trio_asyncio().aio_as_trio(client.close)()
            except (nats.errors.Error, OSError, AttributeError) as error:
                self._report("Trouble while closing", error)

    def _report(self, what: str, error: BaseException | None) -> None:
        text = f"{what}: {type(error).__name__}: {error}" if error is not None else what
        text = self._access.scrub(text)
        if text != self._last_trouble:  # a server that stays away is reported once
            log.warning("NATS: %s", text)
        self._last_trouble = text

    def unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What nobody caught in tasks and transports of nats-py is trouble of a connection; any other is our bug."""
        if context.keys().isdisjoint(("task", "future", "transport")):
            loop.default_exception_handler(context)
            return
        self._report("Trouble inside nats-py", context.get("exception"))
        if self._client is not None and not self._client.is_connected:
            self._drop()


async def _abort(client: Client) -> None:
    """Throw unsent bytes away. nats-py has no way to say it: its close waits for a peer that may never read again."""
    transport = client._transport  # noqa: SLF001
    writer = getattr(transport, "_io_writer", None)
    if writer is not None:
        writer.transport.abort()


@asynccontextmanager
async def open_bridge(
    access: Access, *, ping_seconds: float = PING_SECONDS, echo_seconds: float = ECHO_SECONDS
) -> AsyncGenerator[Bridge, None]:
    """A bridge that connects in the background; see `Bridge.wait_available`. Close whatever uses it first."""
    failure: Exception | None = None
    async with _trio_asyncio().open_loop() as loop:
        bridge = Bridge(loop, access, ping_seconds, echo_seconds)
        loop.set_exception_handler(bridge.unhandled)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bridge.run)
            try:
                yield bridge
            except Exception as error:  # noqa: BLE001 - raised again below, so that the nurseries do not wrap it
                failure = error
            finally:
                nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _trio_asyncio() -> Any:
    """Imported with the first bridge: it changes what `asyncio.run` does for the whole process, also for test kits."""
    import trio_asyncio  # type: ignore[import-untyped]

    return trio_asyncio

"""One channel to Pub/Sub, and calls on it whose errors are ours."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from time import monotonic
from typing import Any
from urllib.parse import quote

import grpc
import grpc.aio

from bus.errors import ClosedError, UnauthorisedError, UnconfirmedError, UnreachableError
from bus.pubsub.options import PubsubOptions
from bus.pubsub.trouble import AGAIN, failed, mapped
from bus.pubsub.wire import Method

__all__ = ["Connection"]

_log = logging.getLogger("taskbus.bus")
_SERVICE = "pubsub.googleapis.com:443"
_SCOPES = ("https://www.googleapis.com/auth/pubsub",)
#: How often a call is tried that failed in passing, and the pause before the second time.
_TRIES, _PAUSE = 4, 0.1
#: Seconds for which an answer shows that the server works.
_FRESH = 30.0
#: How many times as long as one call waits a connection may leave every call without an answer before it is given up.
_SILENT = 1.5
#: Seconds the loop goes on after calls were cancelled.
_LINGER = 0.05
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Not a pause, whatever its name: how long an attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 5000),
    # A new channel is a new connection, and not what another one has been using.
    ("grpc.use_local_subchannel_pool", 1),
)
#: A connection that is dead without having ended is found by this while a call waits. The emulator takes it for an
#: attack, so that there only silence tells.
_KEEPALIVE = (("grpc.keepalive_time_ms", 30_000), ("grpc.keepalive_timeout_ms", 10_000))


class Connection:
    """The channel, wrapped: nothing of the errors of gRPC or google-auth leaves."""

    def __init__(self, options: PubsubOptions) -> None:
        self.where = options.emulator or options.endpoint or _SERVICE
        self.timeout = options.timeout
        self.closed = False
        self._generation = 0
        self._ready = False
        self._answered = 0.0
        self._silent: float | None = None
        self._cancelled = False
        self.emulated = options.emulated
        self._credentials: Any = None
        self._channel: Any = None
        self._stubs: dict[Method, Callable[..., Any]] = {}

    async def open(self) -> None:
        """Find credentials and make the channel, which connects when it is used.

        Raises:
            UnauthorisedError: there are no Application Default Credentials.
            UnreachableError: whoever would give them does not answer.
        """
        if not self.emulated:
            self._credentials = await self._find_credentials()
        self._channel = self._make()

    def _make(self) -> Any:
        if self.emulated:
            return grpc.aio.insecure_channel(self.where, options=_OPTIONS)
        from google.api_core import grpc_helpers_async  # a tenth of a second that the emulator does not take

        return grpc_helpers_async.create_channel(
            self.where, credentials=self._credentials, options=_OPTIONS + _KEEPALIVE
        )

    @property
    def generation(self) -> int:
        """One higher after every end of the connection: an emulator may have been started anew since, empty.

        A channel whose connection ended is idle until the next call, so that looking before each call is enough.
        """
        if self._ready and not self.closed and self._channel.get_state() is not grpc.ChannelConnectivity.READY:
            self._lost()
        return self._generation

    @property
    def fresh(self) -> bool:
        """Whether the server answered lately, on the connection there is."""
        before = self._generation
        known = self._ready and self.generation == before and not self.silent
        return known and monotonic() - self._answered < _FRESH

    @property
    def silent(self) -> bool:
        """Whether a call had no answer in its time, and no other call has had one since."""
        return self._silent is not None

    def _answer_came(self) -> None:
        self._ready = True
        self._answered = monotonic()
        self._silent = None

    def _lost(self) -> None:
        self._silent = None
        if self._ready:
            self._ready = False
            self._generation += 1

    async def _unanswered(self, channel: Any, began: float, waited: float) -> None:
        """A call that began then had no answer for that long. Gives up the connection if none had for too long."""
        now = monotonic()
        # What stood still is this process, if the call began longer ago than it was to wait.
        since = max(began, now - waited)
        if channel is not self._channel or self.closed or self._answered >= since:
            return
        self._silent = since if self._silent is None else min(self._silent, since)
        if now - self._silent >= _SILENT * self.timeout:
            _log.warning(
                "pubsub at %s has not answered for %.0f s; connecting again",
                self.where,
                now - self._silent,
                extra={"event": "bus-lost"},
            )
            self._stubs.clear()
            self._channel = self._make()
            self._lost()
            self._cancelled = True
            await channel.close()

    async def _find_credentials(self) -> Any:
        import google.auth

        try:
            async with asyncio.timeout(self.timeout):
                credentials, _ = await asyncio.to_thread(google.auth.default, scopes=_SCOPES)
        except TimeoutError:
            raise UnreachableError(f"pubsub: nobody gave credentials within {self.timeout:g} s") from None
        except Exception as error:  # GoogleAuthError, and what reading the file of the credentials raises
            raise UnauthorisedError(
                f"pubsub: no Application Default Credentials: {error}; run `gcloud auth application-default login`, "
                "attach a service account, or use emulator=host:port"
            ) from error
        return credentials

    async def call(
        self,
        method: Method,
        request: Any,
        doing: str,
        *,
        topic: str | None = None,
        timeout: float | None = None,
        tries: int = _TRIES,
        quietly: tuple[grpc.StatusCode, ...] = (),
    ) -> Any:
        """The answer, or ``None`` if the status is one of ``quietly``. What fails in passing is tried again.

        Raises:
            BusError: as the status says, with the exception of gRPC as its cause.
        """
        doing = f"{doing}: pubsub at {self.where}"
        route = quote(getattr(request, method.route), safe="")
        waits = timeout or self.timeout
        for number in range(tries):
            channel, began = self._channel, monotonic()
            try:
                answer = await self._stub(method)(
                    request,
                    timeout=waits,
                    metadata=(("x-goog-request-params", f"{method.route}={route}"),),
                )
            except grpc.aio.AioRpcError as error:
                if self.closed:
                    raise ClosedError("the pubsub bus is closed", topic=topic) from error
                code = error.code()
                if code is grpc.StatusCode.UNAVAILABLE:
                    self._lost()
                elif code in quietly:
                    if code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                        self._answer_came()
                    return None
                elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
                    await self._unanswered(channel, began, waits)
                if code not in AGAIN or number + 1 == tries:
                    raise mapped(code, error.details() or "", doing, topic) from error
            except asyncio.CancelledError:
                self._cancelled = True
                me = asyncio.current_task()
                if me is None or me.cancelling() or (channel is self._channel and not self.closed):
                    raise
                if self.closed:
                    raise ClosedError("the pubsub bus is closed", topic=topic) from None
                raise UnconfirmedError(
                    f"{doing}: the connection was given up, as nothing answered", topic=topic
                ) from None
            except Exception as error:  # whatever else the client libraries raise is mapped, and nothing else runs here
                if self.closed:
                    raise ClosedError("the pubsub bus is closed", topic=topic) from error
                raise failed(error, doing, topic) from error
            else:
                self._answer_came()
                return answer
            await asyncio.sleep(random.uniform(0.5, 1.0) * _PAUSE * 2.0**number)
        raise UnconfirmedError(f"{doing}: was not tried", topic=topic)

    def _stub(self, method: Method) -> Callable[..., Any]:
        stub = self._stubs.get(method)
        if stub is None:
            if self.closed:
                raise ClosedError("the pubsub bus is closed")
            if self._channel is None:
                raise UnreachableError("pubsub: the bus is not open: use `async with` or open()")
            stub = self._stubs[method] = self._channel.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.answer.FromString,
            )
        return stub

    async def close(self) -> None:
        """Let go for good; calls under way end. Idempotent."""
        self.closed = True
        await self.disconnect()

    async def disconnect(self) -> None:
        """Let go, to be opened again perhaps."""
        channel, self._channel = self._channel, None
        self._stubs.clear()
        self._ready = False
        if channel is not None:
            await channel.close()
        if self._cancelled:
            # gRPC reports the end of a cancelled call a moment later. If this loop has ended by then, gRPC complains to
            # another one of this process, and may lose what it has to tell that one.
            self._cancelled = False
            await asyncio.sleep(_LINGER)

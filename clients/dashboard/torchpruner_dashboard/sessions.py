"""Who is logged in, and the SDK client that speaks for them.

A key lives in this process' memory only: the browser holds a signed session id, never the key, and
nothing is written to disk. A restart means to log in again.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

import httpx

from torchpruner_client import AsyncClient, Client, ModelInfo, ServiceInfo, UnauthorizedError
from torchpruner_client.progress import Progress
from torchpruner_client.retrying import RetryPolicy
from torchpruner_dashboard.model_graphs import GraphShelf
from torchpruner_dashboard.settings import DashboardSettings

MOST_SESSIONS = 2000
KEPT_ENDED = 20
PATIENCE = RetryPolicy(retries=1, first=0.1, longest=0.3, patience=2.0)
"""A person waits in front of the page: say soon that nothing answers."""

TIMEOUT = httpx.Timeout(30.0, connect=2.0)


@dataclass
class Session:
    """One visitor: their client, what the service said of their key, the graphs they saw, and the
    models as they were listed last: a page shows those while it asks again."""

    url: str
    key: str
    client: AsyncClient
    info: ServiceInfo | None = None
    shelf: GraphShelf = field(default_factory=GraphShelf)
    models: dict[str, ModelInfo] = field(default_factory=dict)
    ended: bool = False

    async def check(self) -> ServiceInfo:
        """Ask the service who this is, once. Raises ``UnauthorizedError``, also where the person
        has logged out meanwhile, or ``ServiceUnreachable``."""
        if self.ended:
            raise UnauthorizedError({"type": "logged-out", "detail": "You have logged out."})
        if self.info is None:
            self.info = await self.client.service_info()
        return self.info

    @property
    def tenant(self) -> str:
        """Whose models the key sees; empty until the service has been asked."""
        return self.info.tenant if self.info else ""

    def may(self, scope: str) -> bool:
        """Whether the key has a scope; true until the service has been asked."""
        return self.info is None or scope in self.info.scopes

    def following_client(self, progress: Progress) -> AsyncClient:
        """A client for work that takes long; ``progress`` is told how far it is. Close it."""
        return AsyncClient(
            self.url, api_key=self.key or None, timeout=TIMEOUT, retries=PATIENCE, progress=progress
        )

    def blocking_client(self, progress: Progress | None = None) -> Client:
        """A client for a thread: uploads read and hash files, which would stop the event loop."""
        return Client(
            self.url, api_key=self.key or None, retries=PATIENCE, progress=progress or False
        )


class Sessions:
    """Sessions by the browser's id; the oldest are forgotten past :data:`MOST_SESSIONS`."""

    def __init__(self, settings: DashboardSettings) -> None:
        self._settings = settings
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._ended: deque[Session] = deque()

    def of(self, browser: str) -> Session:
        """The session of a browser, made where there is none."""
        if browser not in self._sessions:
            self._sessions[browser] = self._session(self._settings.shared_key)
            while len(self._sessions) > MOST_SESSIONS:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(browser)
        return self._sessions[browser]

    async def log_in(self, browser: str, key: str) -> Session:
        """Use ``key`` from now on, if the service takes it. Raises what the SDK raises."""
        session = self._session(key)
        try:
            await session.check()
        except BaseException:
            await session.client.close()
            raise
        await self.log_out(browser)
        self._sessions[browser] = session
        return session

    async def log_out(self, browser: str) -> None:
        """Forget the key. What other windows have asked a moment ago may still be answered."""
        session = self._sessions.pop(browser, None)
        if session is not None:
            session.ended = True
            self._ended.append(session)
            while len(self._ended) > KEPT_ENDED:
                await self._ended.popleft().client.close()

    async def close(self) -> None:
        for session in (*self._sessions.values(), *self._ended):
            await session.client.close()

    def _session(self, key: str) -> Session:
        url = self._settings.service_url
        client = AsyncClient(
            url, api_key=key or None, timeout=TIMEOUT, retries=PATIENCE, progress=False
        )
        return Session(url, key, client)

"""A web view without a bot: made-up snapshots, recorded actions, and clients over memory streams."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import h11
import trio
import trio.testing

from mm.domain.numbers import Count, Micros, Money, Price
from mm.domain.order import MarketTicker, Side
from mm.views.series import Point
from mm.views.snapshot import (
    AlertView,
    BudgetView,
    DecisionView,
    FillView,
    LevelView,
    LimitView,
    MarketDetail,
    MarketView,
    QuoteView,
    Snapshot,
)
from mm.views.web.actions import ActionRefused, UnknownMarket
from mm.views.web.app import Sources, WebApp
from mm.views.web.guard import TOKEN_HEADER, Guard
from mm.views.web.http import Request, Response, Streaming, serve_connection
from mm.views.web.live import Live
from mm.views.web.metrics import Metrics

NOW = 1_796_166_601_000_000
TOKEN = "a-token-of-this-run"
HOST = "127.0.0.1:8750"
HOSTILE = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"


def make_market(n: int, **changes: object) -> MarketView:
    """Market `n` of a slate, quoted on both sides, flat."""
    row = MarketView(
        ticker=MarketTicker(f"KXNHLGAME-26DEC01T{n:04d}BOS-BOS"),
        title=f"Team {n} at Boston Winner?",
        outcome="Boston",
        best_bid=Price(4100),
        best_ask=Price(4325),
        bid_size=Count(120_000),
        ask_size=Count(4_000),
        mark=Price(4200),
        bid=QuoteView(price=Price(4100), count=Count(1000), ahead=Count(119_000)),
        ask=QuoteView(price=Price(4325), count=Count(463), ahead=Count(0)),
        unrealized=Money(0),
        state="quoting",
    )
    return attrs.evolve(row, **changes)


def make_fill(n: int, **changes: object) -> FillView:
    """Fill `n` of a run."""
    fill = FillView(
        key=f"order trade-{n}",
        at=Micros(NOW - n * 1_000_000),
        ticker=make_market(0).ticker,
        side=Side.BID,
        price=Price(4100),
        count=Count(300),
        fee=Money(1_200),
        edge=100,
        markouts=(-150, None),
    )
    return attrs.evolve(fill, **changes)


def make_snapshot(markets: int = 3, **changes: object) -> Snapshot:
    """A healthy bot."""
    whole = Snapshot(
        at=Micros(NOW),
        started_at=Micros(NOW - 185_000_000),
        environment="sim",
        is_paper=False,
        markets=tuple(make_market(n) for n in range(markets)),
        is_feed_up=True,
        last_frame_at=Micros(NOW - 120_000),
        writes=BudgetView(level=180, capacity=200, waiting=2),
        reads=BudgetView(level=20, capacity=200),
        orders_placed=1234,
        fills=57,
        contracts=Count(57_000),
        fees=Money(3_214_500),
        realized=Money(12_345_678),
        unrealized=Money(-1_234_567),
        worst_exposure=Count(8_000),
        limits=(LimitView(name="MAX_GLOBAL_INVENTORY", used=80.0, limit=800.0, unit="contracts"),),
        recent_fills=(make_fill(1),),
        markout_averages=(60.0, -35.5, None),
        alert_list=(AlertView(at=Micros(NOW), severity="warning", text="something"),),
        web_url=f"http://{HOST}/#{TOKEN}",
    )
    return attrs.evolve(whole, **changes)


@attrs.define
class Recorded:
    """Actions that only remember what was asked for."""

    calls: list[tuple[str, str, bool]] = attrs.field(factory=list)
    refusal: str = ""

    def _note(self, what: str, ticker: str = "", flag: bool = False) -> None:
        if ticker.startswith("NO"):
            raise UnknownMarket(f"{ticker} is not traded")
        if self.refusal:
            raise ActionRefused(self.refusal)
        self.calls.append((what, ticker, flag))

    def pause(self, ticker: MarketTicker) -> None:
        """Noted."""
        self._note("pause", ticker)

    def resume(self, ticker: MarketTicker) -> None:
        """Noted."""
        self._note("resume", ticker)

    def flatten(self, ticker: MarketTicker, *, pause: bool) -> None:
        """Noted."""
        self._note("flatten", ticker, pause)

    def pause_all(self) -> None:
        """Noted."""
        self._note("pause all")

    def resume_all(self) -> None:
        """Noted."""
        self._note("resume all")

    def stop(self) -> None:
        """Noted."""
        self._note("stop")


@attrs.define
class WebRig:
    """An app over a snapshot that the test may change."""

    snapshot: Snapshot = attrs.field(factory=make_snapshot)
    actions: Recorded = attrs.field(factory=Recorded)
    is_public: bool = False
    names: frozenset[str] = frozenset()
    made: int = 0
    """Snapshots made so far."""
    app: WebApp = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.app = WebApp(
            sources=Sources(snapshot=self.take, detail=self.detail, history=self.history),
            actions=self.actions,
            guard=Guard(token=TOKEN, is_public=self.is_public, names=self.names),
            live=Live(source=self.take),
            metrics=Metrics(),
        )

    def take(self) -> Snapshot:
        """The snapshot as it stands."""
        self.made += 1
        return self.snapshot

    def detail(self, ticker: MarketTicker) -> MarketDetail | None:
        """A market of the snapshot, with a level and a decision."""
        for market in self.snapshot.markets:
            if market.ticker == ticker:
                return MarketDetail(
                    market=market,
                    bids=(LevelView(price=Price(4100), count=Count(120_000), ours=Count(1000)),),
                    asks=(LevelView(price=Price(4325), count=Count(4_000)),),
                    decisions=(
                        DecisionView(
                            at=Micros(NOW), state="quoting", actions=("place bid 10 @ 41",), why="mark 42"
                        ),
                    ),
                    max_position=Count(5_000),
                )
        return None

    def history(self) -> list[Point]:
        """Two points."""
        return [
            Point(Micros(NOW - 2_000_000), Money(0), Money(0), Count(0), Count(0)),
            Point(Micros(NOW - 1_000_000), Money(1_000_000), Money(-500_000), Count(5_000), Count(3_000)),
        ]

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        body: bytes = b"",
        content_type: str = "application/json",
        **headers: str,
    ) -> Response | Streaming:
        """One request straight to the app. Header names are given with `_` for `-`."""
        found = {"host": HOST} | {name.replace("_", "-"): value for name, value in headers.items()}
        if method == "POST":
            found.setdefault("content-type", content_type)
        if token is not None:
            found[TOKEN_HEADER] = token
        return await self.app(Request(method=method, path=path, headers=found, body=body))

    async def whole(self, method: str, path: str, **options: str) -> Response:
        """The same where the answer is not a stream."""
        answer = await self.ask(method, path, **options)  # type: ignore[arg-type]
        assert isinstance(answer, Response)
        return answer


@attrs.define
class Client:
    """The far end of a connection."""

    stream: trio.abc.Stream
    parser: h11.Connection = attrs.field(factory=lambda: h11.Connection(h11.CLIENT))

    async def get(self, path: str, method: str = "GET", host: str = HOST) -> h11.Response:
        """Send a request and read the head of its answer."""
        request = h11.Request(method=method, target=path, headers=[("host", host)])
        data = self.parser.send(request) or b""
        await self.stream.send_all(data + (self.parser.send(h11.EndOfMessage()) or b""))
        head = await self.event()
        assert isinstance(head, h11.Response)
        return head

    async def event(self) -> object:
        """The next event of the answer."""
        while True:
            event = self.parser.next_event()
            if event is not h11.NEED_DATA:
                return event
            self.parser.receive_data(bytes(await self.stream.receive_some(65_536)))

    async def body(self) -> bytes:
        """The rest of the answer."""
        found = b""
        while isinstance(event := await self.event(), h11.Data):
            found += bytes(event.data)
        return found

    async def message(self) -> str:
        """The next server-sent event, whatever pieces it comes in."""
        text = ""
        while not text.endswith("\n\n"):
            event = await self.event()
            assert isinstance(event, h11.Data), event
            text += bytes(event.data).decode()
        return text


@asynccontextmanager
async def connected(
    rig: WebRig, *, lockstep: bool = False, is_first: bool = True
) -> AsyncGenerator[Client, None]:
    """A client connected to the rig's app, whose live data runs. `lockstep`: the server waits for each read;
    `is_first`: live data is started for it."""
    make = trio.testing.lockstep_stream_pair if lockstep else trio.testing.memory_stream_pair
    near, far = make()
    async with trio.open_nursery() as nursery:
        if is_first:
            nursery.start_soon(rig.app.live.run)
        nursery.start_soon(serve_connection, far, rig.app)
        yield Client(near)
        nursery.cancel_scope.cancel(reason="the test is over")

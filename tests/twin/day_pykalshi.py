"""A trading day with pykalshi 2.0.0: its synchronous client and its threaded feed."""

import logging
import time

import day
from day import control, need
from pykalshi import Feed, KalshiClient, OrderbookManager, TimeInForce
from pykalshi.enums import CandlestickPeriod, MarketStatus, OrderStatus
from pykalshi.exceptions import KalshiError


class Complaints(logging.Handler):
    """Everything that the client finds worth a warning."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.found = []

    def emit(self, record):
        """Keep it, save for the one 404 that the day provokes."""
        text = self.format(record)
        if not text.startswith("Response 404"):
            self.found.append(text)


COUNT = day.Count()


def call(method, *args, **kwargs):
    """Call a method of the client and count it."""
    answer = method(*args, **kwargs)
    COUNT.add("calls")
    owner = type(getattr(method, "__self__", method)).__name__.lower()
    COUNT.add(f"{owner}.{method.__name__}")
    return answer


def look_around(client):
    """Public reads; the markets to trade in."""
    call(client.exchange.get_status)
    need(call(client.exchange.is_trading), "no trading")
    call(client.exchange.get_schedule)
    call(client.exchange.get_user_data_timestamp)
    series = call(client.get_series, day.SERIES)
    call(client.get_all_series)
    call(series.get_events)
    events = call(client.get_events, series_ticker=day.SERIES, limit=2, fetch_all=True)
    need(len(events) >= 6, f"{len(events)} events")
    call(client.get_event, events[0].event_ticker, with_nested_markets=True)
    call(events[0].get_markets)
    markets = call(client.get_markets, status=MarketStatus.OPEN, limit=3, fetch_all=True)
    need(len(markets) >= 12, f"{len(markets)} markets")
    fit = [m for m in markets if 0.2 < float(m.yes_bid_dollars) < 0.8]
    one, other = fit[0], next(m for m in fit if m.event_ticker != fit[0].event_ticker)
    now = int(time.time())
    call(client.get_market, one.ticker)
    call(one.get_orderbook, depth=5)
    call(one.get_candlesticks, now - 3600, now + 60, CandlestickPeriod.ONE_MINUTE)
    call(one.get_trades)
    call(one.get_event)
    call(
        client.get_candlesticks_batch,
        [one.ticker, other.ticker],
        now - 3600,
        now,
        CandlestickPeriod.ONE_MINUTE,
    )
    call(client.get_trades, limit=20)
    call(client.get_multivariate_events)
    call(client.api_keys.list)
    call(client.api_keys.get_limits)
    return one, other


def trade(client, market, other):
    """Every write."""
    portfolio, ticker = client.portfolio, market.ticker
    group = call(portfolio.create_order_group, "500.00")
    group_id = getattr(group, "order_group_id", None) or group.id
    low = day.text(day.cents(day.book(ticker)[0][0][0]) - 300)
    quote = call(
        portfolio.place_order,
        ticker,
        book_side="bid",
        price_dollars=low,
        count_fp="10.00",
        post_only=True,
        order_group_id=group_id,
        expiration_ts=int(time.time()) + 600,
    )
    call(portfolio.get_order, quote.order_id)
    call(portfolio.get_queue_position, quote.order_id)
    call(portfolio.get_queue_positions, market_tickers=[ticker])
    call(portfolio.get_order_group, group_id)
    call(portfolio.get_order_groups)
    call(
        portfolio.amend_order, quote.order_id, price_dollars=day.text(day.cents(low) - 100), count_fp="12.00"
    )
    call(portfolio.decrease_order, quote.order_id, "2.00")
    call(portfolio.get_resting_order_value)
    call(portfolio.cancel_order, quote.order_id)
    try:
        call(portfolio.cancel_order, quote.order_id)
        need(False, "a second cancel was accepted")
    except KalshiError:
        COUNT.add("refusals")
    taken = call(
        portfolio.place_order,
        ticker,
        book_side="bid",
        price_dollars="0.99",
        count_fp="3.00",
        time_in_force=TimeInForce.IOC,
    )
    need(taken.fill_count_fp == "3.00", f"{taken}")
    fields = {"count_fp": "2.00"}
    both = call(
        portfolio.batch_place_orders,
        [
            {"ticker": ticker, "book_side": "ask", "price_dollars": "0.9800", **fields},
            {"ticker": other.ticker, "book_side": "bid", "price_dollars": "0.0300", **fields},
        ],
    )
    need(len(both) == 2, f"{both}")
    call(portfolio.batch_cancel_orders, [o.order_id for o in both])
    call(portfolio.trigger_order_group, group_id)
    call(portfolio.reset_order_group, group_id)
    call(portfolio.update_order_group_limit, group_id, "100.00")
    for _ in range(20):
        price, ahead = day.book(ticker)[0][0]
        made = call(portfolio.place_order, ticker, book_side="bid", price_dollars=price, count_fp="5.00")
        sell = {"ticker": ticker, "side": "ask", "price": price, "count": f"{float(ahead) + 100_000:.2f}"}
        control("POST", "order", sell)
        if float(call(portfolio.get_order, made.order_id).fill_count_fp) > 0:
            COUNT.add("maker_fills")
            return
    need(False, "no maker fill in 20 tries")


def look_at_the_account(client, ticker):
    """Every read of the account, and money between accounts."""
    portfolio = client.portfolio
    call(portfolio.get_balance)
    fills = call(portfolio.get_fills, ticker=ticker, limit=2, fetch_all=True)
    need(len(fills) >= 2, f"{fills}")
    COUNT.add("fills", len(fills))
    need(call(portfolio.get_positions, ticker=ticker)[0].position_fp != "0.00", "no position")
    call(portfolio.get_orders, limit=3, fetch_all=True)
    number = call(portfolio.create_subaccount).subaccount_number
    call(portfolio.transfer_between_subaccounts, 0, number, 1_000)
    call(portfolio.get_subaccount_balances)
    call(portfolio.get_subaccount_transfers)
    call(portfolio.update_subaccount_netting, number, False)
    call(portfolio.get_subaccount_netting)


def end_the_day(client, ticker):
    """A result, its settlement, the archive."""
    portfolio = client.portfolio
    control("POST", "determine", {"ticker": ticker, "value": "1.0000"})
    day.until(lambda: len(call(portfolio.get_settlements, ticker=ticker)), "settlement", 60)
    for one in call(portfolio.get_orders, status=OrderStatus.RESTING, fetch_all=True):
        call(portfolio.cancel_order, one.order_id)
    need(not len(call(portfolio.get_orders, status=OrderStatus.RESTING)), "orders rest")
    time.sleep(1.1)
    control("POST", "archive", {"after_ms": 1000})
    now = int(time.time())
    call(client.history.get_cutoff)
    call(client.history.get_market, ticker)
    call(client.history.get_markets)
    period = CandlestickPeriod.ONE_MINUTE
    call(client.history.get_candlesticks, ticker, start_ts=now - 3600, end_ts=now + 60, period=period)
    call(client.history.get_fills)
    call(client.history.get_orders)
    call(client.history.get_trades, limit=10)
    control("POST", "archive", {})


class Books:
    """Local books and a count of frames, fed by the feed's thread."""

    def __init__(self):
        self.books = {}
        self.kinds = {}

    def take(self, message):
        """One message of any channel."""
        kind = type(message).__name__
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if kind == "OrderbookSnapshotMessage":
            made = self.books.setdefault(message.market_ticker, OrderbookManager(message.market_ticker))
            made.apply_snapshot(message.yes_dollars_fp, message.no_dollars_fp)
        elif kind == "OrderbookDeltaMessage":
            held = self.books[message.market_ticker]
            held.apply_delta(message.side, message.price_dollars, message.delta_fp)


def compare_books(books, tickers):
    """With trading paused, the client's own books are the exchange's."""
    for ticker in tickers:
        control("POST", "pause", {"ticker": ticker})
    time.sleep(1.0)
    for ticker in tickers:
        held, (bids, asks) = books.books[ticker], day.book(ticker)
        yes = {(day.cents(p), float(c)) for p, c in held.yes.items()}
        no = {(10_000 - day.cents(p), float(c)) for p, c in held.no.items()}
        need(yes == {(day.cents(p), float(c)) for p, c in bids}, f"bids of {ticker} differ")
        need(no == {(day.cents(p), float(c)) for p, c in asks}, f"asks of {ticker} differ")
        control("POST", "resume", {"ticker": ticker})


CHANNELS = (
    "orderbook_delta",
    "ticker",
    "trade",
    "fill",
    "user_orders",
    "market_positions",
    "order_group_updates",
)


def main():
    complaints = Complaints()
    logging.getLogger("pykalshi").addHandler(complaints)
    client = KalshiClient(api_key_id=day.KEY_ID, private_key_path=day.KEY_PATH, api_base=day.REST)
    market, other = look_around(client)
    books, feed = Books(), Feed(client)
    feed._ws_url = day.WS
    for channel in (*CHANNELS, "market_lifecycle_v2"):
        feed.on(channel, books.take)
    tickers = [market.ticker, other.ticker]
    feed.start()
    day.until(lambda: feed.is_connected, "the feed")
    for channel in (*CHANNELS, "market_lifecycle_v2"):
        named = {"market_tickers": tickers} if channel in ("orderbook_delta", "ticker", "trade") else {}
        feed.subscribe(channel, **named)
    day.until(lambda: len(books.books) == 2, "snapshots")
    trade(client, market, other)
    look_at_the_account(client, market.ticker)
    time.sleep(5.0)
    compare_books(books, tickers)
    end_the_day(client, market.ticker)
    time.sleep(0.5)
    feed.stop()
    need(feed.reconnect_count == 0, "the feed reconnected")
    need("dict" not in books.kinds, f"frames that no model takes: {books.kinds}")
    need(books.kinds["OrderbookSnapshotMessage"] == 2, f"a resync: {books.kinds}")
    need(len(books.kinds) >= 8, f"{books.kinds}")
    need(not complaints.found, "the client complained:\n" + "\n".join(complaints.found[:5]))
    COUNT.add("frames", sum(books.kinds.values()))
    COUNT.add("deltas", books.kinds["OrderbookDeltaMessage"])
    COUNT.tell()


main()

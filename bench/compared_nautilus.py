"""nautilus-trader's part of `bench/compared.py`: runs in an environment that has it, on events as JSON."""

import json
import sys
import time
from decimal import Decimal
from pathlib import Path

from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.backtest.models import FillModel, LatencyModel
from nautilus_trader.config import LoggingConfig, StrategyConfig
from nautilus_trader.model.currencies import USD
from nautilus_trader.model.data import BookOrder, OrderBookDelta
from nautilus_trader.model.enums import AccountType, AssetClass, BookAction, BookType, OmsType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, Symbol, TraderId, Venue
from nautilus_trader.model.instruments import BinaryOption
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.trading.strategy import Strategy

MODELS = (
    "one market at a time, asked every 300 ms by a timer; its own matching engine on the L2 book (fills where the book "
    "crosses the quote: no queue without trades), orders 30 ms, portfolio, cash and margin checks, no fees"
)
VENUE = Venue("KALSHI")
EVERY_NS = 300_000_000


class Quoter(Strategy):
    """A bid and an ask a cent from the mid, moved when the mid has moved by a cent."""

    def __init__(self, instrument: BinaryOption) -> None:
        super().__init__(StrategyConfig(strategy_id="Q-1"))
        self.instrument = instrument
        self.working: dict[OrderSide, tuple[object, float]] = {}
        self.sent = self.filled = 0

    def on_start(self) -> None:
        self.subscribe_order_book_deltas(self.instrument.id, BookType.L2_MBP)
        self.clock.set_timer_ns("look", EVERY_NS, 0, 0, self.on_look)

    def on_look(self, event: object) -> None:
        book = self.cache.order_book(self.instrument.id)
        bid, ask = book.best_bid_price(), book.best_ask_price()
        if bid is None or ask is None or not (0.05 < bid < ask < 0.95):
            return
        mid = (bid.as_double() + ask.as_double()) / 2
        net = self.portfolio.net_position(self.instrument.id)
        for side, sign in ((OrderSide.BUY, -1), (OrderSide.SELL, 1)):
            order, at = self.working.get(side, (None, 0.0))
            if order is not None and not order.is_closed:
                if abs(mid - at) >= 0.01 and order.is_open:
                    self.cancel_order(order)
                continue
            if net * -sign >= 50:
                continue
            price = round(mid + sign * 0.01, 2)
            price = min(price, ask.as_double() - 0.001) if sign < 0 else max(price, bid.as_double() + 0.001)
            order = self.order_factory.limit(
                instrument_id=self.instrument.id,
                order_side=side,
                quantity=Quantity(10, 2),
                price=Price(price, 3),
                post_only=True,
            )
            self.submit_order(order)
            self.sent += 1
            self.working[side] = (order, mid)

    def on_order_filled(self, event: object) -> None:
        self.filled += 1


def instrument_of(number: int) -> BinaryOption:
    """A market with prices to a tenth of a cent."""
    symbol = Symbol(f"M{number}")
    return BinaryOption(
        instrument_id=InstrumentId(symbol, VENUE),
        raw_symbol=symbol,
        asset_class=AssetClass.ALTERNATIVE,
        currency=USD,
        price_precision=3,
        size_precision=2,
        price_increment=Price(0.001, 3),
        size_increment=Quantity(0.01, 2),
        activation_ns=0,
        expiration_ns=2**62,
        ts_event=0,
        ts_init=0,
        maker_fee=Decimal(0),
        taker_fee=Decimal(0),
    )


def deltas_of(instrument: BinaryOption, rows: list[list[int]]) -> list[OrderBookDelta]:
    """Rows as nautilus' objects."""
    found = []
    for at, side, price, size in rows:
        ns = at * 1000
        if side == 0:
            found.append(OrderBookDelta.clear(instrument.id, 0, ns, ns))
            continue
        order = BookOrder(
            OrderSide.BUY if side == 1 else OrderSide.SELL,
            Price(price / 1e4, 3),
            Quantity(size / 100, 2),
            price,
        )
        action = BookAction.UPDATE if size else BookAction.DELETE
        found.append(OrderBookDelta(instrument.id, action, order, 0, 0, ns, ns))
    return found


def run(number: int, rows: list[list[int]]) -> tuple[float, int, int]:
    """CPU seconds of the loop, orders and fills of one market."""
    instrument = instrument_of(number)
    engine = BacktestEngine(
        BacktestEngineConfig(
            trader_id=TraderId("B-1"), logging=LoggingConfig(bypass_logging=True), run_analysis=False
        )
    )
    engine.add_venue(
        venue=VENUE,
        oms_type=OmsType.NETTING,
        account_type=AccountType.MARGIN,
        base_currency=USD,
        starting_balances=[Money(1_000_000, USD)],
        book_type=BookType.L2_MBP,
        fill_model=FillModel(),
        latency_model=LatencyModel(base_latency_nanos=30_000_000),
    )
    engine.add_instrument(instrument)
    engine.add_data(deltas_of(instrument, rows))
    quoter = Quoter(instrument)
    engine.add_strategy(quoter)
    began = time.process_time()
    engine.run()
    took = time.process_time() - began
    engine.dispose()
    return took, quoter.sent, quoter.filled


def main() -> None:
    """All markets, one after the other."""
    done = [run(number, rows) for number, rows in enumerate(json.loads(Path(sys.argv[1]).read_text()))]
    did = f"{sum(sent for _, sent, _ in done)} orders, {sum(filled for _, _, filled in done)} fills"
    print(json.dumps({"seconds": sum(took for took, _, _ in done), "did": did, "models": MODELS}))


if __name__ == "__main__":
    main()

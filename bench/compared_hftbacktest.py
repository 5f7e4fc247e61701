"""hftbacktest's part of `bench/compared.py`: runs in an environment that has it, on events as JSON."""

import json
import sys
import time
from pathlib import Path

import numpy as np
from hftbacktest import (
    BUY_EVENT,
    DEPTH_CLEAR_EVENT,
    DEPTH_EVENT,
    EXCH_EVENT,
    GTX,
    LIMIT,
    LOCAL_EVENT,
    SELL_EVENT,
    BacktestAsset,
    HashMapMarketDepthBacktest,
    event_dtype,
)
from numba import njit

MODELS = (
    "one market at a time, the strategy compiled by numba, which looks at each 10 ms; queue place by a power-law share of "
    "decreases (no trades in the data), feed 20 ms + order 30 ms, no fees, no risk rules"
)
TICK = 0.001


def events_of(rows: list[list[int]]) -> np.ndarray:
    """Rows as hftbacktest's records."""
    found = np.zeros(len(rows) * 2, event_dtype)
    n = 0
    for at, side, price, size in rows:
        both = EXCH_EVENT | LOCAL_EVENT
        if side == 0:
            for flag, bound in ((BUY_EVENT, 0.0), (SELL_EVENT, 1.0)):
                found[n] = (
                    DEPTH_CLEAR_EVENT | both | flag,
                    at * 1000,
                    at * 1000 + 20_000_000,
                    bound,
                    0,
                    0,
                    0,
                    0,
                )
                n += 1
            continue
        flag = BUY_EVENT if side == 1 else SELL_EVENT
        found[n] = (
            DEPTH_EVENT | both | flag,
            at * 1000,
            at * 1000 + 20_000_000,
            price / 1e4,
            size / 100,
            0,
            0,
            0,
        )
        n += 1
    return found[:n]


@njit
def quote(hbt, half, size):
    """A bid and an ask around the mid, moved when the mid has moved by a cent, at most each 300 ms."""
    orders, last_bid, last_ask, mid_bid, mid_ask = 0, -(10**18), -(10**18), 0.0, 0.0
    while hbt.elapse(10_000_000) == 0:
        hbt.clear_inactive_orders(0)
        depth = hbt.depth(0)
        if not (depth.best_bid > 0.05 and depth.best_ask < 0.95 and depth.best_bid < depth.best_ask):
            continue
        mid = (depth.best_bid + depth.best_ask) / 2
        now = hbt.current_timestamp
        position = hbt.position(0)
        mine = hbt.orders(0)
        if now - last_bid >= 300_000_000 and (abs(mid - mid_bid) >= half or 1 not in mine):
            if 1 in mine:
                if mine.get(1).cancellable:
                    hbt.cancel(0, 1, False)
                    last_bid = now
            elif position < 50:
                price = min(np.floor((mid - half) / 0.01) * 0.01, depth.best_ask - 0.01)
                hbt.submit_buy_order(0, 1, price, size, GTX, LIMIT, False)
                orders += 1
                last_bid, mid_bid = now, mid
        if now - last_ask >= 300_000_000 and (abs(mid - mid_ask) >= half or 2 not in mine):
            if 2 in mine:
                if mine.get(2).cancellable:
                    hbt.cancel(0, 2, False)
                    last_ask = now
            elif position > -50:
                price = max(np.ceil((mid + half) / 0.01) * 0.01, depth.best_bid + 0.01)
                hbt.submit_sell_order(0, 2, price, size, GTX, LIMIT, False)
                orders += 1
                last_ask, mid_ask = now, mid
    return orders


def run(events: np.ndarray) -> tuple[int, int]:
    """Orders and fills of one market."""
    asset = (
        BacktestAsset()
        .data([events])
        .linear_asset(1.0)
        .constant_order_latency(30_000_000, 20_000_000)
        .power_prob_queue_model(2.0)
        .partial_fill_exchange()
        .trading_value_fee_model(0.0, 0.0)
        .tick_size(TICK)
        .lot_size(0.01)
    )
    hbt = HashMapMarketDepthBacktest([asset])
    orders = quote(hbt, 0.01, 10.0)
    fills = int(hbt.state_values(0).num_trades)
    hbt.close()
    return orders, fills


def main() -> None:
    """Once to compile, once for the clock."""
    markets = [events_of(rows) for rows in json.loads(Path(sys.argv[1]).read_text())]
    run(markets[0])
    began = time.process_time()
    done = [run(events) for events in markets]
    took = time.process_time() - began
    did = f"{sum(orders for orders, _ in done)} orders, {sum(fills for _, fills in done)} fills"
    print(json.dumps({"seconds": took, "did": did, "models": MODELS}))


if __name__ == "__main__":
    main()

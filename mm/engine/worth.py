"""What a market may earn for the write tokens it takes: the order in which the whole venue is looked at.

An estimate from a listing alone, the same for every market, made to sort tens of thousands of them; it decides which markets
are quoted, never how. Whole numbers throughout: money in 1/1,000,000 dollar an hour, tokens an hour.

    income = flow * (edge - maker fee) + incentives
    flow   = QUEUE_SHARE of the contracts traded an hour, by the last 24 hours
    edge   = our half-spread, or half of the market's where that is narrower
    tokens = renewals of two quotes + a cancel and a create for each quote that is met or that a trade moves

Far events tie money up: income counts half when the event ends in `HALF_LIFE`, a third in twice that.
"""

from fractions import Fraction
from typing import Final

import attrs

from mm.domain.fees import FeeSchedule, FeeType
from mm.domain.fill import Liquidity
from mm.domain.market import Market, MarketStatus
from mm.domain.numbers import DOLLAR, SECOND, Count, Micros, Money
from mm.engine.hybrid_risk import OPEN_FROM, OPEN_TO
from mm.engine.parameters import StrategyParameters

HOUR: Final = 3_600 * SECOND
HALF_LIFE: Final = 7 * 24 * HOUR
LEAST_TIME: Final = 15 * 60 * SECOND
"""A market that ends sooner is not begun with: its quotes would have to go before they have earned their tokens."""
TRADE_SIZE: Final = Count(2_000)
"""Contracts a print, as an estimate: so often does a market's price have a reason to move."""
MOVES_SHARE: Final = 4
"""One print in so many moves the mark by enough to replace a quote."""


@attrs.frozen(kw_only=True)
class TokenCosts:
    """What keeping a market costs."""

    create: int = 10
    cancel: int = 2
    amend: int = 10
    renewals_per_hour: int = 240
    """Of two quotes, at half of their life of 60 seconds."""


@attrs.frozen(kw_only=True, order=False)
class Worth:
    """The estimate. `why_not` says why a market is not to be quoted at all; empty when it may be."""

    income: Money = Money(0)
    """An hour."""
    tokens: int = 1
    """An hour."""
    why_not: str = ""

    @property
    def per_token(self) -> int:
        """1/1,000,000 dollar a token. What orders the venue."""
        return self.income // self.tokens

    @property
    def why(self) -> str:
        """In words."""
        return self.why_not or f"{self.per_token} micro-dollars a token"


def estimate(
    market: Market,
    fees: FeeSchedule | None,
    reward_per_hour: Money,
    now: Micros,
    parameters: StrategyParameters,
    costs: TokenCosts,
) -> Worth:
    """One market's worth.

    Args:
        fees: Of its series with the event's overrides; None: not known, so not quoted.
        reward_per_hour: What incentive programs may pay us for resting there (our share, not the pot).
    """
    why_not = _why_not(market, fees, now, parameters)
    if why_not or fees is None or market.yes_bid is None or market.yes_ask is None:
        return Worth(why_not=why_not or "no two-sided market")
    twice_mid = market.yes_bid + market.yes_ask
    edge = min(parameters.base_spread, (market.yes_ask - market.yes_bid + 1) // 2)
    per_hour = market.volume_24h // 24
    flow = Fraction(parameters.queue_share) * per_hour
    is_waived = market.fee_waiver_until is not None and market.fee_waiver_until > now
    rate = Fraction(0) if is_waived else fees.rate(Liquidity.MAKER)
    # k * P * (1 - P) a contract, in 1/10,000 dollar, from twice the mid.
    fee = rate * twice_mid * (2 * DOLLAR - twice_mid) / (4 * DOLLAR)
    gross = int(flow * (edge - fee)) + reward_per_hour
    ends_in = _ends_in(market, now)
    income = gross * HALF_LIFE // (HALF_LIFE + ends_in) if gross > 0 else gross
    met = int(flow) // max(1, parameters.size_per_fill)
    moved = per_hour // TRADE_SIZE // MOVES_SHARE
    tokens = costs.renewals_per_hour * costs.amend + (met + 2 * moved) * (costs.create + costs.cancel)
    why_not = "" if income > 0 else "earns less than its fees" if per_hour else "nobody trades it"
    return Worth(income=Money(income), tokens=max(1, tokens), why_not=why_not)


def _ends_in(market: Market, now: Micros) -> int:
    """Until the event is over; the close is only the last day on which it could be."""
    ends = market.expected_expiration or market.close_time
    return HALF_LIFE if ends is None else max(0, ends - now)


def _why_not(market: Market, fees: FeeSchedule | None, now: Micros, parameters: StrategyParameters) -> str:
    if market.status is not MarketStatus.ACTIVE:
        return f"market is {market.status.value}"
    if fees is None:
        return "the fees of its series are not known"
    if fees.fee_type is FeeType.FLAT:
        return "fee type flat is not understood"
    if market.yes_bid is None or market.yes_ask is None or market.yes_bid >= market.yes_ask:
        return "no two-sided market"
    widest = parameters.max_quoted_spread
    if widest is not None and market.yes_ask - market.yes_bid > widest:
        return "wider than MAX_QUOTED_SPREAD"
    mid = (market.yes_bid + market.yes_ask) // 2
    if not OPEN_FROM <= mid <= OPEN_TO:
        return "extreme price"
    if _ends_in(market, now) < LEAST_TIME:
        return "about to end"
    return ""

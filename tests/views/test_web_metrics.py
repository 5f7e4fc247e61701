"""Metrics say what the snapshot says, in the format that Prometheus reads; dashboard and rules name only what exists."""

import json
import re
from pathlib import Path

import attrs
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from mm.domain.histogram import HistogramView
from mm.domain.numbers import Count, Money
from mm.views.web.metrics import Metrics
from web_rig import make_market, make_snapshot

CONFIG = Path(__file__).parents[2] / "config"
FROM_PROMETHEUS = {"up"}
"""Series that the scraper itself makes."""


def samples(metrics: Metrics, **changes: object) -> dict[str, float]:
    """Every sample of a scrape, by name and labels as text."""
    snapshot = make_snapshot(**changes)  # type: ignore[arg-type]
    found = {}
    for family in text_string_to_metric_families(metrics.render(snapshot).decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_units_are_dollars_contracts_and_seconds() -> None:
    """The integers of the books in the units that their names say."""
    found = samples(Metrics())

    assert found["mm_realized_pnl_dollars"] == pytest.approx(12.345678)
    assert found["mm_unrealized_pnl_dollars"] == pytest.approx(-1.234567)
    assert found["mm_fees_dollars_total"] == pytest.approx(3.2145)
    assert found["mm_filled_contracts_total"] == 570.0
    assert found["mm_fills_total"] == 57.0
    assert found["mm_exposure_contracts{kind=worst}"] == 80.0
    assert found["mm_limit_used_ratio{limit=MAX_GLOBAL_INVENTORY}"] == pytest.approx(0.1)
    assert found["mm_budget_tokens{budget=write}"] == 180.0
    assert found["mm_feed_age_seconds"] == pytest.approx(0.12)
    assert found["mm_markets{state=quoting}"] == 3.0


def test_the_latency_histogram_is_cumulative() -> None:
    """Buckets add up, as Prometheus wants them."""
    view = HistogramView(bounds=(0.1, 1.0), counts=(3, 2, 1), total=4.5)
    found = samples(Metrics(), write_latency=view)

    assert found["mm_write_latency_seconds_bucket{le=0.1}"] == 3
    assert found["mm_write_latency_seconds_bucket{le=1}"] == 5
    assert found["mm_write_latency_seconds_bucket{le=+Inf}"] == 6
    assert found["mm_write_latency_seconds_count"] == 6
    assert found["mm_write_latency_seconds_sum"] == 4.5


def test_each_scrape_is_the_newest_snapshot() -> None:
    """Nothing of an earlier one stays: a market that is over has no series any more."""
    metrics = Metrics()
    first = samples(metrics, markets=2)
    second = samples(metrics, markets=1, fills=58)

    gone = make_market(1).ticker
    assert f"mm_market_position_contracts{{market={gone}}}" in first
    assert f"mm_market_position_contracts{{market={gone}}}" not in second
    assert second["mm_fills_total"] == 58.0


def test_hostile_label_values_are_escaped() -> None:
    """A ticker with quotes and line breaks stays one label."""
    snapshot = attrs.evolve(
        make_snapshot(0),
        markets=(make_market(0, ticker='a"b\\c\nd', position=Count(200), realized=Money(0)),),
    )
    text = Metrics().render(snapshot).decode()
    families = {f.name: f for f in text_string_to_metric_families(text)}

    assert families["mm_market_position_contracts"].samples[0].labels == {"market": 'a"b\\c\nd'}


def names_in(expression: str) -> set[str]:
    """Names of series in a PromQL expression."""
    return set(re.findall(r"\bmm_[a-z_]+|\bup\b", expression))


def expressions() -> list[tuple[str, str]]:
    """Every expression of the Grafana dashboard and of the alert rules, with where it stands."""
    board = json.loads((CONFIG / "grafana-dashboard.json").read_text())
    found = [(p["title"], t["expr"]) for p in board["panels"] for t in p["targets"]]
    rules = yaml.safe_load((CONFIG / "prometheus-alerts.yml").read_text())
    found += [(r["alert"], r["expr"]) for g in rules["groups"] for r in g["rules"]]
    return found


def test_dashboard_and_rules_name_only_series_that_exist() -> None:
    """Renaming a series without its users fails here."""
    exported = {sample.partition("{")[0] for sample in samples(Metrics())} | FROM_PROMETHEUS

    for where, expression in expressions():
        assert names_in(expression), where
        assert names_in(expression) <= exported, where
        for opening, closing in ("()", "{}", "[]"):
            assert expression.count(opening) == expression.count(closing), where


def test_every_rule_says_how_bad_it_is_and_what_to_do() -> None:
    """An alert without an action is noise."""
    rules = yaml.safe_load((CONFIG / "prometheus-alerts.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert rule["annotations"]["summary"]
            assert rule["annotations"]["action"]


def test_dashboard_panels_do_not_overlap() -> None:
    """Twenty-four columns, each panel in its own place."""
    board = json.loads((CONFIG / "grafana-dashboard.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({p["id"] for p in board["panels"]}) == len(board["panels"])


def test_every_series_is_documented_and_every_documented_one_exists() -> None:
    """The page's table and the code cannot part."""
    page = (CONFIG.parent / "docs" / "dashboard.md").read_text().partition("## Metrics")[2]
    told = {name for name in re.findall(r"`(mm_[a-z_]+)", page) if not name.startswith("mm_process_")}
    exported = {
        re.sub(r"_(bucket|count|sum)$", "", sample.partition("{")[0])
        for sample in samples(Metrics())
        if not sample.startswith("mm_process_")
    }

    assert told == exported

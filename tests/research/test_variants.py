"""`--strategy`: several strategies or parameter sets side by side in one back-test."""

import io
import json
from pathlib import Path

import pytest

from mm.domain.errors import ConfigError
from mm.research.columns import write_columns
from mm.research.command import Request, run_recordings
from mm.research.variants import parse_variants
from tapes import wandering_tape


def test_labels_names_and_parameters_are_told_apart() -> None:
    """Upper case is everybody's, lower case the strategy's own; --set is common to all."""
    wide, join = parse_variants(
        ["wide=hybrid:BASE_SPREAD=0.03", "join"], ["SIZE_PER_FILL=5", "BASE_SPREAD=0.02"]
    )
    assert (wide.label, wide.strategy.name, wide.parameters.base_spread) == ("wide", "hybrid", 300)
    assert (join.label, join.strategy.name, join.parameters.base_spread) == ("join", "join", 200)
    assert wide.parameters.size_per_fill == join.parameters.size_per_fill == 500
    (usual,) = parse_variants([], [])
    assert usual.label == usual.strategy.name == "hybrid"


def test_every_problem_is_told_at_once() -> None:
    """Unknown names, parameters that nobody has, forms, labels given twice."""
    with pytest.raises(ConfigError) as caught:
        parse_variants(["nope", "hybrid:BASE_SPREAD=9", "hybrid:what=1", "join", "join"], ["FOO"])
    text = "\n".join(caught.value.problems)
    for part in ("'nope'", "BASE_SPREAD='9'", "'what'", "'join' is given twice", "expected NAME=VALUE"):
        assert part in text


def test_each_runs_as_it_would_alone(tmp_path: Path) -> None:
    """The first is reported in full, the others beside it with the difference game by game."""
    pytest.importorskip("pyarrow", reason="needs the research extra: pyarrow")
    path = tmp_path / "tape.parquet"
    write_columns(wandering_tape(1, markets=4, events=400), path)
    texts = ["hybrid", "wide=hybrid:BASE_SPREAD=0.03", "slow-wide-small", "avellaneda-stoikov", "join"]
    alone = {}
    for text in texts:
        out = tmp_path / "alone.json"
        request = Request(recordings=[path], strategies=[text], bounds=False, json_out=out)
        assert run_recordings(request, io.StringIO()) == 0
        alone[text.partition("=")[0]] = json.loads(out.read_text())["totals"]
    out, page = tmp_path / "together.json", tmp_path / "page.html"
    stdout = io.StringIO()
    request = Request(recordings=[path], strategies=texts, bounds=False, json_out=out, html_out=page)
    assert run_recordings(request, stdout) == 0
    together = json.loads(out.read_text())
    assert together["strategy"] == "hybrid"
    assert together["totals"] == alone["hybrid"]
    for label, found in together["strategies"].items():
        more = found.pop("dollars_per_game_more")
        found.pop("parameters")
        assert found == alone[label]
        assert more["games"] == 2
        assert label in page.read_text()
        assert label in stdout.getvalue()
    assert len({found["net"] for found in alone.values()}) > 2

"""Surveys look at every architecture once: they name the least, and the quantiles of a full list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from any_tables import random_table
from nnmeter_nas.cli import main
from nnmeter_nas.costs.table import FactorTable, Positions, every_architecture
from nnmeter_nas.errors import LookupTableError
from nnmeter_nas.parallel.bulk import workers
from nnmeter_nas.solve import survey as module
from nnmeter_nas.solve.ranking import fastest
from nnmeter_nas.solve.survey import survey


@st.composite
def all_terms(draw: st.DrawFn) -> FactorTable:
    sizes = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=5)))
    some = st.sets(st.integers(0, len(sizes) - 1), min_size=1).map(lambda found: tuple(sorted(found)))
    return random_table(sizes, draw(st.lists(some, max_size=6, unique=True)), draw(st.integers(0, 99)))


@given(all_terms(), st.integers(1, 9), st.sampled_from([1, 5, 2**15]), st.sampled_from([1, 7, 2**26]))
def test_survey_is_that_of_a_full_list(table: FactorTable, count: int, group: int, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_GROUP", group)
        patch.setattr(module, "_CHUNK", chunk)
        found = survey(table, count, bins=50)
    every = every_architecture(table.sizes)
    values = np.sort(table.values(every))
    assert found.architectures == len(every)
    assert table.values(found.least) == pytest.approx(values[:count])
    assert len(np.unique(found.least, axis=0)) == min(count, len(every))
    width = found.edges[1] - found.edges[0] + 1e-9
    for share in (0.0, 0.3, 0.5, 1.0):
        exact = values[max(int(np.ceil(share * len(every))) - 1, 0)]
        assert abs(found.quantile(share) - exact) <= width


def test_survey_names_those_that_ranking_finds_without_looking() -> None:
    sizes = (4,) * 11
    pairs: list[Positions] = [(i, i + 1) for i in range(10)]
    table = random_table(sizes, [*((i,) for i in range(11)), *pairs], seed=1)
    found = survey(table, 30)
    assert found.architectures == 4**11
    np.testing.assert_array_equal(found.least, fastest(table, 30))


def test_survey_ranks_where_too_many_choices_interact_for_ranking_without() -> None:
    sizes = (3,) * 12
    pairs: list[Positions] = [(i, j) for i in range(12) for j in range(i + 1, 12)]
    table = random_table(sizes, pairs, seed=2)
    with pytest.raises(LookupTableError, match="too many choices interact"):
        fastest(table, 5)
    values = np.sort(table.values(every_architecture(sizes)))
    assert table.values(survey(table, 5).least) == pytest.approx(values[:5])


def test_survey_on_workers_is_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("joblib")
    monkeypatch.setattr(module, "_CHUNK", 2**16)
    table = random_table((4,) * 10, [(i, i + 1) for i in range(9)], seed=3)
    expected = survey(table, 30)
    with workers(2):
        found = survey(table, 30)
    for field in ("least", "edges", "counts"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))


@pytest.mark.parametrize(
    ("arguments", "sizes"), [({"count": 0}, (2,)), ({"bins": 0}, (2,)), ({}, (2,) * 63)]
)
def test_survey_that_there_cannot_be_is_refused(arguments: dict[str, int], sizes: tuple[int, ...]) -> None:
    with pytest.raises(LookupTableError, match=r"must be at least 1|too many to look at each"):
        survey(FactorTable.of_sizes(sizes, 0.0, {}), **arguments)


def test_command_ranks_every_architecture_as_it_does_without_looking(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("nni", reason="reads a search space")
    command = ["lut", "rank", "spos-small", "--predictor", "cortexA76cpu_tflite21", "--top", "7", "--json"]
    assert main(command) == 0
    expected = capsys.readouterr().out
    assert main([*command, "--every"]) == 0
    assert capsys.readouterr().out == expected
    for wrong in (["--every", "--closest", "3"], ["--jobs", "2"]):
        with pytest.raises(SystemExit, match="2"):
            main([*command, *wrong])
        assert "argument --every" in capsys.readouterr().err
    assert main([*command, "--every", "--max-latency", "0.1"]) == 1
    assert "no architecture takes 0.1 ms or less" in capsys.readouterr().err

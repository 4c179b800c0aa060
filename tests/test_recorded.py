"""What is predicted is what was predicted before, to 1e-9, but for changes told here with a reason each."""

from __future__ import annotations

import importlib.util
import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("nni.retiarii", reason="the record holds the graph IR of NNI 2.10")
if importlib.util.find_spec("nni.mutable") is not None:
    pytest.skip("the record holds the graph IR of NNI 2.10", allow_module_level=True)

from recorded import (
    RECORD,
    architecture_figures,
    differences,
    network_cases,
    network_figures,
)

RECORDED = json.loads(RECORD.read_text())

#: Name of each figure that is not what it was -> why. An entry that no longer differs has to go.
CHANGED: dict[str, str] = {}

#: What every run compares: two forms of all networks, all forms of some, and one space of each kind. The rest
#: takes an hour: ``python tests/helpers/recorded.py --check``.
QUICK_FORMS = ("torch", "nnmeter-ir")
QUICK_NETWORKS = ("alexnet", "mobilenet_v2", "squeezenet1_0")
QUICK_SPACES = ("spos-small", "proxylessnas-small", "nasbench201-small")


def quick_cases() -> list[object]:
    """Networks and forms that are quick to compare."""
    return [
        pytest.param(name, form, id=f"{name} {form}")
        for name, form in network_cases()
        if form in QUICK_FORMS or name in QUICK_NETWORKS
    ]


def check(name: str, figures: dict[str, object]) -> None:
    """Compare what is predicted for ``name`` with the record, or with what is told about it."""
    found = differences(RECORDED[name], figures)
    if name in CHANGED:
        assert found, f"{name} is what it was: take it out of CHANGED"
    else:
        assert found == []


@pytest.mark.parametrize(("name", "form"), quick_cases())
def test_a_network_takes_what_it_took(name: str, form: str) -> None:
    check(f"{name} {form}", network_figures(name, form))


@pytest.mark.parametrize("name", QUICK_SPACES)
def test_architectures_of_a_space_take_what_they_took(name: str) -> None:
    for key, figures in architecture_figures(name, exports=0, tables=False):
        check(key, figures)


def test_changes_are_told_of_figures_that_are_recorded() -> None:
    assert CHANGED.keys() - RECORDED.keys() == set()
    assert all(CHANGED.values())

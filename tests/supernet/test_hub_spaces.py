"""The spaces of NNI's hub are read under both NNI lines, with the model graphs of the networks NNI builds."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nni")

from nni_networks import assert_as_nni_makes_them  # noqa: E402
from nnmeter_nas import load_latency_predictor  # noqa: E402
from nnmeter_nas.errors import SpaceError  # noqa: E402
from nnmeter_nas.search_spaces import hub  # noqa: E402
from nnmeter_nas.supernet.named import SPACES, load_space, make_space  # noqa: E402
from nnmeter_nas.supernet.nni_space import space_of  # noqa: E402

pytestmark = [pytest.mark.nni3, pytest.mark.filterwarnings("ignore")]

NAMES = [name for name in SPACES if name.startswith("hub-")]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_model_graphs_match_the_networks_nni_builds(name: str) -> None:
    space = load_space(name)
    assert space.input_shape == (1, 3, 224, 224)
    assert_as_nni_makes_them(space, lambda: make_space(name), 3)


def test_choices_are_those_of_the_hub() -> None:
    proxyless, mobile = load_space("hub-proxylessnas"), load_space("hub-mobilenetv3")
    assert proxyless.candidates["s2_depth"] == ("1", "2", "3", "4")
    assert proxyless.values["s2_depth"] == (1, 2, 3, 4)
    assert proxyless.candidates["s7_i0"] == ("k3e3", "k5e3", "k7e3", "k3e6", "k5e6", "k7e6")
    assert mobile.candidates["s0_width_mult"] == ("0.5", "0.625", "0.75", "1.0", "1.25", "1.5", "2.0")
    assert mobile.values["stem_ks"] == (3, 5)
    assert mobile.candidates["s2_i0_se"] == ("identity", "se")


def test_wider_network_takes_longer() -> None:
    space, predictor = load_space("hub-mobilenetv3"), load_latency_predictor("cortexA76cpu_tflite21")
    narrow = {label: known[0] for label, known in space.candidates.items()}
    wide = narrow | {label: "2.0" for label in narrow if label.endswith("width_mult")}
    slow, fast = (predictor.explain(space.model_graph(chosen)).latency_ms for chosen in (wide, narrow))
    assert 2 * fast < slow


@pytest.mark.slow
def test_cells_rebuilt_by_their_choices_are_built_one_by_one() -> None:
    """An operation in a DARTS reduction cell strides or not depending on its input; no trace has both."""
    darts = importlib.import_module("nni.nas.hub.pytorch").DARTS

    def make() -> Any:
        return darts(16, 3, dataset="cifar")

    assert_as_nni_makes_them(space_of(make(), (1, 3, 32, 32)), make, 3)


@pytest.mark.slow
def test_searchable_channels_of_shufflenet_are_read() -> None:
    def make() -> Any:
        return hub("ShuffleNetSpace", channel_search=True)

    assert_as_nni_makes_them(space_of(make()), make, 2)


def test_error_for_cells_with_dependent_choices_names_the_label() -> None:
    nasbench101 = importlib.import_module("nni.nas.hub.pytorch").NasBench101
    with pytest.raises(SpaceError, match="'cell"):
        space_of(nasbench101(), (1, 3, 32, 32))


def test_unknown_hub_names_are_rejected() -> None:
    with pytest.raises(SpaceError, match="did you mean 'MobileNetV3Space'"):
        hub("MobileNetV3")

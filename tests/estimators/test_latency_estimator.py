"""HardwareLatencyEstimator is NNI's, and prices every candidate and leads a search, which NNI's does not."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")
pytest.importorskip("nni.retiarii", reason="needs NNI 2.10.1")

import torch.nn.functional as F  # noqa: E402
from nni.retiarii import basic_unit, fixed_arch  # noqa: E402
from nni.retiarii.nn.pytorch import LayerChoice  # noqa: E402
from nni.retiarii.oneshot.pytorch import proxyless  # noqa: E402

from any_tables import with_header  # noqa: E402
from nnmeter_nas import LatencyWarning, load_latency_predictor, read_model  # noqa: E402
from nnmeter_nas.costs import FactorTable, build_table, save_table  # noqa: E402
from nnmeter_nas.errors import LookupTableError, ReaderError, SpaceError, UnknownDeviceError  # noqa: E402
from nnmeter_nas.estimators import HardwareLatencyEstimator  # noqa: E402
from toy_supernets import residual_supernet, width_supernet  # noqa: E402

CPU, GPU = "cortexA76cpu_tflite21", "adreno640gpu_tflite21"
TOY_SHAPE = (1, 3, 32, 32)
SHAPE = (1, 3, 16, 16)


class PlainSpace(torch.nn.Module):
    """Choices between modules of torch itself, which NNI's estimator takes to cost nothing."""

    def __init__(self, **more: Any) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 16, 3, padding=1)
        candidates = {f"k{k}": torch.nn.Conv2d(16, 16, k, padding=k // 2) for k in (3, 5, 7)}
        self.body = LayerChoice(OrderedDict(candidates, **more), label="kernel")
        tails: list[Any] = [torch.nn.Conv2d(16, 32, k, 2, k // 2) for k in (3, 5)]
        self.tail = LayerChoice(tails, label="tail")
        self.classifier = torch.nn.Linear(32, 10)

    def forward(self, x: Any) -> Any:
        x = F.relu(self.body(F.relu(self.stem(x))))
        return self.classifier(self.tail(x).mean((2, 3)))


class Skip(torch.nn.Module):
    """A candidate that leaves its layer out."""

    def forward(self, x: Any) -> Any:
        return x * 0


@basic_unit
class Joined(torch.nn.Module):
    """Adds a layer to its input, if there is a layer: it looks at the values, like NNI's own example."""

    def __init__(self, adds: bool) -> None:
        super().__init__()
        self.adds = adds

    def forward(self, x: Any, out: Any) -> Any:
        if torch.sum(torch.abs(out)).item() == 0 and x.size() == out.size():
            return x
        return x + out if self.adds else out


class SkippingBlock(torch.nn.Module):
    """An inverted bottleneck of a chosen kernel; a block that keeps the shape may be left out."""

    def __init__(self, label: str, channels: int, wide: int, stride: int) -> None:
        super().__init__()
        keeps = stride == 1 and channels == wide
        candidates = [self._layer(channels, wide, stride, kernel) for kernel in (3, 5, 7)]
        self.layer = LayerChoice([*candidates, *([Skip()] if keeps else [])], label=label)
        self.joined = Joined(keeps)

    @staticmethod
    def _layer(channels: int, wide: int, stride: int, kernel: int) -> Any:
        inner = 3 * channels
        return torch.nn.Sequential(
            torch.nn.Conv2d(channels, inner, 1, bias=False), torch.nn.BatchNorm2d(inner), torch.nn.ReLU6(),
            torch.nn.Conv2d(inner, inner, kernel, stride, kernel // 2, groups=inner, bias=False),
            torch.nn.BatchNorm2d(inner), torch.nn.ReLU6(),
            torch.nn.Conv2d(inner, wide, 1, bias=False), torch.nn.BatchNorm2d(wide),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        return self.joined(x, self.layer(x))


class SkippingSpace(torch.nn.Module):
    """Such blocks in a row, as in ProxylessNAS."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 16, 3, 2, 1)
        sizes = [(16, 24, 2), (24, 24, 1), (24, 24, 1), (24, 32, 1), (32, 32, 1)]
        self.blocks = torch.nn.Sequential(*(SkippingBlock(f"b{i}", *size) for i, size in enumerate(sizes)))
        self.classifier = torch.nn.Linear(32, 10)

    def forward(self, x: Any) -> Any:
        return self.classifier(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


def estimator_of(model: Any, shape: tuple[int, ...], device: str = CPU) -> HardwareLatencyEstimator:
    return HardwareLatencyEstimator(device, model, shape, dump_lat_table=None)


@pytest.fixture(scope="module")
def plain() -> HardwareLatencyEstimator:
    return estimator_of(PlainSpace(), SHAPE)


@pytest.fixture(scope="module")
def paired() -> HardwareLatencyEstimator:
    """Of a space where two choices change each other's latency."""
    return estimator_of(width_supernet(), TOY_SHAPE)


def random_alphas(estimator: HardwareLatencyEstimator, dtype: Any = None) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)
    return {
        label: torch.randn(len(known), generator=generator, dtype=dtype, requires_grad=True)
        for label, known in estimator.table.candidates.items()
    }


def softmax(alphas: dict[str, Any]) -> dict[str, Any]:
    return {label: alpha.softmax(0) for label, alpha in alphas.items()}


def test_gradient_of_architecture_parameters_matches_finite_differences(
    paired: HardwareLatencyEstimator,
) -> None:
    assert paired.table.interactions()
    alphas = random_alphas(paired, torch.float64)
    expected = paired.cal_expected_latency(softmax(alphas))
    assert expected.shape == ()
    expected.backward()
    step = 1e-5
    for label, alpha in alphas.items():
        for i in range(len(alpha)):
            shift = step * F.one_hot(torch.tensor(i), len(alpha))
            low, high = (
                paired.cal_expected_latency(softmax({**alphas, label: alpha.detach() + sign * shift})).item()
                for sign in (-1, 1)
            )
            assert alpha.grad[i].item() == pytest.approx((high - low) / (2 * step), rel=1e-4, abs=1e-9)
        assert alpha.grad.abs().max() > 1e-3


def test_expected_latency_of_certain_choices_is_the_exported_latency(
    paired: HardwareLatencyEstimator,
) -> None:
    sizes = {label: len(known) for label, known in paired.table.candidates.items()}
    for chosen in ({label: size - 1 for label, size in sizes.items()}, dict.fromkeys(sizes, 0)):
        certain = {label: [float(i == chosen[label]) for i in range(n)] for label, n in sizes.items()}
        assert paired.cal_expected_latency(certain).item() == pytest.approx(paired.export_latency(chosen))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_probabilities_may_be_tensors_of_any_precision_or_numbers(
    paired: HardwareLatencyEstimator, dtype: Any
) -> None:
    halves = {label: [0.5, 0.5, *[0.0] * (len(c) - 2)] for label, c in paired.table.candidates.items()}
    exact = paired.table.expected(halves)
    tensors = {label: torch.tensor(p, dtype=dtype, requires_grad=True) for label, p in halves.items()}
    assert paired.cal_expected_latency(tensors).item() == pytest.approx(exact, rel=1e-6)
    mixed = {**tensors, "kernel": halves["kernel"], "last": np.array(halves["last"], dtype=np.float32)}
    assert paired.cal_expected_latency(mixed).item() == pytest.approx(exact, rel=1e-6)
    scalars = {label: list(p) for label, p in tensors.items()}
    paired.cal_expected_latency(scalars).backward()
    assert all(p.grad.abs().max() > 0 for p in tensors.values())


def test_architectures_are_priced_by_index_name_or_module_as_the_network_they_are(
    plain: HardwareLatencyEstimator,
) -> None:
    space = PlainSpace()
    space.body, space.tail = space.body["k5"], space.tail["1"]
    alone = load_latency_predictor(CPU).predict(read_model(space, "torch", SHAPE))
    for chosen in (
        {"kernel": 1, "tail": 1},
        {"kernel": "k5", "tail": "1"},
        {"body": np.int64(1), "tail": torch.tensor(1)},
    ):
        assert plain.export_latency(chosen) == pytest.approx(alone)


def test_table_is_in_nnis_layout_and_plain_modules_of_torch_have_a_price(
    plain: HardwareLatencyEstimator,
) -> None:
    table = plain.block_latency_table
    assert {label: list(prices) for label, prices in table.items()} == {
        "kernel": ["0", "1", "2"], "tail": ["0", "1"], "stationary_block": ["root"],
    }  # fmt: skip
    assert all(ms > 0 for prices in table.values() for ms in prices.values())
    assert table["kernel"]["0"] < table["kernel"]["1"] < table["kernel"]["2"]
    total = table["stationary_block"]["root"] + table["kernel"]["2"] + table["tail"]["0"]
    assert total == pytest.approx(plain.export_latency({"kernel": 2, "tail": 0}))


def test_candidate_with_an_operator_without_a_price_is_refused_by_name() -> None:
    odd = torch.nn.Sequential(torch.nn.Conv2d(16, 16, 1), torch.nn.Softmax(1))
    message = r"candidate 'odd' of the choice 'kernel' has no measured price.*softmax.*strict=False"
    with pytest.raises(LookupTableError, match=message):
        estimator_of(PlainSpace(odd=odd), SHAPE)
    for _ in ("built", "from the cache"):
        with pytest.warns(LatencyWarning, match="leaves out .*softmax"):
            lenient = HardwareLatencyEstimator(CPU, PlainSpace(odd=odd), SHAPE, None, strict=False)
    assert lenient.block_latency_table["kernel"]["3"] > 0
    with pytest.warns(LatencyWarning, match="leaves out .*softmax"):
        HardwareLatencyEstimator(lenient.table, None, SHAPE)


def test_nnis_own_trainer_searches_with_it(
    plain: HardwareLatencyEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    adam = torch.optim.Adam

    def adam_as_nni_calls_it(*args: Any, betas: Any, **kwargs: Any) -> Any:
        return adam(*args, betas=tuple(map(float, betas)), **kwargs)  # (0, 0.999), which torch now refuses

    torch.manual_seed(0)
    model = PlainSpace()
    images = torch.utils.data.TensorDataset(torch.randn(32, *SHAPE[1:]), torch.randint(0, 10, (32,)))
    monkeypatch.setattr(torch.optim, "Adam", adam_as_nni_calls_it)
    with pytest.warns(DeprecationWarning, match="ProxylessTrainer"):
        trainer = proxyless.ProxylessTrainer(
            model, F.cross_entropy, lambda logits, y: {}, torch.optim.SGD(model.parameters(), lr=0.01),
            num_epochs=4, dataset=images, batch_size=4, workers=0, device=torch.device("cpu"),
            arc_learning_rate=0.2, grad_reg_loss_type="add#linear", grad_reg_loss_params={"lambda": 50.0},
            ref_latency=plain.export_latency({"kernel": 0, "tail": 0}),
        )  # fmt: skip
    trainer.latency_estimator = plain
    trainer.fit()
    assert trainer._export_latency() == plain.export_latency(trainer.export())
    assert trainer.export() == {"kernel": 0, "tail": 0}  # the fastest, as latency counts for so much


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel": [0.5, 0.5]}, r"'kernel' must be of shape \[3\]"),
        ({"kernel": [0.5, 0.5, 0.5]}, "'kernel' must sum to 1; they sum to 1.5"),
        ({"kernel": [float("nan"), 0.5, 0.5]}, "'kernel' must be numbers from 0 to 1"),
        ({"kernel": [-0.5, 0.5, 1.0]}, "'kernel' must be numbers from 0 to 1"),
        ({"kernel": "likely"}, "'kernel' must be numbers from 0 to 1"),
        ({"kernel": None}, "'kernel' must be numbers from 0 to 1"),
        ({"kernal": [0.5, 0.5]}, "no choice 'kernal'; did you mean 'kernel'"),
        ({"body": [1.0, 0.0, 0.0]}, "'kernel' is given twice, the second time as 'body'"),
    ],
)
def test_wrong_probabilities_are_refused_by_label(
    plain: HardwareLatencyEstimator, changes: dict[str, Any], message: str
) -> None:
    good = {"kernel": [0.0, 0.5, 0.5], "tail": [0.5, 0.5]}
    with pytest.raises(LookupTableError, match=message):
        plain.cal_expected_latency({**good, **changes})


def test_blocks_that_ask_whether_a_candidate_is_zero_are_priced_as_the_networks_that_nni_makes() -> None:
    estimator = estimator_of(SkippingSpace(), TOY_SHAPE)
    table, predictor = estimator.table, load_latency_predictor(CPU)
    assert table.header.left_out == {}
    assert {label: len(known) for label, known in table.candidates.items()} == {
        "b0": 3, "b1": 4, "b2": 4, "b3": 3, "b4": 4,
    }  # fmt: skip
    rng = np.random.default_rng(0)
    rows = [[2, 3, 3, 2, 3], *(rng.integers(0, 3, 5).tolist() for _ in range(4)), [0, 3, 1, 0, 3]]
    for row in rows:
        architecture = {label: str(index) for label, index in zip(table.candidates, row, strict=True)}
        with fixed_arch(architecture, verbose=False):
            network = SkippingSpace()
        indices = {label: int(index) for label, index in architecture.items()}
        wanted = predictor.predict(network, input_shape=TOY_SHAPE)
        assert estimator.export_latency(indices) == pytest.approx(wanted, rel=1e-9)
    odds = {label: torch.ones(len(known), requires_grad=True) for label, known in table.candidates.items()}
    estimator.cal_expected_latency({label: o / o.sum() for label, o in odds.items()}).backward()
    assert all(int(odds[label].grad.argmin()) == 3 for label in ("b1", "b2", "b4"))


def test_a_block_that_looks_at_the_data_is_refused_with_its_line() -> None:
    class Gated(PlainSpace):
        def forward(self, x: Any) -> Any:
            return super().forward(x if x.mean() > 0 else -x)  # the gate

    with pytest.raises(ReaderError, match=r"test_latency_estimator\.py:\d+ .*# the gate\) decides by values"):
        estimator_of(Gated(), SHAPE)


def test_a_choice_that_is_left_out_is_refused(plain: HardwareLatencyEstimator) -> None:
    with pytest.raises(LookupTableError, match="lack the choice 'tail'"):
        plain.cal_expected_latency({"kernel": [0.0, 0.5, 0.5]})
    with pytest.raises(LookupTableError, match="lack the choice"):
        plain.cal_expected_latency({})
    with pytest.raises(SpaceError, match="leaves open tail"):
        plain.export_latency({"kernel": 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel": 3}, "'kernel' has 3 candidates, and no index 3"),
        ({"kernel": -1}, "no index -1"),
        ({"kernel": "k4"}, "has no candidate 'k4'"),
        ({"kernel": 0.5}, "has no candidate 0.5"),
        ({"tall": 0}, "no choice 'tall'; did you mean 'tail'"),
    ],
)
def test_architectures_of_another_space_are_refused_by_label(
    plain: HardwareLatencyEstimator, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises((LookupTableError, SpaceError), match=message):
        plain.export_latency({"kernel": 0, "tail": 0, **changes})


# --- Tables that are given, and written ---


@pytest.fixture(scope="module")
def table() -> FactorTable:
    return build_table(residual_supernet(), load_latency_predictor(CPU))


@pytest.mark.parametrize("suffix", [".yaml", ".npz"])
def test_tables_and_their_files_serve_as_well_as_the_space(
    table: FactorTable, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"table{suffix}"
    save_table(table, path)
    built = estimator_of(residual_supernet(), SHAPE)
    for arguments in (
        (table,), (path,), (str(path),), (table, residual_supernet()), (CPU, table), (CPU.upper(), str(path)),
    ):  # fmt: skip
        given = HardwareLatencyEstimator(*arguments, dummy_input=SHAPE, dump_lat_table=tmp_path / "not.yaml")
        assert given.block_latency_table == built.block_latency_table
        assert given.predictor_name == CPU
    assert not (tmp_path / "not.yaml").exists()


@pytest.mark.parametrize(
    ("changes", "arguments", "shape", "message"),
    [
        ({}, (GPU,), SHAPE, f"is of {CPU}, not of {GPU}"),
        ({}, (), (1, 3, 224, 224), r"input shape \(1, 3, 16, 16\), and dummy_input is \(1, 3, 224, 224\)"),
        ({"pack_fingerprint": "0"}, (), SHAPE, "is stale.*build it anew"),
        ({"pack_fingerprint": "0"}, (CPU,), SHAPE, "is stale.*build it anew"),
        ({"space_fingerprint": "0"}, (None, residual_supernet()), SHAPE, "another content of the space"),
        ({}, (None, residual_supernet(channels=8)), SHAPE, "another content of the space"),
        ({}, (None, width_supernet()), TOY_SHAPE, "input shape"),
        ({"constant": 99.0}, (None, residual_supernet()), SHAPE, "is stale: its full graphs"),
    ],
)
def test_table_of_something_else_or_stale_is_never_used(
    table: FactorTable, changes: dict[str, Any], arguments: Any, shape: Any, message: str
) -> None:
    facts = {name: fact for name, fact in changes.items() if name != "constant"}
    given = dataclasses.replace(with_header(table, **facts), constant=changes.get("constant", table.constant))
    device, model = (*arguments, None, None)[:2]
    with pytest.raises(LookupTableError, match=message):
        HardwareLatencyEstimator(device or given, given if device else model, shape, None)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("cortexA76", residual_supernet()), UnknownDeviceError, "did you mean 'cortexA76cpu_tflite21'"),
        ((CPU,), LookupTableError, "model=None"),
        ((CPU, torch.nn.Linear(3, 4)), SpaceError, "is no search space"),
        ((CPU, 7), (ReaderError, SpaceError), "is no search space"),
        ((CPU, "missing.yaml"), LookupTableError, "cannot read the lookup table missing.yaml"),
    ],
)
def test_unusable_arguments_are_refused_and_nothing_is_written(
    arguments: Any, error: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        HardwareLatencyEstimator(*arguments, dummy_input=SHAPE, dump_lat_table=tmp_path / "table.yaml")
    assert not list(tmp_path.iterdir())


def test_dumped_tables_are_appended_as_nni_does_and_never_twice(tmp_path: Path) -> None:
    path = tmp_path / "data" / "latency_table.yaml"
    prices = {"a": {"0": 1.0}, "stationary_block": {"root": 2.0}}
    theirs = [{"applied_hardware": CPU, "latency_table": prices}]
    path.parent.mkdir()
    path.write_text(yaml.dump(theirs).rstrip("\n"), encoding="utf-8")
    made = [
        HardwareLatencyEstimator(device, residual_supernet(), SHAPE, path) for device in (CPU, GPU, CPU, GPU)
    ]
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert entries[0] == theirs[0]
    assert [entry["applied_hardware"] for entry in entries] == [CPU, CPU, GPU]
    assert [entry["latency_table"] for entry in entries[1:]] == [e.block_latency_table for e in made[:2]]


@pytest.mark.parametrize("content", [b"- latency_table: {layer", b"a: 1", b"- 1", b"\xff\xfe\x00"])
def test_file_of_something_else_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "latency_table.yaml"
    path.write_bytes(content)
    with pytest.raises(LookupTableError, match=r"latency_table\.yaml.*left as it is"):
        HardwareLatencyEstimator(CPU, residual_supernet(), SHAPE, path)
    assert path.read_bytes() == content


APPEND_TABLES = """
import dataclasses, sys
from nnmeter_nas.estimators.latency_estimator import append_table
from nnmeter_nas.costs import load_table

table = load_table(sys.argv[2])
for i in range(10):
    header = dataclasses.replace(table.header, space=f"{sys.argv[3]}-{i}")
    append_table(sys.argv[1], dataclasses.replace(table, header=header))
"""


@pytest.mark.slow
def test_processes_that_append_at_once_lose_no_table(table: FactorTable, tmp_path: Path) -> None:
    source, path = tmp_path / "table.npz", tmp_path / "latency_table.yaml"
    save_table(table, source)
    command = [sys.executable, "-c", APPEND_TABLES, path, source]
    working = [subprocess.Popen([*command, name]) for name in "abc"]
    assert [one.wait(timeout=120) for one in working] == [0, 0, 0]
    spaces = [entry["details"]["space"] for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]
    assert sorted(spaces) == [f"{name}-{i}" for name in "abc" for i in range(10)]

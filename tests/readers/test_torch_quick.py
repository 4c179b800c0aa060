"""Quick results of ATen calls have the shape and type of torch's own, and torch decides what is unsure."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from nnmeter_nas.readers.torch.quick import quick_result  # noqa: E402

aten = torch.ops.aten


def floats(*shape: int, dtype: Any = torch.float32, device: str = "meta") -> Any:
    return torch.empty(shape, dtype=dtype, device=device)


X = floats(1, 8, 15, 12)
KNOWN = [
    (aten.conv2d.default, (X, floats(6, 8, 3, 3), floats(6))),
    (aten.conv2d.default, (X, floats(8, 1, 5, 3), None, [2, 1], [2, 0], [1, 2], 8)),
    (aten.conv2d.default, (floats(1, 8, 9, 9, dtype=torch.float16), floats(4, 4, 1, 1, dtype=torch.float16),
                           None, [3, 3], [0, 0], [1, 1], 2)),
    (aten.relu.default, (X,)),
    (aten.relu_.default, (floats(1, 8, 4, 4),)),
    (aten.batch_norm.default, (X, *(floats(8) for _ in range(4)), False, 0.1, 1e-5, True)),
    (aten.add.Tensor, (X, X)),
    (aten.mul.Tensor, (X, floats(1, 8, 1, 1))),
    (aten.div.Tensor, (X, 6)),
]  # fmt: skip
UNSURE = [
    (aten.conv2d.default, (X, floats(6, 4, 3, 3))),  # channels do not fit
    (aten.conv2d.default, (X, floats(6, 8, 17, 3))),  # the kernel is larger than the image
    (aten.batch_norm.default, (X, *(floats(9) for _ in range(4)), False, 0.1, 1e-5, True)),
    (aten.mul.Tensor, (floats(1, 8, 1, 1), X)),  # the result is larger than the first
    (aten.add.Tensor, (X, floats(1, 8, 15, 12, dtype=torch.float64))),
    (aten.mul.Tensor, (X, 1j)),
    (aten.relu.default, (floats(2, 3, device="cpu"),)),
    (aten.mean.dim, (X, [2, 3])),
]


@pytest.mark.parametrize(("func", "args"), KNOWN)
def test_known_results_are_torchs(func: Any, args: tuple[Any, ...]) -> None:
    quick, own = quick_result(func, args), func(*args)
    assert quick is not None
    assert (quick.shape, quick.dtype, quick.device) == (own.shape, own.dtype, own.device)
    assert (quick is args[0]) == (own is args[0])


@pytest.mark.parametrize(("func", "args"), UNSURE)
def test_unsure_results_are_left_to_torch(func: Any, args: tuple[Any, ...]) -> None:
    assert quick_result(func, args) is None

"""What TFLite's benchmark_model prints, in the forms of its versions."""

from __future__ import annotations

import pytest

from nnmeter_nas.backends.adb.benchmark import Row, latency_ms, rows, unknown_flags
from nnmeter_nas.backends.adb.kernels import kernels_of
from nnmeter_nas.backends.base import KernelTime
from nnmeter_nas.errors import MeasurementError

#: TFLite 2.1, and nn-Meter's build of it: a column for the start, no numbers of operators, no prefix.
OLD = """\
STARTING!
Min num runs: [50]
Loaded model /data/local/tmp/model.tflite
Initialized session in 17.527ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=4 first=130565 curr=120829 min=117370 max=130565 avg=122373 std=4930

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=885931 curr=881142 min=851668 max=903937 avg=880688 std=12426

============================== Run Order ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t\
[times called]\t[Name]
\t                     PAD\t            0.000\t   11.161\t   11.156\t  1.267%\t  1.267%\t     0.000\t\
        1\t[conv_1/1]
\t                 CONV_2D\t           11.158\t    9.939\t   10.067\t  1.143%\t  2.410%\t     0.000\t\
        1\t[relu_3]
\t               TRANSPOSE\t           21.225\t    1.000\t    1.500\t  0.143%\t  2.410%\t     0.000\t\
        1\t[tensor7/turned]
\t                   SPLIT\t           21.225\t    1.000\t    2.500\t  0.143%\t  2.410%\t     0.000\t\
        1\t[split_4, split_4]

============================== Top by Computation Time ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t\
[times called]\t[Name]
\t                     PAD\t            0.000\t   11.161\t   11.156\t  1.267%\t  1.267%\t     0.000\t\
        1\t[conv_1/1]

Number of nodes executed: 4
Timings (microseconds): count=50 first=885931 curr=881142 min=851668 max=903937 avg=880688 std=12426
Memory (bytes): count=0
4 nodes observed
"""

#: TFLite 2.16: prefixes, a median, a table of the initialization, and operators inside the delegate.
NEW = """\
INFO: Loaded model model.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: count=88 first=5678 curr=5600 min=5500 max=9000 avg=5700 std=100 p5=5500 median=5650 p95=6000

INFO: count=177 first=5604 curr=5601 min=5578 max=6789 avg=5634.26 std=91 p5=5580 median=5612 p95=5700

INFO: Inference timings in us: Init: 4630, First inference: 5678, Warmup (avg): 5700, Inference (avg): 5634
INFO: Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t ModifyGraphWithDelegate\t    1.000\t    1.000\t 61.0%\t 61.0%\t  0.000\t        1\tModifyGraph/0
\t         AllocateTensors\t    0.600\t    0.600\t 39.0%\t 100.0%\t  0.000\t        1\tAllocateTensors/0

============================== Summary by node type ==============================
INFO: Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t   TfLiteXNNPackDelegate\t    5.600\t    5.632\t 99.0%\t 99.0%\t     0.000\t        1\t[fc_9]:12

Delegate internal:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\tConvolution (NHWC, F32) IGEMM\t0.163\t0.1999\t11.4%\t11.4%\t0.000\t1\tDelegate/Convolution (NHWC, F32) \
IGEMM:0
"""

#: LiteRT: spaces between cells, operators inside the delegate by their kind.
LITERT = """\
=============================================== Run Order ================================================
                             [node type]    [start]    [first]   [avg ms]        [%]     [cdf%]   [mem KB] \
[times called]   [Name]
  Delegate/Convolution (NHWC, F32) IGEMM      0.000      0.084      0.089     0.781%     0.781%      0.000 \
             5   [Delegate]:0
              Delegate/Mean (ND) Reduce2      0.000      0.013      0.012     0.106%    99.310%      0.000 \
             5   [Delegate]:15

========================================= Top by Computation Time ==========================================
"""


@pytest.mark.parametrize(
    ("output", "ms"),
    [
        (OLD, 880.688),
        (NEW, 5.612),
        ("Inference timings in us: Init: 1, Warmup (avg): 2.5e+06, Inference (avg): 3.4e+06", 3400.0),
        ("Inference timings in us: Init: 1, First inference: 3, Warmup (avg): 2, Inference (avg): 0", 0.0),
        ("Average inference timings in us: Warmup: 122373, Init: 17527, no stats: 119375", 119.375),
        # nn-Meter takes the kernels of a GPU for the latency.
        ("comp_avg_ms=4.25 comp_std_ms=0.01\nTimings (microseconds): count=5 first=9 avg=99 std=1", 4.25),
    ],
)
def test_the_latency_is_that_of_the_runs_after_the_warm_up(output: str, ms: float) -> None:
    assert latency_ms(output) == pytest.approx(ms)


def test_without_a_latency_the_last_words_are_told() -> None:
    with pytest.raises(MeasurementError, match=r"told no latency; its last words: ERROR: no memory$"):
        latency_ms("STARTING!\nERROR: no memory\n\n")
    with pytest.raises(MeasurementError, match=r"its last words: nothing$"):
        latency_ms("")


def test_the_table_in_run_order_is_read_and_no_other() -> None:
    assert rows(OLD) == [
        Row("PAD", 11.156, "conv_1/1", False),
        Row("CONV_2D", 10.067, "relu_3", False),
        Row("TRANSPOSE", 1.5, "tensor7/turned", False),
        Row("SPLIT", 2.5, "split_4, split_4", False),
    ]
    inside = "Delegate/Convolution (NHWC, F32) IGEMM:0"
    assert rows(NEW) == [
        Row("TfLiteXNNPackDelegate", 5.632, "fc_9", False),
        Row("Convolution (NHWC, F32) IGEMM", 0.1999, inside, True),
    ]
    assert rows(LITERT) == [
        Row("Convolution (NHWC, F32) IGEMM", 0.089, "Delegate", True),
        Row("Mean (ND) Reduce2", 0.012, "Delegate", True),
    ]
    assert rows("") == []
    with pytest.raises(MeasurementError, match=r"says of an operator: CONV_2D\s+11\.158\s+9\.939\s+fast"):
        rows(OLD.replace("10.067", "fast"))


def test_rows_become_kernels_by_the_names_of_their_tensors() -> None:
    assert kernels_of(rows(OLD), list) == [
        KernelTime(("conv_1",), "PAD", 11.156),
        KernelTime(("relu_3",), "CONV_2D", 10.067),
        KernelTime(("split_4",), "SPLIT", 4.0),  # and the transposition before it
    ]


def test_flags_that_a_build_does_not_know_are_told() -> None:
    assert unknown_flags("WARN: Unconsumed cmdline flags: --use_xnnpack=true") == "--use_xnnpack=true"
    assert unknown_flags(OLD) == ""

"""TFLite's benchmark_model on a fake phone: it reads a .tflite file and prints what the real one prints.

What an operator takes follows from its kind and its sizes. The file ``faults`` in the phone's root says what
goes wrong, as ``network0003=hang all=zero``: also ``garbage``, ``killed``, ``error``, ``crash``, ``delegate``
and ``flags``, ``old``. ``quiet`` prints no table, ``xnnpack`` that of a delegate that hides its inside. With
a number, as in ``killed:2``, it happens so often. It runs alone, without the packages of the tests.
"""

import os
import signal
import struct
import sys
import time

_NAMES = {
    0: "ADD", 1: "AVERAGE_POOL_2D", 2: "CONCATENATION", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D",
    9: "FULLY_CONNECTED", 14: "LOGISTIC", 17: "MAX_POOL_2D", 18: "MUL", 19: "RELU", 22: "RESHAPE",
    25: "SOFTMAX", 34: "PAD", 39: "TRANSPOSE", 40: "MEAN", 49: "SPLIT", 67: "TRANSPOSE_CONV",
    97: "RESIZE_NEAREST_NEIGHBOR", 117: "HARD_SWISH", 126: "BATCH_MATMUL",
}  # fmt: skip
#: Multiply-adds and values a microsecond, and what each operator costs beside, in microseconds.
_MACS, _VALUES, _LAUNCH_US = 6e3, 1.5e3, 4.0
_WITH_WEIGHTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


class Table:
    """A table of a flatbuffer."""

    def __init__(self, data, at):
        self.data, self.at = data, at
        self.fields = at - struct.unpack_from("<i", data, at)[0]

    def _field(self, number):
        size = struct.unpack_from("<H", self.data, self.fields)[0]
        offset = 4 + 2 * number
        return struct.unpack_from("<H", self.data, self.fields + offset)[0] if offset < size else 0

    def integer(self, number, form="<i"):
        offset = self._field(number)
        return struct.unpack_from(form, self.data, self.at + offset)[0] if offset else 0

    def _vector(self, number):
        offset = self._field(number)
        if not offset:
            return 0, 0
        at = self.at + offset
        at += struct.unpack_from("<I", self.data, at)[0]
        return at + 4, struct.unpack_from("<I", self.data, at)[0]

    def integers(self, number):
        at, count = self._vector(number)
        return struct.unpack_from(f"<{count}i", self.data, at)

    def text(self, number):
        at, count = self._vector(number)
        return self.data[at : at + count].decode()

    def tables(self, number):
        at, count = self._vector(number)
        places = [at + 4 * i for i in range(count)]
        return [Table(self.data, place + struct.unpack_from("<I", self.data, place)[0]) for place in places]


def product(sizes):
    found = 1
    for size in sizes:
        found *= size
    return found


def operators(path):
    """Kind, names of the results and microseconds of each operator of a file."""
    with open(path, "rb") as file:
        data = file.read()
    if data[4:8] != b"TFL3":
        sys.exit(f"ERROR: Model provided has no model identifier 'TFL3'\nFailed to load model {path}")
    model = Table(data, struct.unpack_from("<I", data, 0)[0])
    codes = [max(code.integer(0, "<b"), code.integer(3)) for code in model.tables(1)]
    graph = model.tables(2)[0]
    tensors = graph.tables(0)
    shapes = [tensor.integers(0) for tensor in tensors]
    for operator in graph.tables(3):
        code = codes[operator.integer(0, "<I")]
        kind = _NAMES.get(code, f"OPERATOR_{code}")
        inputs, outputs = operator.integers(1), operator.integers(2)
        out = product(shapes[outputs[0]])
        us = _LAUNCH_US + sum(product(shapes[i]) for i in (*inputs, *outputs)) / _VALUES
        if kind in _WITH_WEIGHTS:
            weights = shapes[inputs[1]]
            inner = weights[1:3] if kind == "DEPTHWISE_CONV_2D" else weights[1:]
            us += out * product(inner) / _MACS
        yield kind, ", ".join(tensors[i].text(3) for i in outputs), us


def fault_of(name):
    """The fault that a model has this time; one with a number is used up."""
    root = os.environ["PHONE_ROOT"]
    try:
        with open(root + "/faults") as file:
            entries = file.read().split()
    except FileNotFoundError:
        return ""
    for entry in entries:
        which, _, fault = entry.partition("=")
        kind, _, count = fault.partition(":")
        if which not in ("all", name):
            continue
        if not count:
            return kind
        used = f"{root}/used-{name}-{kind}"
        times = os.path.getsize(used) if os.path.exists(used) else 0
        if times < int(count):
            with open(used, "a") as file:
                file.write("x")
            return kind
    return ""


_HEADINGS = ("node type", "first", "avg ms", "%", "cdf%", "mem KB", "times called", "Name")


def titled(title):
    """Print the title of a table."""
    print(f"============================== {title} ==============================")


def count(block, us):
    """Print how long the runs of a block took."""
    print(f"{block}count=20 first={us:g} curr={us:g} min={us:g} max={us:g} avg={us:g} std=3")


def table(rows, total):
    """Print the operators in the order in which they ran, and the tables that follow."""
    lines, so_far = [], 0.0
    for kind, name, us in rows:
        so_far += us
        cells = f"{us / 1e3:9.3f}\t{us / 1e3:9.3f}\t{us / total:8.3%}\t{so_far / total:8.3%}"
        lines.append((us, f"\t{kind:>24}\t{cells}\t{0:10.3f}\t{1:9d}\t{name}"))
    for title, of_table in (("Run Order", lines), ("Top by Computation Time", sorted(lines)[:-11:-1])):
        titled(title)
        print("\t" + "\t".join(f"{'[' + heading + ']':>10}" for heading in _HEADINGS))
        print("\n".join(line for _, line in of_table) + "\n")
    print(f"Number of nodes executed: {len(rows)}")
    titled("Summary by node type")
    print("\t [Node type]\t  [count]\t  [avg ms]\t    [avg %]\t    [cdf %]\t  [mem KB]\t[times called]")
    print(f"\t{rows[0][0]}\t1\t9.000\t9.000%\t9.000%\t0.000\t1\n")
    count("Timings (microseconds): ", total)
    print(f"Memory (bytes): count=0\n{len(rows)} nodes observed\n")


def main():
    flags = dict(flag.lstrip("-").split("=", 1) for flag in sys.argv[1:])
    path = flags["graph"]
    fault = fault_of(os.path.basename(path).rpartition(".")[0])
    print(f"INFO: STARTING!\nINFO: Graph: [{path}]")
    if fault == "hang":
        sys.stdout.flush()
        time.sleep(3600)
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "error":
        sys.exit("ERROR: Node number 3 (CONV_2D) failed to prepare.\nFailed to allocate tensors!")
    if fault == "garbage":
        return print("\x00\x17 lorem ipsum\n\tdolor\tsit\n")
    if fault == "delegate":
        print("ERROR: Failed to apply GPU delegate.")
    if fault == "flags":
        print("WARN: Unconsumed cmdline flags: --use_xnnpack=true")
    if flags.get("use_xnnpack") == "true" and fault != "old":
        print("INFO: Use xnnpack: [1]")
    print(f"INFO: Loaded model {path}")
    rows = list(operators(path))
    total = 0.0 if fault == "zero" else sum(us for _, _, us in rows)
    init, warm = 1e3 + total, 1.2 * total
    print("INFO: Running benchmark for at least 1 iterations and at least 0.2 seconds.")
    count("INFO: ", warm)
    print(f"INFO: Running benchmark for at least {flags['num_runs']} iterations.")
    count("INFO: ", total)
    print(
        f"INFO: Inference timings in us: Init: {init:g}, First inference: {warm:g}, "
        f"Warmup (avg): {warm:g}, Inference (avg): {total:g}"
    )
    if flags.get("enable_op_profiling") != "true" or fault == "quiet":
        return None
    print("Profiling Info for Benchmark Initialization:")
    table([("AllocateTensors", "AllocateTensors/0", init)], init)
    print("Operator-wise Profiling Info for Regular Benchmark Runs:")
    if fault == "xnnpack":
        rows = [("TfLiteXNNPackDelegate", rows[-1][1], total)]
    table([(kind, f"[{name}]:{i}", us) for i, (kind, name, us) in enumerate(rows)], total or 1.0)
    return None


if __name__ == "__main__":
    main()

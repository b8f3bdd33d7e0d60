"""Shared code of the benchmarks: timing, peak memory, options and reports."""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch


def interleaved(sides, repeats=5, warm_up=1):
    """Times several callables in turn, so that other load affects all alike.

    Arguments
    ---------
    sides : dict
        Name to a callable without arguments. Its method ``prepare``, if any, is
        called before each call and not timed.
    repeats : int
        Timed rounds; each calls every side once.
    warm_up : int
        Rounds before them that are not timed.

    Returns
    -------
    dict
        Name to list of seconds.

    Example
    -------
    >>> sorted(interleaved({"a": int, "b": int}, repeats=2)["a"])[0] >= 0
    True
    """
    seconds = {name: [] for name in sides}
    for turn in range(warm_up + repeats):
        for name, run in sides.items():
            if hasattr(run, "prepare"):
                run.prepare()
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(seconds):
    """Computes the median of each side's seconds.

    Example
    -------
    >>> medians({"a": [3.0, 1.0, 2.0]})
    {'a': 2.0}
    """
    return {name: statistics.median(times) for name, times in seconds.items()}


def report(result, as_json):
    """Prints a result.

    Arguments
    ---------
    result : dict
        Name to JSON value.
    as_json : bool
        Whether to print one JSON object instead of a line per number.

    Example
    -------
    >>> report({"ratio": 4.56789, "all_seconds": {}}, False)
    ratio                       4.568
    """
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        if isinstance(value, float):
            value = f"{value:.3f}"
        if name != "all_seconds":
            print(f"{name:<28}{value}")


def machine(device):
    """Describes the machine that a result was measured on."""
    return {
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "device": device,
        "torch": torch.__version__,
    }


def options_of(description, repeats=5):
    """Creates a parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="JSON alone")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, for tests"
    )
    return parser


def timed(sides, options):
    """Times several callables as :func:`interleaved` does, and matrix products
    for reference.

    Returns
    -------
    median : dict
        Name to median of the seconds.
    facts : dict
        Last entries of a report: "matrix_product_tflops", :func:`machine`, and
        all times as "all_seconds".
    """
    product = MatrixProduct(options.device, options.quick)
    seconds = interleaved({**sides, "matrix_product": product}, options.repeats)
    median = medians(seconds)
    return median, {
        "matrix_product_tflops": product.tflops(median.pop("matrix_product")),
        **machine(options.device),
        "all_seconds": seconds,
    }


def run(measure, options, folder=None):
    """Prints the result of ``measure``, a function of a folder and the options;
    without ``folder``, in a temporary folder."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        report(measure(folder or temporary, options), options.json)


def in_own_process(*words, without=()):
    """Runs a Python program and parses the last line of its output.

    Arguments
    ---------
    *words : str
        Program and arguments.
    without : sequence of str
        Environment variables to remove.

    Returns
    -------
    object
        JSON value of the last line.
    """
    done = subprocess.run(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        check=True,
        env={k: v for k, v in os.environ.items() if k not in without},
    )
    return json.loads(done.stdout.splitlines()[-1])


def peak_mb():
    """Returns the peak memory of this process so far.

    Returns
    -------
    float
        MiB.
    """
    # Not ru_maxrss, which a child process inherits.
    status = Path("/proc/self/status").read_text("ascii")
    (peak,) = re.findall(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(peak) / 1024


class MatrixProduct:
    """Products of square float32 matrices, to measure the machine's speed.

    Arguments
    ---------
    device : str
        Device of the matrices.
    quick : bool
        Whether to use small matrices, for tests.
    times : int
        Products per call.

    Example
    -------
    >>> MatrixProduct(quick=True, times=4).flop  # 4 * 2 * 64 ** 3
    2097152.0
    """

    def __init__(self, device="cpu", quick=False, times=5):
        size = 64 if quick else 2048
        self.a = torch.randn(size, size, device=device)
        self.b = torch.randn(size, size, device=device)
        self.times = times
        self.flop = 2.0 * size**3 * times

    def __call__(self):
        """Computes the products."""
        for _ in range(self.times):
            torch.mm(self.a, self.b)

    def tflops(self, seconds):
        """Converts the duration of a call to TFLOP/s.

        Arguments
        ---------
        seconds : float
            Duration of a call.

        Returns
        -------
        float
            1e12 operations per second.
        """
        return self.flop / seconds / 1e12

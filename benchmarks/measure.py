"""What the benchmarks share: interleaved timing, the machine's rate, reports,
and programs that are made of these.
"""

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
    """Times several things in turn, so that a busy machine hurts all alike.

    Arguments
    ---------
    sides : dict
        Name to a callable without arguments; what its method ``prepare`` does,
        if it has one, comes before each call and is not timed.
    repeats : int
        Timed rounds; in each, every side runs once.
    warm_up : int
        Rounds before that are not timed.

    Returns
    -------
    dict
        Name to the list of seconds.

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
    """Median of each side.

    Arguments
    ---------
    seconds : dict
        From :func:`interleaved`.

    Returns
    -------
    dict

    Example
    -------
    >>> medians({"a": [3.0, 1.0, 2.0]})
    {'a': 2.0}
    """
    return {name: statistics.median(found) for name, found in seconds.items()}


def report(result, as_json):
    """Prints a result.

    Arguments
    ---------
    result : dict
        Name to number, text or what JSON can hold.
    as_json : bool
        As one object, or else a line for each number.

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
    """What a result was measured on.

    Arguments
    ---------
    device : str
        Where.

    Returns
    -------
    dict
    """
    return {
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "device": device,
        "torch": torch.__version__,
    }


def options_of(description, repeats=5):
    """The command line that all benchmarks have.

    Arguments
    ---------
    description : str
        Of the program.
    repeats : int
        The default.

    Returns
    -------
    argparse.ArgumentParser
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="JSON alone")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--quick", action="store_true", help="little of everything: a test"
    )
    return parser


def timed(sides, options):
    """Times several things and, as a yardstick, a product of matrices.

    Arguments
    ---------
    sides : dict
        As for :func:`interleaved`.
    options : argparse.Namespace
        From :func:`options_of`.

    Returns
    -------
    found : dict
        Name to the median of the seconds.
    facts : dict
        What every report ends with: "matrix_product_tflops", the
        :func:`machine`, and in "all_seconds" each single time.
    """
    yardstick = MatrixProduct(options.device, options.quick)
    seconds = interleaved(
        {**sides, "matrix_product": yardstick}, options.repeats
    )
    found = medians(seconds)
    return found, {
        "matrix_product_tflops": yardstick.tflops(found.pop("matrix_product")),
        **machine(options.device),
        "all_seconds": seconds,
    }


def run(measure, options, folder=None):
    """Measures and prints.

    Arguments
    ---------
    measure : callable
        From a folder and the options to the result.
    options : argparse.Namespace
        From :func:`options_of`.
    folder : str
        What is written there stays; None: it goes.
    """
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        report(measure(folder or temporary, options), options.json)


def in_own_process(*words, without=()):
    """What a Python program prints.

    Arguments
    ---------
    *words : str
        The program and its arguments.
    without : sequence of str
        Environment variables that it does not get.

    Returns
    -------
    object
        Of the last line, as JSON.
    """
    done = subprocess.run(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        check=True,
        env={k: v for k, v in os.environ.items() if k not in without},
    )
    return json.loads(done.stdout.splitlines()[-1])


def peak_mb():
    """Peak memory of this process so far.

    Returns
    -------
    float
        MiB.
    """
    # Not ru_maxrss: a process that another one starts begins with the peak of
    # that one.
    status = Path("/proc/self/status").read_text("ascii")
    (peak,) = re.findall(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(peak) / 1024


class MatrixProduct:
    """Products of square fp32 matrices, as a yardstick.

    Arguments
    ---------
    device : str
        Where.
    quick : bool
        Small ones: for tests.
    times : int
        Products in a call.

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
        """The rate at which the products were computed.

        Arguments
        ---------
        seconds : float
            Of a call.

        Returns
        -------
        float
            1e12 operations a second.
        """
        return self.flop / seconds / 1e12

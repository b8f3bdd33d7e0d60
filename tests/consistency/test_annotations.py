"""Every public function of the package says what it takes and gives."""

import ast
from pathlib import Path

import pytest

import vavl_sb

PACKAGE = Path(vavl_sb.__file__).parent
# Rooms and files that are not done yet, by their path in the package.
NOT_YET = {
    "cli",
    "corpora",
    "dataio",
    "evaluation",
    "faces",
    "features",
    "inference",
    "lobes/vavl.py",
    "lobes/visual_encoder.py",
    "lobes/visual_init.py",
    "media",
    "nnet",
    "training/arguments.py",
    "training/brain.py",
    "training/distributed.py",
    "training/epoch_log.py",
    "training/epochs.py",
    "training/experiment.py",
    "training/init_from_pretrained.py",
    "training/loss_meters.py",
    "training/mixup.py",
    "training/objectives.py",
    "training/report.py",
    "training/run_fingerprint.py",
    "training/schedules.py",
    "utils/distributed.py",
    "utils/profiler.py",
    "utils/signals.py",
}
# What transformers calls by arguments of its own, and ASGI's three.
UNTYPED = {"override_config", "join_layers", "__call__"}


def public_functions(body, kind=None):
    """Functions and methods that a reader of the module meets."""
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name[0] != "_":
            yield from public_functions(node.body, node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name == "__init__" or node.name[0] != "_":
                yield node, kind


def missing(node, kind):
    """Names of a function's arguments without a type, and "return"."""
    given = node.args
    names = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    decorators = {getattr(d, "id", "") for d in node.decorator_list}
    if kind is not None and "staticmethod" not in decorators:
        names = names[1:]
    lacking = [name.arg for name in names if name.annotation is None]
    if node.returns is None and node.name != "__init__":
        lacking.append("return")
    return lacking


def modules():
    """The package's modules, by their path in it."""
    return {
        path.relative_to(PACKAGE).as_posix(): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def is_done(name):
    """Whether a module is none of :data:`NOT_YET`."""
    return name not in NOT_YET and name.split("/")[0] not in NOT_YET


@pytest.mark.parametrize("name", filter(is_done, modules()))
def test_public_functions_are_annotated(name):
    tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
    faults = [
        f"{kind or name}.{node.name}: {', '.join(missing(node, kind))}"
        for node, kind in public_functions(tree.body)
        if node.name not in UNTYPED and missing(node, kind)
    ]
    assert faults == []


def test_what_is_not_done_yet_is_there():
    there = {*modules(), *(name.split("/")[0] for name in modules())}
    assert NOT_YET <= there

"""Every public function of the package says what it takes and gives."""

import ast
from pathlib import Path

import pytest

import vavl_sb

PACKAGE = Path(vavl_sb.__file__).parent
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


@pytest.mark.parametrize("name", modules())
def test_public_functions_are_annotated(name):
    tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
    faults = [
        f"{kind or name}.{node.name}: {', '.join(missing(node, kind))}"
        for node, kind in public_functions(tree.body)
        if node.name not in UNTYPED and missing(node, kind)
    ]
    assert faults == []

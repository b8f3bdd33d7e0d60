"""What SpeechBrain asks of its recipes and sources, asked of ours.

Each hparams file is listed in tests/recipes/<Dataset>.csv with flags to try
it; listed files exist; each top-level key of a YAML is used by a later !ref or
by the script; `modules` of the script are in the YAML; modules and public
classes and functions have docstrings with the sections they need.
"""

import ast
import csv
import re

import pytest
from conftest import REPOSITORY
from hyperpyyaml import resolve_references
from ruamel.yaml import YAML
from speechbrain.utils.run_opts import RunOptions

COLUMNS = (
    "Task,Dataset,Script_file,Hparam_file,Data_prep_file,Readme_file,"
    "Result_url,HF_repo,test_debug_flags,test_debug_checks,performance"
).split(",")
LISTS = sorted((REPOSITORY / "tests" / "recipes").glob("*.csv"))
FIXED_KEYS = (
    "data_folder output_folder seed partition label_csv audio_encoder_source "
    "visual_encoder_weights face_detector withhold_audio withhold_visual "
    "pretrained_from d_model number_of_epochs batch_size lr"
).split()
SOURCES = sorted(
    path
    for folder in ("vavl_sb", "recipes", "benchmarks")
    for path in (REPOSITORY / folder).rglob("*.py")
    if "results" not in path.parts
)


def rows():
    """All rows of all lists."""
    found = []
    for path in LISTS:
        with open(path, encoding="utf-8", newline="") as file:
            found += list(csv.DictReader(file))
    return found


ROWS = rows()
ROW_IDS = [row["Hparam_file"] for row in ROWS]


def test_every_dataset_and_every_hparams_file_is_listed():
    recipes = {p.name for p in (REPOSITORY / "recipes").iterdir() if p.is_dir()}
    assert recipes == {path.stem for path in LISTS}
    on_disk = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "recipes").glob("*/hparams/*.yaml")
        if "results" not in path.parts
    }
    assert on_disk == set(ROW_IDS)


@pytest.mark.parametrize("path", LISTS, ids=lambda p: p.stem)
def test_columns(path):
    with open(path, encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == COLUMNS


@pytest.mark.parametrize("row", ROWS, ids=ROW_IDS)
def test_listed_files_exist_and_flags_are_given(row):
    for field in (
        "Script_file",
        "Hparam_file",
        "Data_prep_file",
        "Readme_file",
    ):
        assert (REPOSITORY / row[field]).is_file(), row[field]
    assert "--debug" in row["test_debug_flags"]
    assert row["test_debug_checks"].startswith("file_exists=[")


def top_level_keys(text):
    """Top-level keys of a YAML, with the text that follows each."""
    marks = list(re.finditer(r"^([A-Za-z_]\w*):", text, re.MULTILINE))
    return {mark.group(1): text[mark.end() :] for mark in marks}


SHARED = REPOSITORY / "recipes" / "vavl.yaml"


def unused_keys(text, script):
    """Keys that neither a later !ref, the script nor SpeechBrain reads."""
    return [
        key
        for key, rest in top_level_keys(text).items()
        if not re.search(rf"<{key}[\].>\[]", rest)
        and f'["{key}"]' not in script
        and f"hparams.{key}" not in script
        and key not in set(RunOptions().as_dict())
        and not key.startswith("__")
    ]


@pytest.mark.parametrize("row", ROWS, ids=ROW_IDS)
def test_every_key_is_used(row):
    text = (REPOSITORY / row["Hparam_file"]).read_text(encoding="utf-8")
    script = (REPOSITORY / row["Script_file"]).read_text(encoding="utf-8")
    keys = top_level_keys(text)
    assert unused_keys(text, script) == []
    assert unused_keys(SHARED.read_text(encoding="utf-8"), script) == []
    assert [key for key in FIXED_KEYS if key not in keys] == []
    assert re.findall(r"!PLACEHOLDER", text) == ["!PLACEHOLDER"]
    assert keys["data_folder"].lstrip().startswith("!PLACEHOLDER")
    assert list(keys)[0] == "seed"
    nodes = YAML().load(text).values()
    assert sum(not isinstance(node, (dict, list)) for node in nodes) < 40


def test_what_recipes_hand_down_is_what_the_shared_file_waits_for():
    waits = {
        key
        for key, node in YAML().load(SHARED.read_text("utf-8")).items()
        if getattr(getattr(node, "tag", None), "value", "") == "!PLACEHOLDER"
    }
    for row in ROWS:
        text = (REPOSITORY / row["Hparam_file"]).read_text(encoding="utf-8")
        assert waits <= set(YAML().load(text)["shared"])


def test_one_train_py_serves_all_corpora():
    scripts = {REPOSITORY / row["Script_file"] for row in ROWS}
    assert {path.resolve() for path in scripts} == {
        REPOSITORY / "recipes" / "CREMA-D" / "train.py"
    }
    for path in scripts:
        assert not path.is_symlink() or not path.readlink().is_absolute()


def test_nothing_in_the_package_takes_the_hparams():
    found = [
        f"{path.relative_to(REPOSITORY)}: {line.strip()}"
        for path in (REPOSITORY / "vavl_sb").rglob("*.py")
        # Inference loads the YAML of a model's folder; evaluation hands a
        # file's name to train.py.
        if path.parent.name not in ("inference", "evaluation")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"hparams(\[|\.get)|def .*\bhparams\b", line)
    ]
    assert found == []


# All that a change of task may change; no corpus needs more.
TASK_KEYS = {
    "task",
    "labels",
    "prediction_loss",
    "reconstruction_weight",
    "attribute_range",
    "metric",
    "output_folder",
}
# CREMA-D's attributes are the shares of votes of its classes.
SAME_LABELS = {"CREMA-D"}
PAIRS = sorted(
    path.parent
    for path in (REPOSITORY / "recipes").glob("*/hparams/vavl_cls.yaml")
    if path.with_name("vavl_reg.yaml").is_file()
)


@pytest.mark.parametrize("folder", PAIRS, ids=lambda path: path.parent.name)
def test_the_task_is_all_that_two_hparams_files_differ_in(folder):
    lines = [
        (folder / name).read_text(encoding="utf-8").splitlines()
        for name in ("vavl_cls.yaml", "vavl_reg.yaml")
    ]
    differing = [
        pair for pair in zip(*lines, strict=True) if len(set(pair)) > 1
    ]
    title, *others = differing
    assert title == (lines[0][1], lines[1][1])
    assert all(line.startswith("# VAVL on ") for line in title)
    keys = [[line.split(":")[0] for line in pair] for pair in others]
    assert all(first == second for first, second in keys)
    expected = TASK_KEYS - (
        {"labels"} if folder.parent.name in SAME_LABELS else set()
    )
    assert {first for first, _ in keys} == expected
    assert len(keys) == len(expected)


@pytest.mark.parametrize("row", ROWS, ids=ROW_IDS)
def test_hparams_resolve_and_name_real_objects(row, monkeypatch):
    path = REPOSITORY / row["Hparam_file"]
    with open(path, encoding="utf-8") as file:
        text = resolve_references(file, {"data_folder": "x"}).getvalue()
    for name in set(re.findall(r"!(?:new|name|apply):([\w.]+)", text)):
        if "." not in name:
            continue
        module, attribute = name.rsplit(".", 1)
        monkeypatch.syspath_prepend(path.parents[1])  # Of the prepare script.
        found = getattr(__import__(module, fromlist=[attribute]), attribute)
        assert callable(found)


def public_definitions(tree):
    """Public functions and classes of a module, methods of the latter too."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            if node.name.startswith("_"):
                continue
            yield node
            if isinstance(node, ast.ClassDef):
                for method in node.body:
                    if isinstance(
                        method, ast.FunctionDef
                    ) and not method.name.startswith("_"):
                        yield method


@pytest.mark.parametrize(
    "path", SOURCES, ids=lambda p: p.relative_to(REPOSITORY).as_posix()
)
def test_docstrings(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"
    for node in public_definitions(tree):
        text = ast.get_docstring(node)
        assert text, f"{node.name} has no docstring"
        if isinstance(node, ast.FunctionDef):
            arguments = {
                a.arg for a in (*node.args.args, *node.args.kwonlyargs)
            } - {"self", "cls"}
            # A recipe's train.py is as short as SpeechBrain's are.
            if "see the base class" in text or path.name == "train.py":
                continue
            if "Arguments\n---------" not in text:
                continue  # In words, with the types of the signature.
            for name in arguments:
                assert re.search(rf"\b{re.escape(name)}\b", text), (
                    f"{node.name}: {name} is not documented"
                )


def test_importing_the_package_stays_light():
    """No transformers, av, face detector or matplotlib on import."""
    import subprocess
    import sys

    code = (
        "import sys, vavl_sb; heavy = {'transformers', 'av', 'facenet_pytorch',"
        " 'matplotlib', 'gradio', 'timm'}; print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_the_help_of_the_command_is_quick():
    """It loads neither torch nor SpeechBrain."""
    import subprocess
    import sys

    code = (
        "import sys; from vavl_sb import cli; cli._parser(); "
        "print(sorted({'torch', 'speechbrain'} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def imports(path):
    """Modules of the package that a file imports, at any depth."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


# From the ground up: a room imports none above it.
FLOORS = (
    *("utils", "nnet", "media", "faces", "lobes", "features", "dataio"),
    *("training", "inference", "evaluation", "page", "cli"),
)


@pytest.mark.parametrize("floor", FLOORS)
def test_floors(floor):
    above = FLOORS[FLOORS.index(floor) + 1 :]
    for path in (REPOSITORY / "vavl_sb" / floor).rglob("*.py"):
        for module in imports(path):
            package, _, room = module.partition(".")
            assert package != "vavl_sb" or room.split(".")[0] not in above, (
                f"{path.name} imports {module}"
            )

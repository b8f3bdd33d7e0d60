"""Arbitrary input gives a value or one line of a VAVLError, nothing else.

What is fed is near what is expected: a damaged table or manifest more than
noise, since noise is refused by the first check.
"""

import functools
import json
import math
import sys
from pathlib import Path

import pytest
from hypothesis import (
    HealthCheck,
    example,
    given,
    settings,
    strategies as st,
)

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
for recipe in ("CREMA-D", "MSP-IMPROV", "RAVDESS"):
    sys.path.insert(0, str(RECIPES / recipe))

import cremad_prepare  # noqa: E402
import msp_improv_prepare  # noqa: E402
import ravdess_prepare  # noqa: E402

from vavl_sb.dataio.manifest import read_manifest  # noqa: E402
from vavl_sb.dataio.preparation import (  # noqa: E402
    PrepareReport,
    read_partition,
    recorded_folder,
)
from vavl_sb.features.cache import ContentIndex, read_index  # noqa: E402
from vavl_sb.utils.errors import CorpusError, VAVLError  # noqa: E402
from vavl_sb.utils.files import write_json  # noqa: E402

fuzz = functools.partial(
    settings,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def value_or_line(use, *arguments, error=VAVLError):
    """What a call gives; None where it refuses in one line."""
    try:
        return use(*arguments)
    except error as refusal:
        text = str(refusal)
        assert text and len(text.splitlines()) == 1, text
        return None


# Values of JSON, and of a manifest's entries with one thing wrong.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=6)
    | st.sampled_from(["audio", "angry", "{data_root}/a.wav", "{x}", 10**400])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)
GOOD = {
    "wav": "{data_root}/a.wav",
    "video": "{data_root}/a.flv",
    "duration": 2.5,
    "spk_id": "1001",
    "emotion": "angry",
    "arousal": 3.0,
}


@st.composite
def manifests(draw):
    """Text of a manifest: sound, with one field changed, or cut short."""
    entry = dict(GOOD)
    for field in draw(st.lists(st.sampled_from(list(GOOD)))):
        entry[field] = draw(VALUES)
    names = st.text(st.characters(codec=None), max_size=5)
    whole = {draw(names): entry, "b": draw(st.just(GOOD) | VALUES)}
    text = json.dumps(draw(st.just(whole) | VALUES))
    return text[: draw(st.integers(0, 3 * len(text)))]


@fuzz(max_examples=120)
@given(text=manifests())
@example(text="[" * 100000)
@example(text='{"a\\nb": 1}')
@example(text='{"a": {"wav": "a", "video": null, "duration": 1' + "0" * 400)
@example(text="1" * 5000)
def test_any_manifest(tmp_path, text):
    path = tmp_path / "train.json"
    path.write_text(text)
    for options in ({"labels": ["angry"]}, {"attributes": ["arousal"]}, {}):
        found = value_or_line(
            functools.partial(read_manifest, path, data_root="/r", **options)
        )
        for entry in (found or {}).values():
            assert math.isfinite(float(entry["duration"]))
            assert {type(entry["wav"]), type(entry["video"])} <= {
                str,
                type(None),
            }


@fuzz(max_examples=100)
@given(text=manifests() | VALUES.map(json.dumps))
@example(text="[" * 100000)
@example(text='{"data_folder": 3}')
@example(text='{"/a.wav": [1, 2, 3], "/b.wav": "abc"}')
@example(text='{"train": [[]], "valid": [], "test": []}')
def test_any_other_json_file(tmp_path, text):
    path = tmp_path / "prepare_report.json"
    path.write_text(text)
    found = value_or_line(recorded_folder, tmp_path)
    assert found is None or isinstance(found, str)
    value_or_line(read_partition, path, {})
    index = value_or_line(read_index, path)
    assert all(
        set(row) == {"audio", "visual"} for row in (index or {}).values()
    )
    for size, mtime, sha in ContentIndex(path).known.values():
        assert type(size) is type(mtime) is int and len(sha) == 64


# The labels of corpora: tables in which a few places are damaged.


def damaged(text):
    """Bytes of a text with a few places changed, taken out or put in."""
    data = text.encode()
    change = st.tuples(
        st.integers(0, len(data)),
        st.integers(0, 5),
        st.binary(max_size=4)
        | st.sampled_from([b"nan", b"-1", b"1e999", b'"', b"\0", b"\r", b";"])
        | st.sampled_from(["٣".encode(), "²".encode(), b"\x1c", b"0_1"]),
    )

    def apply(changes):
        found = data
        for start, length, new in changes:
            found = found[:start] + new + found[start + length :]
        return found

    return st.lists(change, max_size=4).map(apply) | st.binary(max_size=60)


VOTES = """"","A","D","F","H","N","S","fileName","numResponses"
"300001",0,0,1,2,6,0,"1001_DFA_NEU_XX",9
"300002",5,0,0,0,5,0,"1002_IEO_ANG_HI",10
"100002",5,0,0,0,5,0,"1002_IEO_ANG_HI",10
"""
RELEASED = """FileName,angry,disgust,fear,happy,neutral,sad,SpkrID,Split_Set
1001_DFA_NEU_XX.wav,0,0,0.1,0.2,0.7,0,1001,Train
1002_IEO_ANG_HI.wav,0.5,0,0,0,0.5,0,1002,Test
"""
RATINGS = """UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:2.4; V:3.2 ; D:3.0 ; N:3.6;
ASDFGH; Happy; A:3.000000; V:4.000000; D:nan ; N:3.6;
UTD-IMPROV-S02H-M01-S-FM02.avi; X; A:5; V:1 ; D:3.0 ; N:3.6;
"""
CSV = """FileName,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set
MSP-IMPROV-S01A-F01-P-FM01.wav,2.4,3.2,3.0,1,Female,Train
MSP-IMPROV-S01A-M02-R-FM01.wav,1,5,3.0,2,Male,Development
"""


def shares_are_numbers(found):
    for labels in found.values():
        for name in cremad_prepare.CLASSES:
            assert 0 <= labels.fields[name] < math.inf


def ratings_are_on_the_scale(found):
    for labels in found.values():
        for name in msp_improv_prepare.ATTRIBUTES:
            assert 1 <= labels.fields.get(name, 1) <= 5


@pytest.mark.parametrize(
    "read, table, check",
    [
        (cremad_prepare.read_votes, VOTES, shares_are_numbers),
        (cremad_prepare.read_released, RELEASED, shares_are_numbers),
        (msp_improv_prepare.read_ratings, RATINGS, ratings_are_on_the_scale),
        (msp_improv_prepare.read_released, CSV, ratings_are_on_the_scale),
    ],
    ids=["CREMA-D votes", "CREMA-D csv", "MSP-IMPROV ratings", "MSP csv"],
)
def test_any_table_of_labels(tmp_path, read, table, check):
    path = tmp_path / "labels"
    path.write_text(table)

    def labels(path, report):
        return dict(read(path, report))

    assert len(labels(path, PrepareReport())) == 2

    @fuzz(max_examples=100)
    @given(data=damaged(table))
    @example(data=table.replace(",", ",1" * 140000).encode())
    def try_one(data):
        path.write_bytes(data)
        report = PrepareReport()
        check(value_or_line(labels, path, report, error=CorpusError) or {})
        # What was left out is named, and can be written down.
        write_json(tmp_path / "report.json", vars(report))

    try_one()


@fuzz(max_examples=300)
@given(
    name=st.text(max_size=30)
    | st.from_regex(r"\d{2}(-\d{2}){6}", fullmatch=True)
    | st.from_regex(r"[0-9]{4}_[A-Z]{3}_(ANG|DIS|XXX)_[A-Z]{1,2}")
    | st.from_regex(r"(MSP|utd)-IMPROV-S\d\d[AHNS]-[FM]0\d-[PRST]-[FM]{2}\d+")
)
# Arabic digits, and a letter that is an S where case does not count.
@example(name="٠١-٠١-٠١-٠١-٠١-٠١-٠١")
@example(name="١٠٠١_DFA_ANG_XX")
@example(name="MSP-IMPROV-S٠١A-F01-P-FM01")
@example(name="MSP-IMPROV-ſ01A-F01-P-FM01")
def test_any_name_of_a_file(name):
    for parse in (
        ravdess_prepare.parse_name,
        cremad_prepare.parse_name,
        msp_improv_prepare.parse_name,
    ):
        found = value_or_line(parse, name, error=CorpusError)
        if found is not None:
            # A name that is taken can be a key, and is read the same again.
            assert parse(name) == found and name.isascii()

"""English without translations: what is found in programs, and what must not be."""

import hashlib
import zipfile
from importlib.resources import files

import pytest
from test_06_corpus import TEST, TRAIN, VALIDATION, leaks, needs_wheel

from kdcourse.errors import KdcourseError
from kdcourse.translation import sources
from kdcourse.translation.corpus import near_keys
from kdcourse.translation.decoding import model_hash
from kdcourse.translation.labelling import Labels, keys_hash, source_key
from kdcourse.translation.pipeline import Pipeline
from kdcourse.translation.unlabelled import (
    Held,
    is_prose,
    sentences,
    spelt_out,
    unlabelled,
)

CODE = '''
"""Support for lights of the bridge.

Turn them on and
off. Nothing else: a list follows.
- the first device
- the second device
"""
type Newer = dict[str, int]  # the parser of an older Python would stop here

# A comment goes on
# in its next line.
ATTR_FAN_SPEED = "fan"
x = 1  # another comment
LOGGER.warning("Cannot open %s: %d errors", door, count)
raise Error(
    f"The device {self._host} of {names[0]} did not "
    'answer, it\\'s off'
)
PATH = r"\\d+ of \\w+"


async def async_set_fan_speed(wifi_signal_strength):
    return 'single "quotes" here'
'''


def test_sentences_are_those_of_strings_and_comments():
    found = [text for text in sentences(CODE) if text]
    assert found == [
        "Support for lights of the bridge.",
        "Turn them on and off.",
        "Nothing else: a list follows.",
        "the first device",
        "the second device",
        "the parser of an older Python would stop here A comment goes on in its "
        "next line.",
        "fan",
        "another comment",
        "Cannot open {host}: {name} errors",
        "The device {host} of {value} did not answer, it's off",
        "\\d+ of \\w+",
        'single "quotes" here',
    ]


def test_identifiers_are_spelt_out():
    assert list(spelt_out(CODE)) == [
        "Fan speed",
        "Set fan speed",
        "Wifi signal strength",
    ]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Turn on the light", True),
        ("Turn on the Zigbee light", True),  # one unknown word of five
        ("Turn on Zigbee light", False),  # one of four
        ("light", False),
        (r"light \d+ on", False),
        ("light[0] = on", False),
        (" turn on the light", False),
        ("on " * 40 + "light", False),
    ],
)
def test_prose_is_known_words_without_code(text, kept):
    assert is_prose(text, {"turn", "on", "the", "light"}) is kept


def wheel(path, modules):
    with zipfile.ZipFile(path, "w") as archive:
        for name, code in modules.items():
            archive.writestr(f"homeassistant/{name}", code)
    return path


def test_nothing_comes_from_what_is_held_out(tmp_path):
    """Neither from a held-out component's files, nor a near-duplicate elsewhere."""
    path = wheel(
        tmp_path / "a.whl",
        {
            f"components/{TRAIN}/light.py": 'x = "Open the door"\n'
            'y = "turn on THE light 2"',
            f"components/{TEST}/lock.py": '"Close the door"',
            f"components/{TEST}/deep/lock.py": '"Close the light"',
            f"components/{VALIDATION}/day.py": '"Open the light"',
            "core.py": 'a = ["Turn on the door", "Turn on the door", "Open door"]',
            "core.json": '"Open the device"',
        },
    )
    held = Held({TEST, VALIDATION}, ["Turn on the light!"])
    train = ["Open door", "turn on close the light device"]
    found = unlabelled(path, train, held)
    assert found == ["Open the door", "Turn on the door"]
    assert all(near_keys(text).isdisjoint(held.keys) for text in found)


def test_the_order_is_that_of_the_files_names(tmp_path):
    modules = {"b.py": '"open the door"', "a.py": '"close the door"'}
    train = ["open close the door"]
    found = [
        unlabelled(wheel(tmp_path / name, dict(order)), train, Held((), ()))
        for name, order in (
            ("one.whl", modules.items()),
            ("two.whl", reversed(modules.items())),
        )
    ]
    assert found[0] == found[1] == ["close the door", "open the door"]


def test_a_broken_wheel_is_explained(tmp_path):
    path = tmp_path / "broken.whl"
    path.write_bytes(b"no zip")
    with pytest.raises(KdcourseError, match="broken zip"):
        unlabelled(path, ["open"], Held((), ()))


def test_the_own_wheel_comes_before_the_caches(tmp_path, monkeypatch):
    path = wheel(tmp_path / "own.whl", {"a.py": ""})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(sources, "WHEEL_SHA256", digest)
    monkeypatch.setenv("KDCOURSE_WHEEL", str(path))
    assert sources.apps_wheel(tmp_path / "cache") == path


@pytest.mark.corpus
@needs_wheel
def test_the_shipped_translations_are_of_text_that_leaks_nothing(tmp_path):
    """The very strings that students read, none of them like one that is held out."""
    pipeline = Pipeline(tmp_path)
    text = pipeline.unlabelled_text
    shipped = Labels.load(files("kdcourse") / "assets/labels/es-unlabelled").manifest
    assert shipped["sources"] == keys_hash(sorted(map(source_key, text)))
    assert shipped["count"] == len(text) == 141_546
    assert shipped["teacher"] == model_hash("teacher")
    assert not set(text) & set(pipeline.sides("train")[0])
    for name in ("validation", "test"):
        assert not leaks(set(text), set(pipeline.sides(name)[0]))

"""New sources out of old ones: crossed at shared words, never one that is held out."""

import pytest

from kdcourse.translation.corpus import near_keys
from kdcourse.translation.recombination import is_sound, recombine

SOURCES = [
    "Failed to connect to the device.",
    "Welcome to the setup of {name}.",
    "Go to the settings of your router.",
    "Return to the list of devices",
    "Turn on",
]


def test_each_half_is_the_beginning_or_the_end_of_a_source():
    made = recombine(SOURCES, 50, 1, avoid=SOURCES)
    assert "Failed to connect to the setup of {name}." in made
    for text in made:
        words = text.split(" ")
        assert any(
            SOURCES[i].startswith(" ".join(words[:cut]))
            and SOURCES[j].endswith(" ".join(words[cut:]))
            for cut in range(len(words))
            for i in range(len(SOURCES))
            for j in range(len(SOURCES))
            if i != j
        ), text
    assert not [text for text in made if "Turn" in text]  # it shares no two words


def test_the_same_arguments_give_the_same_sentences():
    first = recombine(SOURCES, 6, 1, avoid=[])
    assert first == recombine(list(SOURCES), 6, 1, avoid=[])
    assert first != recombine(SOURCES, 6, 2, avoid=[])
    assert len(first) == 6


def test_no_near_duplicate_of_what_is_to_be_avoided_or_of_another():
    everything = recombine(SOURCES, 50, 1, avoid=[])
    held_out = "failed to connect, to the SETTINGS of your router"
    assert any(near_keys(text) & near_keys(held_out) for text in everything)
    kept = recombine(SOURCES, 50, 1, avoid=[*SOURCES, held_out])
    assert not [text for text in kept if near_keys(text) & near_keys(held_out)]
    keys = [near_keys(text) for text in kept]
    assert all(not a & b for n, a in enumerate(keys) for b in keys[:n])


@pytest.mark.parametrize(
    ("text", "sound"),
    [
        ("Turn (on) the light", True),
        ("Turn (on the light", False),
        ("Turn on) the (light", True),
        ('The "on state', False),
        ("The `on` state of **it**", True),
        ("The `on state", False),
        ("The **on state", False),
        ("{name} on {host}", True),
        ("{name} on {name}", False),
        ("", False),
    ],
)
def test_torn_signs_and_doubled_placeholders_are_unsound(text, sound):
    assert is_sound(text) is sound


@pytest.mark.parametrize("sources", [[], ["Turn on"], ["one two three"]])
def test_sources_that_share_nothing_give_nothing(sources):
    assert recombine(sources, 5, 1, avoid=[]) == []

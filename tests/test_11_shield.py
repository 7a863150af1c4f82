"""Unseen names go around the model, whole, and never get lost on the way."""

import doctest

import pytest
import tiny

from kdcourse.translation import labelling, shield
from kdcourse.translation.decoding import SearchTranslator, open_translator
from kdcourse.translation.models import build_model, save_model
from kdcourse.translation.shield import NameShield, restore, write_known_words

KNOWN = ["set", "up", "the", "hub", "Philips", "door", "open", "API", "Failed", "light"]


@pytest.mark.parametrize(
    ("text", "covered", "names"),
    [
        ("set up the hub", "set up the hub", {}),
        ("Set up the Philips hub", "Set up the Philips hub", {}),
        ("Tado API", "{name} API", {"{name}": "Tado"}),
        ("the Tado Vistapool hub", "the {name} hub", {"{name}": "Tado Vistapool"}),
        ("Tado's hub", "{name}'s hub", {"{name}": "Tado"}),
        ("Philips's hub", "Philips's hub", {}),
        ("open deCONZ {name}", "open {model} {name}", {"{model}": "deCONZ"}),
        (
            "Tado, Zaptec",
            "{name}, {model}",
            {"{name}": "Tado", "{model}": "Zaptec"},
        ),
        ("A1a, B1b, C1c, D1d, E1e, F1f", "A1a, B1b, C1c, D1d, E1e, F1f", {}),
        ("Pumping the door", "Pumping the door", {}),
        ("open: Shaded door", "open: Shaded door", {}),
        ("the Shaded door", "the {name} door", {"{name}": "Shaded"}),
        ("door {Host}", "door {Host}", {}),
        ("", "", {}),
    ],
)
def test_only_unseen_names_are_covered(text, covered, names):
    assert NameShield(KNOWN).cover(text) == (covered, names)
    assert restore(covered, names) == text


def test_names_return_to_where_their_slots_stand():
    names = {"{name}": "Tado", "{model}": "Zaptec"}
    assert restore("{model} de {name}", names) == "Zaptec de Tado"
    assert restore("de {name}", names) is None  # one was lost
    assert restore("{model} {model} {name}", names) is None  # one came twice


class Parrot(SearchTranslator):
    """Says what it hears in capitals; loses the slot of a text with a door."""

    def __init__(self, known):
        super().__init__(tiny.vocabulary(), 1, 1)
        self.shield, self.heard = NameShield(known), []

    def _said(self, pieces):
        self.heard.append(set(pieces))
        lost = {p: p.replace("{name}", "") if "door" in p else p for p in pieces}
        return {piece: f"¡{text}!" for piece, text in lost.items()}


def test_a_lost_slot_is_translated_again_without_a_cover():
    parrot = Parrot(KNOWN)
    lines = ["open Tado", "open Tado door", "open light"]
    assert parrot.translate(lines) == [
        "¡open Tado!",
        "¡open Tado door!",
        "¡open light!",
    ]
    first, second = parrot.heard
    assert first == {"open {name}", "open {name} door", "open light"}
    assert second == {"open Tado door"}


def test_a_model_folder_brings_its_shield_and_labels_go_without(tmp_path, monkeypatch):
    vocabulary = tiny.vocabulary()
    save_model(build_model(tiny.TINY, vocabulary, 1), vocabulary, tmp_path / "m")
    assert open_translator(tmp_path / "m").shield is None  # nothing is known of words
    write_known_words(tmp_path / "m", ["Open the door", "{host} Alexa"])
    for engine in ("ctranslate2", "torch"):
        known = open_translator(tmp_path / "m", engine).shield.known
        assert {"Open", "the", "door", "Alexa"} <= known and "host" not in known
        assert open_translator(tmp_path / "m", engine, shield=False).shield is None
    opened = []

    def watched(*arguments, **options):
        opened.append(options)
        return open_translator(*arguments, **options)

    monkeypatch.setattr(labelling, "open_translator", watched)
    labelling.label_corpus(["open door"], tmp_path / "m", tmp_path / "labels")
    assert opened == [{"shield": False}]


def test_what_is_known_is_listed_once_and_in_order(tmp_path):
    write_known_words(tmp_path, ["other"])  # a list is replaced, not gone on with
    write_known_words(tmp_path, ["b a", "a c"], known=["d", "b", ""])
    assert (tmp_path / shield.KNOWN_FILE).read_text("utf-8") == "a\nb\nc\nd\n"


def test_the_example_in_the_docstring():
    assert doctest.testmod(shield).failed == 0
    assert doctest.testmod(shield).attempted == 1

"""A tiny language with its vocabulary, models and recipe, for quick tests."""

import random
from pathlib import Path

from kdcourse.translation.examples import fixed_examples
from kdcourse.translation.models import Architecture, build_model, save_model
from kdcourse.translation.training import Recipe, Trainer
from kdcourse.translation.vocabulary import train_vocabulary

WORDS = {
    "turn": "gira",
    "light": "luz",
    "open": "abre",
    "door": "puerta",
    "device": "aparato",
    "name": "nombre",
    "battery": "pila",
    "close": "cierra",
    "window": "ventana",
    "error": "fallo",
}
TINY = Architecture(32, 64, 2, 1, 1, dropout=0.1)


def pairs(count: int = 200, seed: int = 1) -> tuple[list[str], list[str]]:
    """Sentences of two to five words, and their word-for-word translations."""
    rng = random.Random(seed)
    rows = [rng.choices(sorted(WORDS), k=rng.randint(2, 5)) for _ in range(count)]
    return [" ".join(r) for r in rows], [" ".join(WORDS[w] for w in r) for r in rows]


def vocabulary(size: int = 120):
    """A vocabulary of the tiny language, with a few names beside it."""
    sources, targets = pairs()
    extra = ["Alexa", "Routeplanner", "{host}", "{name}", "A1 B2 C3"] * 3
    return train_vocabulary([*sources, *targets, *extra], size)


SIZE = len(vocabulary())
PAD = SIZE - 1


def recipe(budget: int = 2_000, **changes) -> Recipe:
    """A recipe that is spent in about a second."""
    settings = {
        "batch_tokens": 100,
        "peak_learning_rate": 5e-3,
        "warmup_steps": 5,
        "precision": "float32",
    }
    return Recipe(budget, **(settings | changes))


def trained(vocabulary, budget: int):
    """A model that has learned the language's sentences for a budget of tokens."""
    examples = fixed_examples(*pairs(), vocabulary)
    model = build_model(TINY, vocabulary, 1)
    return Trainer(model, recipe(budget), lambda epoch: examples).run()


def save_trained(folder: Path, budget: int) -> Path:
    """The folder, with such a model and its vocabulary in it."""
    known = vocabulary()  # once: trained again, its ids would differ
    return save_model(trained(known, budget), known, folder)

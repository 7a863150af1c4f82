"""The training loop: token batches, mixed precision, exact resumption.

The loop is deliberately short, so that a lesson can show it whole. One step takes
a batch of about ``batch_tokens`` target tokens, all of similar length, and divides
the summed loss once by the number of real tokens.
"""

from __future__ import annotations

import json
import math
import pickle
import random
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn.functional import linear
from torch.nn.utils.rnn import pad_sequence
from transformers import MarianMTModel

from ..errors import KdcourseError
from ..theory.arguments import IGNORE, BadArgument
from ..theory.losses import cross_entropy
from .storage import write_whole, writing_whole

CHECKPOINT, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
DAMAGED = "checkpoint.damaged.pt"
HISTORY = "history.json"  # the learning curve so far
FIELDS = {"weights", "average", "optimizer", "state", "history", "rng", "recipe"}
FIELDS |= {"precision"}
UNREADABLE = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Recipe:
    """How long and how a model is trained; budgets count real target tokens."""

    budget_tokens: int
    batch_tokens: int = 500
    peak_learning_rate: float = 1e-3
    warmup_steps: int = 500
    weight_decay: float = 0.01
    average_decay: float = 0.999
    clip_norm: float = 1.0
    seed: int = 1
    precision: str = "auto"  # "float32", "bfloat16", or the faster of the two here
    group_by: str = "target"  # the side whose length fills and sorts the batches


@dataclass(frozen=True)
class Example:
    """One pair as token ids, both ending with EOS; ``key`` finds its signals."""

    source: list[int]
    target: list[int]
    key: int = -1


@dataclass
class Batch:
    """Padded tensors of one step: (B, S) inputs and mask, (B, L) labels."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    keys: list[int]

    @property
    def tokens(self) -> int:
        """Real target tokens, EOS included, pads not."""
        return int((self.labels != IGNORE).sum())

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows B, and the lengths S and L to which sources and targets are padded."""
        return *self.input_ids.shape, self.labels.shape[1]

    @property
    def real_labels(self) -> torch.Tensor:
        """Labels (N,) of the real tokens, row by row."""
        return self.labels[self.labels != IGNORE]


def collate(examples: list[Example], pad: int) -> Batch:
    """Pad a list of examples to one rectangle.

    Raises:
        OutOfMemory: there is no room for the rectangle.
    """
    shape = [len(examples)]
    shape += [max(len(getattr(e, s)) for e in examples) for s in ("source", "target")]
    with explained_memory(shape, "No step was begun with it."):
        sources = [torch.tensor(e.source) for e in examples]
        labels = [torch.tensor(e.target) for e in examples]
        input_ids = pad_sequence(sources, batch_first=True, padding_value=pad)
        return Batch(
            input_ids,
            (input_ids != pad).long(),
            pad_sequence(labels, batch_first=True, padding_value=IGNORE),
            [e.key for e in examples],
        )


def token_batches(
    examples: list[Example],
    batch_tokens: int,
    pad: int,
    rng: random.Random,
    group_by: str = "target",
) -> Iterator[Batch]:
    """Batches of similar lengths and about ``batch_tokens`` tokens, shuffled.

    ``group_by="source"`` forms the batches from the source side alone: students that
    learn from different targets then see the same rows in the same order.
    """
    sizes = [len(getattr(example, group_by)) for example in examples]
    second = [len(e.source) if group_by == "target" else 0 for e in examples]
    order = list(range(len(examples)))
    rng.shuffle(order)  # ties in length fall in a new order every epoch
    order.sort(key=lambda i: (sizes[i], second[i] + rng.random()))
    groups: list[list[int]] = [[]]
    filled = 0
    for i in order:
        if groups[-1] and filled + sizes[i] > batch_tokens:
            groups.append([])
            filled = 0
        groups[-1].append(i)
        filled += sizes[i]
    rng.shuffle(groups)
    for group in groups if examples else []:
        yield collate([examples[i] for i in group], pad)


def learning_rate(progress: float, step: int, recipe: Recipe) -> float:
    """Linear warm-up in steps, then linear decay to zero in consumed budget."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    return recipe.peak_learning_rate * warm * max(0.0, 1.0 - progress)


def fastest_precision() -> str:
    """bfloat16 where the processor multiplies it natively, else float32."""
    capability = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bfloat16" if capability() else "float32"


def precision_here(precision: str) -> str:
    """A recipe's precision on this machine: "auto" is the faster one."""
    return fastest_precision() if precision == "auto" else precision


def student_logits(model: MarianMTModel, batch: Batch, precision: str) -> torch.Tensor:
    """Teacher-forced logits (B, L, V) in float32, those at pads too."""
    with _autocast(precision):
        return _head(model, _decoded(model, batch)).float()


def token_logits(model: MarianMTModel, batch: Batch, precision: str) -> torch.Tensor:
    """Teacher-forced logits (N, V) of the N real tokens in float32, row by row.

    The head is half of a small model's work: pads do not get any of it.
    """
    with _autocast(precision):
        hidden = _decoded(model, batch)
        return _head(model, hidden[batch.labels != IGNORE]).float()


def _autocast(precision: str) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")


def _decoded(model: MarianMTModel, batch: Batch) -> torch.Tensor:
    """The decoder's last hidden states (B, L, d) before each label."""
    inputs = batch.labels.masked_fill(batch.labels == IGNORE, model.config.pad_token_id)
    start = inputs.new_full((len(inputs), 1), model.config.decoder_start_token_id)
    return model.model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        decoder_input_ids=torch.cat([start, inputs[:, :-1]], dim=1),
        use_cache=False,
    ).last_hidden_state


def _head(model: MarianMTModel, hidden: torch.Tensor) -> torch.Tensor:
    return linear(hidden, model.lm_head.weight, model.final_logits_bias[0])


def real_tokens(
    logits: torch.Tensor, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, V) and labels (N,) of the N real tokens, row by row of the batch."""
    return logits[batch.labels != IGNORE], batch.real_labels


def reference_loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """-Σ_t log Pr(y_t | y_<t, x), summed over the real tokens; logits (N, V)."""
    return cross_entropy(logits, batch.real_labels)


Loss = Callable[[torch.Tensor, Batch], torch.Tensor]


class OutOfMemory(KdcourseError):
    """A batch needed more memory than there is."""


@contextmanager
def explained_memory(shape: Sequence[int], kept: str) -> Iterator[None]:
    """An allocation that is refused becomes an ``OutOfMemory`` that names the batch.

    ``shape`` is that of ``Batch``; ``kept`` a sentence on what is not lost by it.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        rows, source, target = shape
        raise OutOfMemory(
            f"A batch of {rows} rows, sources padded to {source} and "
            f"targets to {target} tokens, needs more memory than there is. {kept}",
            wanted="batches that fit into the memory beside the model",
            todo="Lower batch_tokens, or close other programs, and run it again.",
        ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return any(sign in text for sign in ("can't allocate memory", "not enough memory"))


class Trainer:
    """Train a model on epochs of examples until its token budget is spent.

    ``epoch_examples(epoch)`` gives the examples of an epoch and must depend on
    nothing but its number; ``loss(logits, batch)`` gets the logits (N, V) of the
    real tokens and is summed over them. ``rewrite(model, batch)``, where given,
    exchanges the targets of a batch before each step, for the student's own samples.
    ``task`` stands for all of these: only the checkpoint of an equal one is gone on
    with.
    """

    def __init__(
        self,
        model: MarianMTModel,
        recipe: Recipe,
        epoch_examples: Callable[[int], list[Example]],
        *,
        loss: Loss | None = None,
        rewrite: Callable[[MarianMTModel, Batch], Batch] | None = None,
        folder: str | Path | None = None,
        validate: Callable[[MarianMTModel], dict] | None = None,
        validate_every: int = 1_000_000,
        save_seconds: float = 180.0,
        report: Callable[[dict], None] | None = None,
        progress: Callable[[int], None] | None = None,
        task: str = "",
    ):
        self.model, self.recipe, self.epoch_examples = model, recipe, epoch_examples
        self.loss, self.rewrite = loss or reference_loss, rewrite
        self.folder = Path(folder) if folder else None
        self.validate, self.validate_every = validate, validate_every
        self.save_seconds, self.report = save_seconds, report
        self.progress, self.task = progress, task
        self.precision = precision_here(recipe.precision)
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.weights,
            lr=recipe.peak_learning_rate,
            betas=(0.9, 0.98),
            eps=1e-9,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self.average = [p.detach().clone() for p in self.weights]
        self.state = {"step": 0, "tokens": 0, "epoch": 0, "batch": 0, "validated": 0}
        self.state |= {"seconds": 0.0, "loss_sum": 0.0, "loss_tokens": 0}
        self.history: list[dict] = []
        torch.manual_seed(recipe.seed)

    @property
    def done(self) -> bool:
        """True once the budget of target tokens is spent."""
        return self.state["tokens"] >= self.recipe.budget_tokens

    def run(self) -> MarianMTModel:
        """Train to the end of the budget, resuming where a checkpoint left off."""
        if self.resume() and self.progress:
            self.progress(self.state["tokens"])
        try:
            self._spend_budget()
        except OutOfMemory:
            if self.folder:
                self.save()
            raise
        if self.state["validated"] < self.state["tokens"]:
            self._validate()
        if self.folder:
            self.save()
        return self.averaged_model()

    def _spend_budget(self) -> None:
        """Step after step, with looks at validation and checkpoints now and then."""
        saved = time.monotonic()
        for batch in () if self.done else self.batches():
            started = time.monotonic()
            try:
                self.step(batch)
            except OutOfMemory:
                self.state["batch"] -= 1  # it is still to be learned
                raise
            self.state["seconds"] += time.monotonic() - started
            if self.progress:
                self.progress(batch.tokens)
            if self.state["tokens"] - self.state["validated"] >= self.validate_every:
                self._validate()
            if self.folder and time.monotonic() - saved > self.save_seconds:
                self.save()
                saved = time.monotonic()
            if self.done:
                break

    def batches(self) -> Iterator[Batch]:
        """Batch after batch without end, from where the state says."""
        while True:
            epoch = self.state["epoch"]
            rng = random.Random(f"{self.recipe.seed}/{epoch}")
            batches = token_batches(
                self.epoch_examples(epoch),
                self.recipe.batch_tokens,
                self.model.config.pad_token_id,
                rng,
                self.recipe.group_by,
            )
            for number, batch in enumerate(batches):
                if number >= self.state["batch"]:
                    self.state["batch"] = number + 1
                    yield batch
            self.state |= {"epoch": epoch + 1, "batch": 0}

    def step(self, batch: Batch) -> None:
        """One optimiser step on one batch; where it fails, no weight has moved.

        Raises:
            OutOfMemory: the batch does not fit into the memory.
            KdcourseError: the loss or a gradient is NaN or infinite.
        """
        self.model.train()
        progress = self.state["tokens"] / self.recipe.budget_tokens
        rate = learning_rate(progress, self.state["step"], self.recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self._undone_unless_finite(batch):
            if self.rewrite:
                batch = self.rewrite(self.model, batch)
            tokens = batch.tokens
            loss = self._finite_loss(batch)
            self.optimizer.zero_grad(set_to_none=True)
            (loss / tokens).backward()
            self._clip()
            self.optimizer.step()
        self._update_average()
        self.state["step"] += 1
        self.state["tokens"] += tokens
        self.state["loss_sum"] += float(loss.detach())
        self.state["loss_tokens"] += tokens

    @contextmanager
    def _undone_unless_finite(self, batch: Batch) -> Iterator[None]:
        """Explain a batch that is too large; leave no trace of a step that failed."""
        generator = torch.get_rng_state()
        try:
            with explained_memory(batch.shape, self._kept()):
                yield
        except Exception:
            torch.set_rng_state(generator)
            self.optimizer.zero_grad(set_to_none=True)
            if self.state["step"] == 0:  # the moments were being allocated
                self.optimizer.state.clear()
            raise

    def _finite_loss(self, batch: Batch) -> torch.Tensor:
        """The summed loss of a batch, checked."""
        logits = token_logits(self.model, batch, self.precision)
        try:
            loss = self.loss(logits, batch)
        except BadArgument as error:  # theory's losses say so themselves
            if logits.isfinite().all():
                raise
            raise self._not_finite("logits are", logits.detach()) from error
        if not loss.isfinite():
            raise self._not_finite("loss is", loss.detach())
        return loss

    def _clip(self) -> None:
        """Clip the gradient's norm, checked: one NaN would spoil every weight."""
        norm = torch.nn.utils.clip_grad_norm_(self.weights, self.recipe.clip_norm)
        if not norm.isfinite():
            raise self._not_finite("gradient's norm is", norm)

    def _not_finite(self, what: str, values: torch.Tensor) -> KdcourseError:
        bad = values[~values.isfinite()].flatten()[0].item()
        state, rate = self.state, self.optimizer.param_groups[0]["lr"]
        return KdcourseError(
            f"The {what} {bad} at step {state['step'] + 1} (epoch {state['epoch']}, "
            f"batch {state['batch']}, learning rate {rate:.3g}). {self._kept()}",
            wanted="a finite loss and finite gradients at every step",
            todo="Train with a lower peak_learning_rate or a longer warm-up in a new "
            "folder; if it comes back, look for a 0 · inf or log 0 in the loss.",
        )

    def _kept(self) -> str:
        if not self.folder:
            return "The weights are still those of the step before."
        return (
            "The weights are still those of the step before; "
            f"{self.folder / CHECKPOINT}, if there is one, is intact."
        )

    def _update_average(self) -> None:
        # A young average follows quickly; an old one remembers 1 / (1 - decay) steps.
        decay = min(
            self.recipe.average_decay,
            (1 + self.state["step"]) / (10 + self.state["step"]),
        )
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.weights, 1 - decay)

    def averaged_model(self) -> MarianMTModel:
        """The model with its running average of weights, in evaluation mode."""
        with torch.no_grad():
            for weight, mean in zip(self.weights, self.average, strict=True):
                weight.copy_(mean)
        return self.model.eval()

    def _validate(self) -> None:
        state = self.state
        row = {k: state[k] for k in ("step", "tokens", "epoch")} | {
            "seconds": round(state["seconds"])
        }
        row["loss"] = state["loss_sum"] / max(1, state["loss_tokens"])
        state |= {"loss_sum": 0.0, "loss_tokens": 0, "validated": state["tokens"]}
        if self.validate:
            kept = [w.detach().clone() for w in self.weights]
            generator = torch.get_rng_state()
            row |= self.validate(self.averaged_model())
            torch.set_rng_state(generator)
            with torch.no_grad():
                for weight, value in zip(self.weights, kept, strict=True):
                    weight.copy_(value)
        self.history.append(row)
        if self.report:
            self.report(row)

    def save(self) -> None:
        """Write a checkpoint whole or not at all; the one before it is kept as well.

        Raises:
            KdcourseError: the disk is full or read-only; older checkpoints are intact.
        """
        path = self.folder / CHECKPOINT
        with writing_whole(path, keep=self.folder / PREVIOUS) as file:
            torch.save(
                {
                    "weights": [w.detach() for w in self.weights],
                    "average": self.average,
                    "optimizer": self.optimizer.state_dict(),
                    "state": self.state,
                    "history": self.history,
                    "rng": torch.get_rng_state(),
                    "recipe": asdict(self.recipe),
                    "precision": self.precision,
                    "task": self.task,
                },
                file,
            )
        history = json.dumps(self.history, indent=1) + "\n"
        write_whole(self.folder / HISTORY, history.encode())

    def resume(self) -> bool:
        """Continue from the checkpoint in ``folder``, where there is one.

        A damaged checkpoint is told of in a warning and put aside, and the one before
        it is used: training is exact, so it ends with the same weights all the same.
        A lower ``batch_tokens`` than the checkpoint's is accepted, for a machine with
        too little memory: the epoch then begins anew. Any other recipe or task is an
        error.

        Raises:
            KdcourseError: no checkpoint can be read, or it is of another recipe
                or task.
        """
        saved = self._checkpoint()
        if saved is None:
            return False
        self._check_recipe(saved)
        with torch.no_grad():
            for name, own in (("weights", self.weights), ("average", self.average)):
                for weight, value in zip(own, saved[name], strict=True):
                    weight.copy_(value)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.state, self.history = saved["state"], saved["history"]
        if saved["recipe"]["batch_tokens"] != self.recipe.batch_tokens:
            self.state["batch"] = 0
        self.precision = saved["precision"]
        torch.set_rng_state(saved["rng"])
        return True

    def _checkpoint(self) -> dict | None:
        """The newest checkpoint that can be read, or None where there is none."""
        if self.folder is None:
            return None
        damaged = []
        for path in (self.folder / CHECKPOINT, self.folder / PREVIOUS):
            if not path.is_file():
                continue
            try:
                saved = read_checkpoint(path)
            except KdcourseError as error:
                damaged.append(error)
                continue
            if damaged:
                # Out of the way, or the next save would keep it in the older's place.
                (self.folder / CHECKPOINT).replace(self.folder / DAMAGED)
                warnings.warn(f"{damaged[0].given} Using {path}.", stacklevel=3)
            return saved
        if damaged:
            raise damaged[0]
        return None

    def _check_recipe(self, saved: dict) -> None:
        old, new = saved["recipe"], asdict(self.recipe)
        smaller = new["batch_tokens"] <= old["batch_tokens"]
        given = f"another recipe: {old}"
        if old | {"batch_tokens": 0} == new | {"batch_tokens": 0} and smaller:
            shapes = [[w.shape for w in ws] for ws in (saved["weights"], self.weights)]
            same_task = saved.get("task", self.task) == self.task
            if shapes[0] == shapes[1] and same_task:
                return
            given, new = "a model of other sizes", "the very architecture"
            if shapes[0] == shapes[1]:
                given, new = "another method or on other data", "the same lesson"
        raise KdcourseError(
            f"{self.folder / CHECKPOINT} was made by {given}.",
            wanted=f"this one: {new}",
            todo="Give each recipe a folder of its own, or delete the checkpoint.",
        )


def read_checkpoint(path: Path) -> dict:
    """The contents of a checkpoint, once each of its parts has proved intact.

    ``torch.load`` would take a flipped bit for a weight: the checksums that are in the
    file are compared here.

    Raises:
        KdcourseError: the file is cut, altered or no checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as file:
            bad = file.testzip()
        if bad is not None:
            raise zipfile.BadZipFile(f"{bad} is not what its checksum says")
        saved = torch.load(path, weights_only=True)
        missing = FIELDS - saved.keys()
        if missing:
            raise KeyError(*missing)
        return saved
    except UNREADABLE as error:
        raise KdcourseError(
            f"{path} is damaged: {error}.",
            wanted="a checkpoint as Trainer.save() writes it, whole",
            todo="Copy it again from a backup, or delete the folder's checkpoints to "
            "train from the start.",
        ) from error


def validation_loss(
    model: MarianMTModel,
    examples: list[Example],
    precision: str = "float32",
    batch_tokens: int = 2000,
) -> float:
    """Mean negative log-probability of a real reference token, in nats."""
    total, tokens = 0.0, 0
    model.eval()
    with torch.inference_mode():
        for batch in token_batches(
            examples, batch_tokens, model.config.pad_token_id, random.Random(0)
        ):
            total += float(reference_loss(token_logits(model, batch, precision), batch))
            tokens += batch.tokens
    return total / tokens if tokens else math.nan

"""The second road of training: transformers' own trainer, for real use.

``Trainer`` of ``training.py`` is a loop that a lesson can show whole. This one brings
what a larger run wants: data from ``datasets``, several processes under ``accelerate
launch``, mixed precision, checkpoints, progress bars, TensorBoard, the Hub. The losses
are those of ``theory``, so both roads give the same numbers, step by step::

    L(θ) = 1/N Σ_t loss_t,    N the real target tokens of the whole optimiser step

over all of its micro-batches and all processes: summed, and divided once.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict
from transformers import (
    MarianMTModel,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from ..errors import KdcourseError
from .caching import SignalCache
from .checkpoints import last_checkpoint
from .distil import Method, as_method
from .labelling import Labels
from .models import load_model, prepare
from .own_vocabulary import check_folder, check_teacher
from .sampling import own_outputs
from .teaching import Teaching
from .trainer_data import (
    COLUMNS,
    as_batch,
    collate_rows,
    encode,
    relabelled,
    sides,
)
from .training import Recipe, real_tokens, reference_loss


def arguments(
    folder: str | Path, recipe: Recipe, **changes
) -> Seq2SeqTrainingArguments:
    """The arguments under which the stock trainer does what a recipe says.

    Peak learning rate with linear warm-up and decay, Adam's β and ε, weight decay,
    clipping, seed and precision. Three things differ by nature and are the caller's:
    how many rows a batch has and how long to train (``per_device_train_batch_size``,
    ``num_train_epochs`` or ``max_steps``), since this trainer counts rows where the
    recipe counts tokens; and it keeps no running average of the weights. It spares
    biases and norms the weight decay. ``changes`` are any of the stock arguments.
    """
    settings = {
        "learning_rate": recipe.peak_learning_rate,
        "warmup_steps": recipe.warmup_steps,
        "adam_beta2": 0.98,
        "adam_epsilon": 1e-9,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.clip_norm,
        "seed": recipe.seed,
        "bf16": recipe.precision == "bfloat16",
        "use_cpu": not torch.cuda.is_available(),
        "ddp_find_unused_parameters": False,
        "report_to": "none",
    }
    return Seq2SeqTrainingArguments(str(folder), **(settings | changes))


class DistillationTrainer(Seq2SeqTrainer):
    """transformers' trainer for any row of the objective.

    Args:
        model: the student, the only thing that learns and that is saved.
        args: ``arguments(folder, recipe, …)``, or any ``Seq2SeqTrainingArguments``.
        train_dataset: a ``Dataset`` with the standard ``translation`` column, or a
            ``DatasetDict``: its train and validation splits.
        eval_dataset: likewise. Its loss is always -log Pr^s of a reference token, in
            nats, whatever the method, so that methods can be compared.
        processing_class: the student's vocabulary.
        method: a name of ``distil.METHODS`` but "interpolation", or a ``Method``.
        teacher: a model, or its folder, that answers live.
        signals: the folder of ``cache_corpus``, whose answers are found by a hash of
            source and target; or a ``SignalCache``, found by the data's column
            ``key``, the number of a row in the cache.
        labels: the teacher's translations, a mapping from source to target such as
            ``Labels``, or its folder; for methods whose targets are not references.
        alpha: the share of hard labels beside a divergence, in 0..1.
        temperature: T; the loss is multiplied by T².
        languages: (source, target); by default the column's order.

    Further arguments are those of ``Seq2SeqTrainer``. The students' own samples
    (on-policy) are drawn from numbers that depend on seed, step, process and
    micro-batch alone, so that a resumed training samples the same.

    Raises:
        KdcourseError: data, teacher, signals or labels that do not fit, here; a loss
            or a gradient that is no finite number, in ``train``.
        BadArgument: an unknown divergence, or a number out of range.
    """

    def __init__(
        self,
        model: MarianMTModel,
        args: Seq2SeqTrainingArguments,
        train_dataset: Dataset | DatasetDict,
        eval_dataset: Dataset | None = None,
        processing_class: PreTrainedTokenizerFast | None = None,
        *,
        method: str | Method = "untaught",
        teacher: MarianMTModel | str | Path | None = None,
        signals: SignalCache | str | Path | None = None,
        labels: Mapping[str, str] | Labels | str | Path | None = None,
        alpha: float = 0.0,
        temperature: float = 1.0,
        languages: tuple[str, str] | None = None,
        **stock,
    ):
        if isinstance(train_dataset, DatasetDict):
            eval_dataset = eval_dataset or train_dataset.get("validation") or None
            train_dataset = train_dataset["train"]
        _check_arguments(args)
        self.vocabulary, self.languages = processing_class, languages
        method = as_method(method)
        teacher = _same_vocabulary(teacher, model, processing_class)
        rows, signals = self._training_rows(train_dataset, method, signals, labels)
        self.teaching = Teaching(method, teacher, signals, alpha, temperature)
        self.own = False  # whether this step is on the student's own samples
        self.measured = torch.zeros(2, dtype=torch.float64)  # nats and tokens evaluated
        args.remove_unused_columns = False  # the key is no argument of the model
        super().__init__(
            prepare(model),
            args,
            partial(collate_rows, pad=processing_class.pad_token_id),
            rows,
            None if eval_dataset is None else self._encoded(eval_dataset),
            processing_class,
            **stock,
        )
        self.model_accepts_loss_kwargs = True  # count the tokens of the whole step
        self.model.config.use_cache = True  # else it is saved without, and slow
        if teacher is not None:
            teacher.to(self.args.device)

    # --- Data

    def _training_rows(self, dataset, method: Method, signals, labels):
        """The encoded rows of the training data, and the signals that fit them."""
        sources, targets = sides(dataset, self.languages)
        if (labels is None) != (method.targets == "references"):
            raise KdcourseError(
                f"The method's targets are {method.targets}, and labels "
                f"{'are missing' if labels is None else 'were given'}.",
                wanted="labels= for the targets of a teacher, none for references",
                todo="Pass Labels.load(FOLDER), or a dictionary from source to target.",
            )
        if method.targets == "interpolation":
            raise KdcourseError(
                "This trainer takes one translation of a source, and interpolation "
                "chooses among several.",
                wanted="data whose targets are the chosen ones, and method='untaught'",
                todo="Make them with kdcourse.translation.interpolation.interpolate().",
            )
        if labels is not None:
            targets = relabelled(sources, labels)
        keys = dataset["key"][:] if "key" in dataset.column_names else None
        if isinstance(signals, (str, Path)):
            signals = SignalCache.load(signals, sources, targets, self.vocabulary)
            keys = None  # the answers now have the order of these rows
        elif signals is not None and keys is None:
            raise KdcourseError(
                "The data have no key by which to find their signals.",
                wanted='a column "key": for each row its number in the cache',
                todo="Give the folder of cache_corpus(), which has keys of its own; or "
                'add_column("key", range(n)) before any shuffle.',
            )
        return encode(sources, targets, self.vocabulary, keys), signals

    def _encoded(self, dataset: Dataset) -> Dataset:
        if set(COLUMNS) <= set(dataset.column_names):
            return dataset
        return encode(*sides(dataset, self.languages), self.vocabulary)

    def get_eval_dataloader(self, eval_dataset=None):
        """The stock one, also for data that are not yet encoded."""
        given = isinstance(eval_dataset, Dataset)
        return super().get_eval_dataloader(
            self._encoded(eval_dataset) if given else eval_dataset
        )

    def get_test_dataloader(self, test_dataset):
        """The stock one, also for data that are not yet encoded."""
        return super().get_test_dataloader(self._encoded(test_dataset))

    # --- One step

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The micro-batches of a step and the number N of their real tokens.

        Here the share λ of the steps gets the student's own samples as targets, before
        their tokens are counted.
        """
        here = f"{self.args.seed}/{self.state.global_step}"
        self.own = random.Random(here).random() < self.teaching.method.share
        if self.own:
            here += f"/{self.args.process_index}"
            epoch_iterator = (
                self._said_by_student(inputs, f"{here}/{number}")
                for number, inputs in enumerate(epoch_iterator)
            )
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def _said_by_student(self, inputs: dict, seed: str) -> dict:
        with torch.random.fork_rng():
            torch.manual_seed(random.Random(seed).getrandbits(63))
            return inputs | {"labels": own_outputs(self.model, as_batch(inputs)).labels}

    def compute_loss(
        self, model, inputs, return_outputs=False, num_items_in_batch=None
    ):
        """The part of a micro-batch in the loss of its step, Σ_t / N.

        accelerate averages the gradients of P processes, so each part is multiplied
        by P. In evaluation: -log Pr^s(y_t) of the references, the mean over the batch.
        """
        batch = as_batch(inputs)
        starts = self.model.prepare_decoder_input_ids_from_labels(batch.labels)
        outputs = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            decoder_input_ids=starts,
            use_cache=False,
        )
        logits, _ = real_tokens(outputs.logits.float(), batch)
        if model.training:
            if logits.detach().sum().isnan():
                raise self._diverged("logits are")
            total = self.teaching.loss(logits, batch, self.own)
            loss = total * self.accelerator.num_processes / float(num_items_in_batch)
        else:
            total = reference_loss(logits, batch)
            self.measured += torch.tensor([float(total), batch.tokens])
            loss = total / batch.tokens
        return (loss, {"logits": outputs.logits}) if return_outputs else loss

    def training_step(self, model, inputs, num_items_in_batch=None):
        """The stock step, checked before any weight has moved."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not loss.isfinite():
            raise self._diverged("loss is")
        scaled = getattr(self.accelerator, "scaler", None)  # in fp16 inf is in order
        if self.accelerator.sync_gradients and scaled is None:
            slopes = (p.grad for p in self.model.parameters() if p.grad is not None)
            if not torch.stack([slope.sum() for slope in slopes]).sum().isfinite():
                raise self._diverged("gradient is")
        return loss

    def _diverged(self, what: str) -> KdcourseError:
        step, kept = self.state.global_step + 1, last_checkpoint(self.args.output_dir)
        return KdcourseError(
            f"The {what} not finite at step {step}; no weight has moved. The last "
            f"whole checkpoint: {kept or 'none yet'}.",
            wanted="a finite loss and finite gradients at every step",
            todo="Train with a lower learning_rate or a longer warm-up; if it comes "
            "back, look for 0 · inf or log 0 in the loss.",
        )

    # --- Evaluation

    def prediction_step(
        self, model, inputs, prediction_loss_only, ignore_keys=None, **generation
    ):
        """The stock one with our loss, also where the model generates."""
        generates = self.args.predict_with_generate and not prediction_loss_only
        inputs = self._prepare_inputs(inputs)
        bare = {n: v for n, v in inputs.items() if n != "key"} if generates else inputs
        answer = super().prediction_step(
            model, bare, prediction_loss_only, ignore_keys, **generation
        )
        if not generates:
            return answer
        with torch.no_grad():
            return (self.compute_loss(model, inputs), *answer[1:])

    def evaluation_loop(self, *args, **options):
        """The stock one, with the loss per real token of all the data.

        The stock mean of batch means gives the tokens of short rows, and all those of
        the last batch, another weight.
        """
        self.measured = torch.zeros(2, dtype=torch.float64)
        output = super().evaluation_loop(*args, **options)
        pair = self.accelerator.reduce(self.measured.to(self.args.device), "sum")
        for name in [n for n in output.metrics if n.endswith("_loss")]:
            output.metrics[name] = float(pair[0] / pair[1])
        return output

    # --- Checkpoints

    def train(self, resume_from_checkpoint=None, **options):
        """Train; ``resume_from_checkpoint=True`` goes on from the last whole one.

        A checkpoint that a kill cut short is passed over, and where there is none the
        training starts: the same call serves the first run and every later one.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_checkpoint(self.args.output_dir)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **options)

    def _save_rng_state(self, output_dir: str) -> None:
        """All processes' generators are on disk before the state's file is written."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()


def _check_arguments(args: Seq2SeqTrainingArguments) -> None:
    wrong = {
        "label_smoothing_factor": (bool(args.label_smoothing_factor), "0"),
        "average_tokens_across_devices": (
            args.world_size > 1 and not args.average_tokens_across_devices,
            "True: a step is divided by the tokens of all its processes",
        ),
        "n_gpu": (args.n_gpu > 1, "one device a process"),
    }
    for name, (is_wrong, wanted) in wrong.items():
        if is_wrong:
            raise KdcourseError(
                f"The training arguments have {name} = {getattr(args, name)!r}.",
                wanted=wanted,
                todo="Leave it out; smoothing is the method 'smoothing', and several "
                "devices want accelerate launch.",
            )


def _same_vocabulary(teacher, student: MarianMTModel, vocabulary):
    """The teacher as a frozen model, once it is known to speak the student's tokens."""
    if vocabulary is None or len(vocabulary) != student.config.vocab_size:
        raise KdcourseError(
            f"The student has {student.config.vocab_size} tokens, processing_class "
            f"{'is missing' if vocabulary is None else f'has {len(vocabulary)}'}.",
            wanted="the student's own vocabulary as processing_class",
            todo="Load it from the student's folder with load_vocabulary().",
        )
    if teacher is None:
        return None
    if isinstance(teacher, (str, Path)):
        check_folder(teacher, vocabulary)
        teacher = load_model(teacher)
    check_teacher(teacher, vocabulary)
    if teacher is student:
        raise KdcourseError(
            "Teacher and student are one and the same model.",
            wanted="two models: one that answers and one that learns",
            todo="Load the teacher again, or copy.deepcopy() it.",
        )
    return teacher.eval().requires_grad_(False)

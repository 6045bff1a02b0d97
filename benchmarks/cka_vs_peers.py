"""CKA here and in the registry's CKA packages: how fast is the first right answer, and who is right at all?

    python benchmarks/cka_vs_peers.py [--quick]

Two tasks, on float32 features with channel means, as pooled activations have them: debiased CKA of 2,000 x 1,280 at
once, and minibatch CKA of 50,000 x 768 streamed in batches of 1,000. Every contestant runs in float32 and in float64
where it can; an answer counts when it is within 1e-6 of the reference (the tolerance to which a linear probe's CKA is
1). One thread, CPU seconds (other programs hardly change them), interleaved: in every round each contestant runs once,
the ratio to ours is taken round by round, and its median counts. The figure is the fastest right peer over the fastest
right call here, on the task where that is less. Then inputs on which a program may return NaN or something wrong: ours
must be right on all. Peers that are not installed are left out, with the line that installs them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import math
import os
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from repsim.errors import DegenerateInputError
from repsim.similarity import CKAStream, linear_cka

GOAL = 3.0
TOLERANCE = 1e-6
BATCH = 1_000
Features = NDArray[np.floating]
Answer = Callable[[Features, Features], float]


@dataclass(frozen=True)
class Contestant:
    """One way to get the number. ``whole`` takes all rows at once, ``stream`` adds up batches; None where it cannot."""

    name: str
    whole: Answer | None
    stream: Answer | None
    biased: bool = False


@dataclass(frozen=True)
class Peer:
    """A package of the registry, by its name there, and what makes contestants of it."""

    distribution: str
    contestants: Callable[[], list[Contestant]]


def batches(x: Features, y: Features) -> Iterator[tuple[Features, Features]]:
    for start in range(0, len(x), BATCH):
        yield x[start : start + BATCH], y[start : start + BATCH]


def tensors(x: Features, y: Features, dtype: torch.dtype | None) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = torch.from_numpy(x), torch.from_numpy(y)
    return (first, second) if dtype is None else (first.to(dtype), second.to(dtype))


def ours() -> list[Contestant]:
    def streamed(x: Features, y: Features, arithmetic: str) -> float:
        stream = CKAStream(arithmetic=arithmetic)  # type: ignore[arg-type]
        for some_x, some_y in batches(x, y):
            stream.update(some_x, some_y)
        return stream.compute()

    return [
        Contestant("repsim, float64", lambda x, y: linear_cka(x, y)[0], lambda x, y: streamed(x, y, "float64")),
        Contestant(
            "repsim, float32 products",
            lambda x, y: linear_cka(x, y, arithmetic="float32")[0],
            lambda x, y: streamed(x, y, "float32"),
        ),
    ]


def in_both(name: str, whole: Callable[..., float] | None, stream: Callable[..., float] | None) -> list[Contestant]:
    """Contestants that take features as they come (float32 in the timings), and as float64."""
    return [
        Contestant(
            f"{name}, {label}",
            None if whole is None else lambda x, y, dtype=dtype: whole(*tensors(x, y, dtype)),
            None if stream is None else lambda x, y, dtype=dtype: stream(x, y, dtype),
        )
        for label, dtype in (("as given", None), ("float64", torch.float64))
    ]


def ratio(terms: torch.Tensor) -> float:
    xy, xx, yy = terms.double()
    return float(xy / (xx * yy).sqrt())


def by_batch(terms: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[..., float]:
    """A package's HSIC_1 (xy, xx, yy) of each batch, added up."""

    def stream(x: Features, y: Features, dtype: torch.dtype | None) -> float:
        return ratio(sum((terms(*tensors(*pair, dtype)) for pair in batches(x, y)), torch.zeros(3)))

    return stream


def pytorch_cka() -> list[Contestant]:
    package, hsic = importlib.import_module("cka"), importlib.import_module("cka.hsic").hsic

    def terms(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        grams = [torch.bmm(side[None], side[None].transpose(1, 2)) for side in (x, y)]
        return torch.cat([term.reshape(1) for term in hsic(*grams)])

    return in_both("pytorch-cka", lambda x, y: float(package.cka_from_features(x, y)), by_batch(terms))


def by_gram(hsic: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    def terms(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        k, m = ((side @ side.T)[None] for side in (x, y))
        return torch.cat([hsic(k, m), hsic(k, k), hsic(m, m)])

    return terms


def part_of(package: str, module: str, *folders: str) -> types.ModuleType:
    """One module of a package without its ``__init__``, which may need what has nothing to do with CKA."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"no package {package}", name=package)
    bare = types.ModuleType(f"part_of_{package}")
    bare.__path__ = [os.path.join(place, *folders) for place in spec.submodule_search_locations]
    sys.modules[bare.__name__] = bare
    return importlib.import_module(f"{bare.__name__}.{module}")


def cka_pytorch() -> list[Contestant]:
    terms = by_gram(part_of("cka_pytorch", "hsic").hsic1)
    return in_both("cka-pytorch", lambda x, y: ratio(terms(x, y)), by_batch(terms))


def ckatorch() -> list[Contestant]:
    package = importlib.import_module("ckatorch")
    streams = by_batch(by_gram(package.hsic1))
    return [
        Contestant(
            "ckatorch, float64",  # it converts by itself
            lambda x, y: float(package.cka_base(*tensors(x, y, None), unbiased=True)),
            lambda x, y: streams(x, y, torch.float64),
        )
    ]


class Part(torch.nn.Module):
    """A model whose only layer hands on some columns of its input, for packages that measure models."""

    def __init__(self, columns: slice) -> None:
        super().__init__()
        self.columns = columns
        self.layer = torch.nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x[:, self.columns])


class Loader(list[tuple[torch.Tensor]]):
    """Batches that pass for a data loader."""

    dataset = "features"


def torch_cka() -> list[Contestant]:
    package = importlib.import_module("torch_cka")

    def measured(loaders: Sequence[Loader]) -> float:
        models = [Part(slice(None)) for _ in loaders]
        cka = package.CKA(*models, "x", "y", model1_layers=["layer"], model2_layers=["layer"])
        cka.compare(*loaders)
        return float(cka.export()["CKA"][0, 0])

    def whole(x: Features, y: Features) -> float:
        return measured([Loader([(side,)]) for side in tensors(x, y, None)])

    def stream(x: Features, y: Features) -> float:
        pairs = [tensors(*pair, None) for pair in batches(x, y)]
        return measured([Loader([(pair[side],) for pair in pairs]) for side in (0, 1)])

    return [Contestant("torch-cka, float32", whole, stream)]  # its matrix of ones is always float32


def simtorch() -> list[Contestant]:
    measure = importlib.import_module("simtorch.similarity.cka").CKA
    wrapped = importlib.import_module("simtorch.model.sim_model").SimilarityModel

    def whole(x: Features, y: Features) -> float:
        width = x.shape[1]
        parts = [Part(slice(0, width)), Part(slice(width, None))]
        models = [wrapped(part, model_name="part", layers_to_include=["layer"]) for part in parts]
        return float(measure(*models).compute([(torch.cat(tensors(x, y, None), dim=1),)])[0, 0])

    return [Contestant("simtorch, biased, float32", whole, None, biased=True)]  # over batches it adds up biased CKAs


def thingsvision() -> list[Contestant]:
    measure = part_of("thingsvision", "cka_numpy", "core", "cka").CKANumPy

    def whole(x: torch.Tensor, y: torch.Tensor) -> float:
        return float(measure(m=len(x), kernel="linear", unbiased=True).compare(x.numpy(), y.numpy()))

    return in_both("thingsvision", whole, None)


PEERS = (
    Peer("pytorch-cka", pytorch_cka),
    Peer("cka-pytorch", cka_pytorch),
    Peer("ckatorch", ckatorch),
    Peer("torch-cka", torch_cka),
    Peer("simtorch", simtorch),
    Peer("thingsvision", thingsvision),
)


def installed() -> list[Contestant]:
    found: list[Contestant] = []
    for peer in PEERS:
        try:
            version = importlib.metadata.version(peer.distribution)
            contestants = peer.contestants()
        except importlib.metadata.PackageNotFoundError:
            print(f"{peer.distribution}: not installed; python -m pip install {peer.distribution}")
            continue
        except ImportError as error:
            print(f"{peer.distribution}: left out, cannot be imported ({error})")
            continue
        print(f"{peer.distribution} {version}")
        found += contestants
    return found


def activations(n: int, d: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features like pooled activations, float32: correlated channels with means of their own; and a drifted copy."""
    rng = np.random.default_rng([n, d])
    mixing = rng.normal(size=(d, d)).astype(np.float32) / np.float32(math.sqrt(d))
    means = rng.lognormal(size=d).astype(np.float32)
    x = rng.standard_normal((n, d), dtype=np.float32) @ mixing + means
    return x, x + rng.standard_normal((n, d), dtype=np.float32)


def quietly(answer: Answer, x: Features, y: Features) -> float:
    """Without the progress bars and warnings that some packages print."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return answer(x, y)


def race(title: str, answers: dict[str, tuple[Answer, float]], x: Features, y: Features, rounds: int) -> float:
    """Prints the table of one task; the fastest right peer's time over ours, 0 when there is no such peer or call."""
    values = {name: quietly(answer, x, y) for name, (answer, _) in answers.items()}
    right = [name for name, (_, truth) in answers.items() if abs(values[name] - truth) <= TOLERANCE]
    seconds: dict[str, list[float]] = {name: [] for name in answers}
    names = list(answers)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = time.process_time()
            quietly(answers[name][0], x, y)
            seconds[name].append(time.process_time() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    mine = min((name for name in right if name.startswith("repsim")), key=lambda name: medians[name], default=None)
    print(f"\n{title}, {rounds} rounds\n{'':26} {'CPU ms':>10} {'value':>12} {'error':>9} {'time / ours':>12}")
    times_ours = {}
    for name, (_, truth) in answers.items():
        if mine is not None:
            pairs = zip(seconds[name], seconds[mine], strict=True)
            times_ours[name] = statistics.median(one / other for one, other in pairs)
        error = abs(values[name] - truth)
        verdict = "" if name in right else "  wrong"
        print(
            f"{name:26} {1e3 * medians[name]:10.1f} {values[name]:12.8f} {error:9.1e} "
            f"{times_ours.get(name, math.nan):12.2f}{verdict}"
        )
    return min((times_ours[name] for name in right if mine is not None and not name.startswith("repsim")), default=0.0)


def exact(x: Features, y: Features, biased: bool) -> float:
    """CKA from its definition in extended precision, entry by entry."""
    n = len(x)
    grams = []
    for side in (x, y):
        wide = side.astype(np.longdouble)
        wide = wide - wide.mean(axis=0)
        grams.append(np.einsum("id,jd->ij", wide, wide))
    if not biased:
        for gram in grams:
            np.fill_diagonal(gram, 0)
    terms = []
    for k, m in ((grams[0], grams[1]), (grams[0], grams[0]), (grams[1], grams[1])):
        term = (k * m).sum()
        if not biased:
            term += k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * (k.sum(axis=0) * m.sum(axis=0)).sum() / (n - 2)
        terms.append(term)
    return float(terms[0] / np.sqrt(terms[1]) / np.sqrt(terms[2]))


def hard_inputs() -> dict[str, tuple[Features, Features]]:
    """Float16 and float32 features on which a Gram matrix overflows, vanishes or loses its digits; two without CKA."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 96))
    y = x + rng.normal(size=(120, 96))
    one_large = np.ones(96)
    one_large[5] = 1e4
    single = np.float32
    return {
        "float16, values near 30": ((x + 30).astype(np.float16), (y + 30).astype(np.float16)),
        "float32, times 1e12": ((1e12 * x).astype(single), (1e12 * y).astype(single)),
        "float32, times 1e-12": ((1e-12 * x).astype(single), (1e-12 * y).astype(single)),
        "float32, means of 1000 sd": ((x + 1e3).astype(single), (y + 1e3).astype(single)),
        "float32, a channel times 1e4": ((x * one_large).astype(single), (y * one_large).astype(single)),
        "float32, a constant channel": ((x * (np.arange(96) != 5)).astype(single), y.astype(single)),
        "one side constant: undefined": (x.astype(single), np.full((120, 96), 0.1, dtype=single)),
        "3 rows: undefined": (x[:3].astype(single), y[:3].astype(single)),
    }


def hardships(contestants: list[Contestant]) -> bool:
    """Prints who is right on hard inputs; whether all calls here are. Where CKA is undefined, refusing is right."""
    inputs = hard_inputs()
    tally = {contestant.name: 0 for contestant in contestants}
    print("\nHard inputs (an answer is right within 1e-4; where CKA is undefined, an error is)")
    for title, (x, y) in inputs.items():
        undefined = title.endswith("undefined")
        cells = []
        for contestant in contestants:
            assert contestant.whole is not None
            truth = math.inf if undefined else exact(x, y, contestant.biased)
            try:
                found = quietly(contestant.whole, x, y)
                right, text = abs(found - truth) <= 1e-4, f"{found:.5f}"
            except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
                right = isinstance(error, DegenerateInputError | ValueError) and undefined
                text = type(error).__name__
            tally[contestant.name] += right
            cells.append(f"  {contestant.name:26} {text:>22} {'right' if right else 'WRONG'}")
        print("\n".join([f"{title} (CKA {'-' if undefined else f'{exact(x, y, False):.5f}'})", *cells]))
    print("\n".join(f"{name:28} right on {count} of {len(inputs)}" for name, count in tally.items()))
    return all(count == len(inputs) for name, count in tally.items() if name.startswith("repsim"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 5, and 10,000 streamed rows")
    rounds, streamed = (3, 10_000) if parser.parse_args().quick else (5, 50_000)
    torch.set_num_threads(1)
    contestants = ours() + installed()
    with threadpool_limits(1):
        x, y = activations(2_000, 1_280)
        truths = linear_cka(x, y, space="features")
        whole = {one.name: (one.whole, truths[one.biased]) for one in contestants if one.whole is not None}
        at_once = race("2,000 x 1,280 at once", whole, x, y, rounds)
        x, y = activations(streamed, 768)
        stream = {one.name: one.stream for one in contestants if one.stream is not None}
        truth = stream["repsim, float64"](x, y)
        timed = {name: (answer, truth) for name, answer in stream.items()}
        in_batches = race(f"{streamed:,} x 768 in batches of {BATCH:,}", timed, x, y, 3)
        right = hardships(contestants)
    figure = min(at_once, in_batches)
    ok = right and figure >= GOAL
    print(f"\nfastest right peer / ours: {at_once:.2f} at once, {in_batches:.2f} streamed; ours right on all: {right}")
    print(f"cka_vs_peers: {figure:.2f} (goal {GOAL:.2f}) {'ok' if ok else 'short'}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())

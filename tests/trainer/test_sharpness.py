"""Sharpness on models whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from repsim.records import METRICS, RHO_ABSOLUTE, RHO_CURVE, sharpness_name
from repsim.sharpness import FULL, average_case, hessian_top, hessian_trace, sharpness, worst_case
from repsim.sharpness.surface import LARGEST, mean_and_error
from repsim.sharpness.worst_case import checkpoints


class TwoLayers(nn.Module):
    """A small network that answers (features, logits), with a tensor of zero norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, 5)
        self.second = nn.Linear(5, 3)
        nn.init.zeros_(self.second.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.tanh(self.first(images))
        return features, self.second(features)


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(64, 6, generator=generator), torch.randint(0, 3, (64,), generator=generator)


def batches_of(data: tuple[Tensor, Tensor], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(data[0]), size):
        yield data[0][start : start + size], data[1][start : start + size]


def by_hand(model: TwoLayers, data: tuple[Tensor, Tensor], rho: float, *, relative: bool) -> float:
    """The definition, in float64."""
    double = TwoLayers().double()
    double.load_state_dict(model.state_dict())
    images, labels = data[0].double(), data[1]
    loss = nn.functional.cross_entropy(double(images)[1], labels)
    parameters = list(double.parameters())
    gradient = torch.autograd.grad(loss, parameters)
    total = torch.sqrt(sum((g.square().sum() for g in gradient), torch.tensor(0.0, dtype=torch.float64)))
    with torch.no_grad():
        for parameter, g in zip(parameters, gradient, strict=True):
            scale = parameter.norm() / g.norm() if relative else 1.0 / total
            parameter.add_(rho * scale * g)
        return float(nn.functional.cross_entropy(double(images)[1], labels) - loss)


def test_the_curve_is_the_definition(data: tuple[Tensor, Tensor]) -> None:
    model = TwoLayers()
    values = sharpness(model, lambda: batches_of(data, 17))
    for rho in RHO_CURVE:
        assert values[sharpness_name(rho)] == pytest.approx(
            by_hand(model, data, rho, relative=True), rel=2e-3, abs=2e-7
        )
    assert values["sharpness_absolute"] == pytest.approx(by_hand(model, data, RHO_ABSOLUTE, relative=False), rel=1e-3)
    assert values["sharpness"] == values[sharpness_name(5e-4)]


def test_the_batch_size_does_not_matter(data: tuple[Tensor, Tensor]) -> None:
    model = TwoLayers()
    one, many = [sharpness(model, lambda size=size: batches_of(data, size)) for size in (64, 5)]
    assert one == pytest.approx(many, rel=1e-3, abs=1e-6)


def test_weights_flags_and_mode_come_back(data: tuple[Tensor, Tensor]) -> None:
    model = TwoLayers().train()
    model.first.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sharpness(model, lambda: batches_of(data, 64))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert not model.first.weight.requires_grad
    assert model.second.weight.requires_grad


def test_relative_sharpness_does_not_see_a_rescaling_between_layers(data: tuple[Tensor, Tensor]) -> None:
    """relu(a W1 x) W2 / a is the same function for every a > 0; only absolute steps tell them apart."""

    class Relu(TwoLayers):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            features = torch.relu(self.first(images))
            return features, self.second(features)

    plain, rescaled = Relu(), Relu()
    with torch.no_grad():
        rescaled.first.weight.mul_(8)
        rescaled.first.bias.mul_(8)
        rescaled.second.weight.div_(8)
    one, two = [sharpness(model, lambda: batches_of(data, 64)) for model in (plain, rescaled)]
    assert two["sharpness_rho_0.01"] == pytest.approx(one["sharpness_rho_0.01"], rel=1e-3)
    assert two["sharpness_absolute"] != pytest.approx(one["sharpness_absolute"], rel=0.1)


def test_a_loss_that_is_not_finite_is_refused(data: tuple[Tensor, Tensor]) -> None:
    model = TwoLayers()
    with torch.no_grad():
        model.second.weight.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="sharpness is not defined"):
        sharpness(model, lambda: batches_of(data, 64))


class Point(nn.Module):
    """Its weights are its logits: any function of the weights can be the loss."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.first = nn.Parameter(weights[:2].clone())
        self.rest = nn.Parameter(weights[2:].clone())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        weights = torch.cat([self.first, self.rest])
        return images, weights.expand(len(images), -1)


class Quadratic:
    """slope w + w H w / 2 for each image."""

    def __init__(self, hessian: Tensor, slope: Tensor | None = None) -> None:
        self.hessian = hessian
        self.slope = torch.zeros_like(hessian[0]) if slope is None else slope

    def __call__(self, logits: Tensor, labels: Tensor, /, *, reduction: str) -> Tensor:
        values = logits @ self.slope + ((logits @ self.hessian) * logits).sum(dim=1) / 2
        return values.sum() if reduction == "sum" else values


def nothing() -> Iterator[tuple[Tensor, Tensor]]:
    """Two batches whose images do not matter."""
    yield torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)
    yield torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)


def symmetric(size: int, seed: int = 0) -> Tensor:
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return matrix + matrix.T


def normal(size: int, seed: int = 1) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_top_eigenvalue_is_the_largest_and_not_the_largest_in_size(dtype: torch.dtype) -> None:
    hessian = symmetric(12) - 6 * torch.eye(12, dtype=torch.float64)
    eigenvalues = torch.linalg.eigvalsh(hessian)
    assert -eigenvalues[0] > eigenvalues[-1] > 0
    model = Point(normal(12).to(dtype))
    found = hessian_top(model, nothing, iterations=12, tolerance=1e-9, loss=Quadratic(hessian.to(dtype)))
    assert found.value == pytest.approx(float(eigenvalues[-1]), rel=1e-4 if dtype == torch.float32 else 1e-9)


def test_the_error_of_the_eigenvalue_is_a_bound_and_the_tolerance_stops_early() -> None:
    hessian = symmetric(60)
    eigenvalues = torch.linalg.eigvalsh(hessian)
    errors = []
    for iterations in (1, 5, 10, 20):
        found = hessian_top(Point(normal(60)), nothing, iterations=iterations, tolerance=0.0, loss=Quadratic(hessian))
        assert found.iterations == iterations
        assert float((eigenvalues - found.value).abs().min()) <= found.error + 1e-9
        errors.append(found.error)
    assert errors == sorted(errors, reverse=True)
    early = hessian_top(Point(normal(60)), nothing, iterations=60, tolerance=0.05, loss=Quadratic(hessian))
    assert early.iterations < 30
    assert early.value == pytest.approx(float(eigenvalues[-1]), rel=0.05)


def test_a_flat_loss_has_no_curvature() -> None:
    slope = Quadratic(torch.zeros(5, 5, dtype=torch.float64), normal(5))
    found = hessian_top(Point(normal(5)), nothing, loss=slope)
    assert (found.value, found.error, found.iterations) == (0.0, 0.0, 1)
    assert hessian_trace(Point(normal(5)), nothing, loss=slope) == (0.0, 0.0)


def test_the_trace_is_exact_on_a_diagonal_and_as_uncertain_as_theory_says_elsewhere() -> None:
    diagonal = torch.diag(torch.arange(1.0, 9.0, dtype=torch.float64))
    assert hessian_trace(Point(normal(8)), nothing, loss=Quadratic(diagonal)) == (36.0, 0.0)
    hessian, draws = symmetric(30), 400
    mean, error = hessian_trace(Point(normal(30)), nothing, draws=draws, loss=Quadratic(hessian))
    off_diagonal = float(hessian.square().sum() - hessian.diag().square().sum())
    assert error == pytest.approx(math.sqrt(2 * off_diagonal / draws), rel=0.15)
    assert abs(mean - float(hessian.trace())) < 4 * error


def test_the_hessian_of_a_linear_softmax_model_is_known(data: tuple[Tensor, Tensor]) -> None:
    """For logits W x it is the mean of (diag(p) - p p') ⊗ x x'."""

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(2)
            self.layer = nn.Linear(6, 3, bias=False)

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return images, self.layer(images)

    model = Linear()
    images = data[0].double()
    p = model(data[0])[1].detach().double().softmax(dim=1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    known = torch.einsum("nij,na,nb->iajb", inner, images, images).reshape(18, 18) / len(images)
    top = hessian_top(model, lambda: batches_of(data, 20), tolerance=1e-4)
    assert top.value == pytest.approx(float(torch.linalg.eigvalsh(known)[-1]), rel=1e-3)
    mean, error = hessian_trace(model, lambda: batches_of(data, 20), draws=50)
    assert abs(mean - float(known.trace())) < 4 * error


def test_attention_has_a_second_derivative_too(data: tuple[Tensor, Tensor]) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.qkv, self.out = nn.Linear(6, 24), nn.Linear(8, 3)

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            q, k, v = self.qkv(images[None, None]).chunk(3, dim=-1)
            features = nn.functional.scaled_dot_product_attention(q, k, v)[0, 0]
            return features, self.out(features)

    model, twin = Attention(), Attention().double()
    double = (data[0].double(), data[1])
    fast = hessian_top(model, lambda: batches_of(data, 16))
    exact = hessian_top(twin, lambda: batches_of(double, 16))
    assert fast.value == pytest.approx(exact.value, rel=1e-3)


def test_the_average_case_of_a_quadratic_is_half_the_weighted_trace() -> None:
    hessian, weights, rho = symmetric(20), normal(20), 0.1
    loss = Quadratic(hessian, 50 * normal(20, seed=3))  # a slope that would swamp it, were it not for the pairs
    mean, error = average_case(Point(weights), nothing, rho=rho, pairs=400, loss=loss)
    known = 0.5 * rho**2 * float((hessian.diag() * weights.square()).sum())
    assert abs(mean - known) < 4 * error
    assert error < abs(known)


def test_the_average_case_is_a_function_of_its_seed(data: tuple[Tensor, Tensor]) -> None:
    first, again, other = (
        average_case(TwoLayers(), lambda: batches_of(data, 64), rho=0.1, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_worst_case_of_a_slope_is_its_length(adaptive: bool) -> None:
    weights, slope = normal(9), normal(9, seed=4)
    loss = Quadratic(torch.zeros(9, 9, dtype=torch.float64), slope)
    known = 0.3 * float((weights.abs() * slope if adaptive else slope).norm())
    found = worst_case(Point(weights), nothing, rho=0.3, adaptive=adaptive, loss=loss)
    assert found == pytest.approx(known, rel=1e-9)


def test_the_worst_case_at_a_minimum_follows_the_top_eigenvector() -> None:
    hessian = symmetric(6) @ symmetric(6)
    known = 0.5 * 0.2**2 * float(torch.linalg.eigvalsh(hessian)[-1])
    found = worst_case(Point(torch.zeros(6, dtype=torch.float64)), nothing, rho=0.2, loss=Quadratic(hessian))
    assert found == pytest.approx(known, rel=0.01)
    assert worst_case(Point(torch.zeros(6)), nothing, rho=0.2, adaptive=True, loss=Quadratic(hessian.float())) == 0.0


def test_the_worst_case_beats_one_step_and_every_random_step(data: tuple[Tensor, Tensor]) -> None:
    model, rho = TwoLayers(), 1.0
    batches = lambda: batches_of(data, 64)  # noqa: E731
    worst = worst_case(model, batches, rho=rho)
    assert worst > by_hand(model, data, rho, relative=False) * 1.001
    assert worst_case(model, batches, rho=rho, iterations=1) == pytest.approx(
        by_hand(model, data, rho, relative=False), rel=1e-5
    )
    generator, parameters = torch.Generator().manual_seed(0), list(model.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    base = nn.functional.cross_entropy(model(data[0])[1], data[1])
    for _ in range(50):
        noise = [torch.randn(parameter.shape, generator=generator) for parameter in parameters]
        length = torch.cat([part.reshape(-1) for part in noise]).norm()
        with torch.no_grad():
            for parameter, old, part in zip(parameters, before, noise, strict=True):
                parameter.copy_(old + rho * part / length)
            assert float(nn.functional.cross_entropy(model(data[0])[1], data[1]) - base) < worst


def test_a_worst_case_of_each_batch_is_worse_than_one_of_all(data: tuple[Tensor, Tensor]) -> None:
    small, whole = (worst_case(TwoLayers(), lambda size=size: batches_of(data, size), rho=0.5) for size in (8, 64))
    assert small > whole > 0


def test_checkpoints_begin_at_22_percent_and_draw_closer() -> None:
    assert checkpoints(20) == [5, 9, 12, 14, 16, 18, 19, 20]
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == [1]


def relu_pair(factors: Tensor) -> tuple[nn.Module, nn.Module]:
    """A network, and the same function with each hidden unit multiplied by a factor and divided again."""

    class Relu(TwoLayers):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            features = torch.relu(self.first(images))
            return features, self.second(features)

    plain, rescaled = Relu(), Relu()
    with torch.no_grad():
        rescaled.first.weight.mul_(factors[:, None])
        rescaled.first.bias.mul_(factors)
        rescaled.second.weight.div_(factors[None, :])
    return plain, rescaled


def test_measures_relative_to_each_weight_do_not_see_a_filter_rescaled(data: tuple[Tensor, Tensor]) -> None:
    pair = relu_pair(torch.tensor([8.0, 0.25, 1.0, 4.0, 0.5]))
    batches = lambda: batches_of(data, 64)  # noqa: E731

    def both(measure: Callable[[nn.Module], float]) -> tuple[float, float]:
        plain, rescaled = (measure(model) for model in pair)
        return plain, rescaled

    adaptive = both(lambda model: worst_case(model, batches, rho=0.5, adaptive=True))
    average = both(lambda model: average_case(model, batches, rho=0.1)[0])
    assert adaptive[1] == pytest.approx(adaptive[0], rel=1e-3)
    assert average[1] == pytest.approx(average[0], rel=1e-3)
    tensors = both(lambda model: sharpness(model, batches)["sharpness_rho_0.01"])  # sees only whole tensors rescaled
    absolute = both(lambda model: worst_case(model, batches, rho=0.1))
    curvature = both(lambda model: hessian_top(model, batches).value)
    for plain, rescaled in (tensors, absolute, curvature):
        assert rescaled != pytest.approx(plain, rel=0.1)


@pytest.mark.parametrize("name", FULL)
def test_every_measure_leaves_the_model_as_it_was(name: str, data: tuple[Tensor, Tensor]) -> None:
    model = TwoLayers().train()
    model.second.eval()
    model.first.weight.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = FULL[name](model, lambda: batches_of(data, 20))
    assert all(math.isfinite(value) for value in found.values())
    assert found == FULL[name](model, lambda: batches_of(data, 20))

    def breaks() -> Iterator[tuple[Tensor, Tensor]]:
        yield from batches_of(data, 40)
        raise RuntimeError("no more images")

    with pytest.raises(RuntimeError, match="no more images"):
        FULL[name](model, breaks)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert (model.training, model.first.training, model.second.training) == (True, True, False)
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]


@pytest.mark.parametrize("name", FULL)
def test_no_measure_is_defined_where_the_loss_is_not_finite(name: str, data: tuple[Tensor, Tensor]) -> None:
    model = TwoLayers()
    with torch.no_grad():
        model.second.weight.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="sharpness is not defined"):
        FULL[name](model, lambda: batches_of(data, 64))


def test_a_curvature_that_is_not_finite_is_refused() -> None:
    class Kink:
        """w ** 1.5: finite at 0, where its second derivative is not."""

        def __call__(self, logits: Tensor, labels: Tensor, /, *, reduction: str) -> Tensor:
            values = (logits**1.5).sum(dim=1)
            return values.sum() if reduction == "sum" else values

    for measure in (hessian_top, hessian_trace):
        with pytest.raises(FloatingPointError, match="the curvature at the trained weights is not finite"):
            measure(Point(torch.zeros(4)), nothing, loss=Kink())


def test_a_loss_without_bound_in_the_ball_is_a_large_number() -> None:
    class Wall:
        """Finite at the start, infinite at once beyond."""

        def __call__(self, logits: Tensor, labels: Tensor, /, *, reduction: str) -> Tensor:
            values = logits.sum(dim=1) + torch.where(logits.sum(dim=1) > 1e-3, torch.inf, 0.0)
            return values.sum() if reduction == "sum" else values

    model = Point(torch.full((4,), -1e-3))
    assert worst_case(model, nothing, rho=1.0, loss=Wall()) == pytest.approx(LARGEST)
    mean, error = average_case(Point(torch.full((4,), -1.0)), nothing, rho=5.0, loss=Wall())
    assert math.isfinite(mean)
    assert math.isfinite(error)
    assert mean > 1e30


def test_wrong_settings_are_refused() -> None:
    model = Point(torch.ones(4))
    with pytest.raises(ValueError, match="needs rho > 0 and iterations >= 1, not rho = 0 and iterations = 20"):
        worst_case(model, nothing, rho=0)
    with pytest.raises(ValueError, match=r"not rho = 0\.1 and iterations = 0"):
        worst_case(model, nothing, rho=0.1, iterations=0)
    with pytest.raises(ValueError, match="needs rho > 0 and pairs >= 2, not rho = nan and pairs = 20"):
        average_case(model, nothing, rho=math.nan)
    with pytest.raises(ValueError, match=r"not rho = 0\.1 and pairs = 1"):
        average_case(model, nothing, rho=0.1, pairs=1)
    with pytest.raises(ValueError, match="needs iterations >= 1, not 0"):
        hessian_top(model, nothing, iterations=0)
    with pytest.raises(ValueError, match="needs draws >= 2, not 1"):
        hessian_trace(model, nothing, draws=1)
    with pytest.raises(ValueError, match="at least two draws for a standard error, not 1"):
        mean_and_error([1.0])


def test_the_full_measures_are_the_ones_that_are_recorded(data: tuple[Tensor, Tensor]) -> None:
    found = [name for take in FULL.values() for name in take(TwoLayers(), lambda: batches_of(data, 64))]
    recorded = {name for name, metric in METRICS.items() if metric.asked_by == "measure.sharpness"}
    assert set(found) == recorded
    assert len(found) == len(recorded)

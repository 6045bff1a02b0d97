"""Several processes as one trial: each runs its share of every batch, and all of them know the whole of it.

A batch of n rows is cut into contiguous shares, one per rank. What the network answers for a share is joined with what
the other ranks' answered, so that loss and penalty are those of the whole batch, computed by the same code and from the
same numbers as in one process, on every rank. Nothing is averaged that is no mean: not a CKA, not an AUC.

The gradient of such a loss towards a rank's own answers is the rank's part of the whole gradient, and the parts have to
be *added*. DistributedDataParallel takes their *mean*, therefore joining hands each rank ``size`` times its part. What
reaches the weights without passing through a join (a penalty of the weights themselves) is whole on every rank
already, and its mean is right as it is.
"""

from __future__ import annotations

import inspect
import os
import socket
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

T = TypeVar("T")
TIMEOUT = 600.0
"""Seconds that a rank waits for the others, unless told otherwise; measuring may take one of them a while."""
_GLOO = ("gloo", "connection reset", "connection closed", "broken pipe")


class RankLost(RuntimeError):  # noqa: N818 - the words a person reads
    """Another rank of the trial is gone, or has not answered for too long."""


class Ranks(ABC):
    """This process among those of its trial: number ``rank`` of ``size``, counted from 0."""

    rank: int
    size: int

    def share(self, n: int, rank: int | None = None) -> slice:
        """Which of ``n`` rows are this rank's (or another's): contiguous, in order, sizes differ by at most 1."""
        which = self.rank if rank is None else rank
        return slice(n * which // self.size, n * (which + 1) // self.size)

    @abstractmethod
    def join(self, own: Tensor, n: int) -> Tensor:
        """The rows (n, …) of all ranks, from this one's share (m, …); differentiable, see the module's text."""

    @abstractmethod
    def collect(self, own: NDArray[np.float32], n: int) -> NDArray[np.float32]:
        """The rows (n, …) of all ranks, from this one's share (m, …), without a gradient."""

    @abstractmethod
    def every(self, value: T) -> list[T]:
        """What each rank holds, by rank; for small plain values."""

    @abstractmethod
    def align(self, modules: Iterable[nn.Module]) -> None:
        """Give every parameter and buffer the value it has on rank 0."""

    @abstractmethod
    def parallel(self, model: nn.Module) -> nn.Module:
        """``model``, with gradients that are the mean over the ranks."""

    @abstractmethod
    def guarded(self) -> Any:
        """A context for all exchanges; inside, what the loss of another rank raises is a RankLost."""

    @abstractmethod
    def close(self) -> None:
        """Leave the others."""


class _Alone(Ranks):
    rank, size = 0, 1

    def join(self, own: Tensor, n: int) -> Tensor:
        return own

    def collect(self, own: NDArray[np.float32], n: int) -> NDArray[np.float32]:
        return own

    def every(self, value: T) -> list[T]:
        return [value]

    def align(self, modules: Iterable[nn.Module]) -> None:
        """There is nobody to differ from."""

    def parallel(self, model: nn.Module) -> nn.Module:
        return model

    @contextmanager
    def guarded(self) -> Iterator[None]:
        yield

    def close(self) -> None:
        """There is nobody to leave."""


ALONE: Ranks = _Alone()
"""One process, as most trials are: every operation hands back what it was given."""


class _Group(Ranks):
    """Ranks that talk through torch's default process group, which must be initialised."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self._device = device

    def join(self, own: Tensor, n: int) -> Tensor:
        joined: Tensor = _Join.apply(own, n, self)  # type: ignore[no-untyped-call]
        return joined

    @torch.no_grad()
    def gathered(self, own: Tensor, n: int) -> Tensor:
        """As :meth:`join`, without a gradient."""
        shares = [self.share(n, rank) for rank in range(self.size)]
        sizes = [share.stop - share.start for share in shares]
        if len(own) != sizes[self.rank]:
            raise ValueError(f"rank {self.rank} holds {len(own)} of {n} rows, and its share is {sizes[self.rank]}")
        padded = own.new_zeros(max(sizes), *own.shape[1:])
        padded[: len(own)] = own
        every = [torch.empty_like(padded) for _ in sizes]
        torch.distributed.all_gather(every, padded)
        return torch.cat([part[:size] for part, size in zip(every, sizes, strict=True)])

    def collect(self, own: NDArray[np.float32], n: int) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = self.gathered(torch.from_numpy(own).to(self._device), n).cpu().numpy()
        return rows

    def every(self, value: T) -> list[T]:
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, value)
        return found

    @torch.no_grad()
    def align(self, modules: Iterable[nn.Module]) -> None:
        for module in modules:
            for tensor in (*module.parameters(), *module.buffers()):
                plain = tensor.contiguous()
                torch.distributed.broadcast(plain, src=0)
                if plain is not tensor:
                    tensor.copy_(plain)

    def parallel(self, model: nn.Module) -> nn.Module:
        wrap = nn.parallel.DistributedDataParallel
        # newer releases of torch warn of the old name for "buffers are nobody's business at a step"
        names = inspect.signature(wrap).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
        # static: the graph is the same at every step, and parameters that no pass uses are found by themselves
        options: dict[str, Any] = {"static_graph": True, buffers: False}
        return wrap(model, **options)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        try:
            with warnings.catch_warnings():
                # of 1 x 1 kernels, whose strides can be told in two ways: costs a copy, changes nothing
                warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
                yield
        except RuntimeError as error:
            lost = isinstance(error, torch.distributed.DistError)
            if lost or any(word in str(error).lower() for word in _GLOO):
                said = " ".join(str(error).split())
                raise RankLost(f"rank {self.rank} of {self.size} lost the others: {said}") from error
            raise

    def close(self) -> None:
        torch.distributed.destroy_process_group()


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, n: int, group: _Group) -> Tensor:
        ctx.share, ctx.size = group.share(n), group.size
        return group.gathered(own, n)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        return upstream[0][ctx.share] * ctx.size, None, None


def listening(address: str) -> socket.socket:
    """Where rank 0 will wait for the others: a free port of this address alone, not of every interface."""
    return socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)


def connect(
    rank: int,
    size: int,
    address: str,
    port: int,
    *,
    device: torch.device,
    timeout: float = TIMEOUT,
    listener: socket.socket | None = None,
) -> Ranks:
    """Meet the other ranks of a trial, by nccl on GPUs, else by gloo; returns once all are there.

    ``address`` and ``port`` are where rank 0 listens: on ``listener`` (see :func:`listening`), which is consumed, or on
    every interface of its machine without one. RankLost when somebody is missing for ``timeout`` seconds, then and at
    every later exchange. A process can be in one group at a time.
    """
    if size == 1:
        return ALONE
    wait = timedelta(seconds=timeout)
    _settle(address, device)
    descriptor = None if listener is None else listener.detach()
    try:
        store = torch.distributed.TCPStore(  # type: ignore[attr-defined]
            address, port, size, is_master=rank == 0, timeout=wait, master_listen_fd=descriptor
        )
        torch.distributed.init_process_group(_backend(device), store=store, rank=rank, world_size=size, timeout=wait)
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise RankLost(f"rank {rank} of {size} did not meet the others within {timeout:g} s: {said}") from error
    return _Group(device)


def connect_as_launched() -> tuple[Ranks, torch.device]:
    """As torchrun started this process: its ranks and its device, a GPU each where there are any; ALONE without it."""
    gpus = torch.cuda.is_available()
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE, torch.device("cuda" if gpus else "cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpus else torch.device("cpu")
    _settle(os.environ.get("MASTER_ADDR", ""), device)
    torch.distributed.init_process_group(_backend(device), timeout=timedelta(seconds=TIMEOUT))
    return _Group(device), device


def _backend(device: torch.device) -> str:
    return "nccl" if device.type == "cuda" else "gloo"


def _settle(address: str, device: torch.device) -> None:
    """What has to be so before a process group is made."""
    if address in ("localhost", "::1") or address.startswith("127."):
        # else gloo listens on the interface that the host's name stands for
        os.environ.setdefault("GLOO_SOCKET_IFNAME", _loopback())
    if device.type == "cuda":
        torch.cuda.set_device(device)


def _loopback() -> str:
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in ("lo", "lo0") if name in names), names[0])

"""Training in several processes of one thread each, or in this one."""

from __future__ import annotations

import os
import signal
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from minicpmo_ros.nano.training import Trainer, TrainingConfig

LOOPBACK = "127.0.0.1"


def train(
    folder: Path,
    config: TrainingConfig,
    say: Callable[[dict[str, Any]], None],
    device: str = "cpu",
    minutes: float = 0,
) -> None:
    """Train until all steps are done, `minutes` have passed (0: no limit), or Ctrl-C; what was
    learned is saved in each case."""
    if config.processes == 1:
        _process(0, folder, config, device, minutes, 0, say)
        return
    port = _free_port()
    started = mp.get_context("spawn")
    others = [
        started.Process(
            target=_process, args=(rank, folder, config, device, minutes, port), daemon=True
        )
        for rank in range(1, config.processes)
    ]
    for one in others:
        one.start()
    try:
        _process(0, folder, config, device, minutes, port, say)
    finally:
        for one in others:
            one.join(timeout=30)
            if one.is_alive():
                one.terminate()


def _process(
    rank: int,
    folder: Path,
    config: TrainingConfig,
    device: str,
    minutes: float,
    port: int,
    say: Callable[[dict[str, Any]], None] = lambda told: None,
) -> None:
    if config.processes > 1:
        torch.set_num_threads(1)
        os.environ |= {"MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(port)}
        dist.init_process_group("gloo", rank=rank, world_size=config.processes)
    # Of norms under autocast: a CPU has no fused one that could be missed.
    warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")
    told_to_stop = _Stop()
    if rank == 0:
        signal.signal(signal.SIGINT, told_to_stop)
        signal.signal(signal.SIGTERM, told_to_stop)
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    trainer = Trainer(folder, config, rank=rank, device=device)

    def stop() -> bool:
        """The same in all processes: they step together."""
        over = minutes > 0 and trainer.seconds - begun > 60 * minutes
        wish = torch.tensor([float(over or told_to_stop.asked)])
        if config.processes > 1:
            dist.all_reduce(wish, op=dist.ReduceOp.MAX)
        return bool(wish.item())

    begun = trainer.seconds
    trainer.run(say, stop)
    if config.processes > 1:
        dist.destroy_process_group()


class _Stop:
    asked = False

    def __call__(self, *_: object) -> None:
        self.asked = True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])

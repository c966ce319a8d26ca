"""Sharded parameters: two processes together hold the weights that one process draws."""

import os
import socket

import pytest
import torch
from torch import nn

import firstlight

dist = pytest.importorskip("torch.distributed")


def net():
    # Odd sizes, so that the shards are uneven.
    return nn.Sequential(nn.Linear(8, 7), nn.ReLU(), nn.LayerNorm(7), nn.Linear(7, 5))


def work(rank, port, results):
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (2,))
        with torch.device("meta"):
            model = net()
        for layer in model:
            if isinstance(layer, nn.Linear):
                fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        model.to_empty(device="cpu")
        for scheme in ("he-truncated", "orthogonal", "torch-default"):
            with torch.no_grad():
                for p in model.parameters():
                    p.to_local().fill_(float(rank))
            done = firstlight.initialize(model, scheme, seed=4)
            whole = {n: p.full_tensor().detach().clone() for n, p in model.named_parameters()}
            types = {r.module_type for r in done.table.rows}
            q_after = [r.q_after for r in done.table.rows]
            done.undo()
            restored = all(bool((p.to_local() == float(rank)).all()) for p in model.parameters())
            results.append((rank, scheme, whole, types, q_after, restored))
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")
def test_two_processes_hold_what_one_draws():
    """Elsewhere both shards come out bit for bit the same: every neuron twice."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        results = manager.list()
        processes = [context.Process(target=work, args=(rank, port, results)) for rank in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(240)
            assert process.exitcode == 0
        found = list(results)
    assert len(found) == 6
    for rank, scheme, whole, types, q_after, restored in found:
        model = net()
        alone = firstlight.initialize(model, scheme, seed=4).table
        for name, p in model.named_parameters():
            assert torch.equal(whole[name], p), (rank, scheme, name)
        assert types == {"Linear", "LayerNorm"}
        assert q_after == pytest.approx([r.q_after for r in alone.rows], rel=1e-6)
        assert restored

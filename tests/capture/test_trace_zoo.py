"""Every network of the zoo: traced on shapes, in both modes, with the names and shapes of a real run."""

import logging

import numpy as np
import pytest
import torch

from firstlight.capture.record import recording
from firstlight.capture.tensors import named_tensors
from firstlight.capture.trace import trace
from firstlight.graph.normalize import normalize
from tests.models import ZOO, names

# Nodes for what happens to a tensor without a call of its own.
SYNTHETIC = {"view_write", "reread", "identity", "opaque"}
# Of the large families, these run in the default suite; the others with the slow part.
QUICK = {"hf_gpt2", "hf_llama", "hf_mixtral", "hf_t5"}
DEFAULT = [n if n in QUICK or not n.startswith("hf_") else pytest.param(n, marks=pytest.mark.slow) for n in ZOO]


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.WARNING)  # Mamba tells that its fast kernels are missing
    yield
    logging.disable(logging.NOTSET)


def check(name, depth, training):
    entry = ZOO[name]
    model, args, kwargs = entry.make(depth)
    model.train(training)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    draws = torch.get_rng_state()
    graph = trace(model, args, kwargs)
    assert torch.equal(torch.get_rng_state(), draws)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not any("real run" in note or "cannot be seen" in note for note in graph.notes), graph.notes
    assert graph.training == training

    recorded = {}
    with recording(model, lambda e: recorded.update({e.name: [tuple(t.shape) for t in e.outputs]})) as recorder:
        recorder.start(args, kwargs)
        with torch.no_grad():
            output = model(*args, **kwargs)
    traced = {n.name: [o.shape for o in n.outputs] for n in graph.nodes if n.op not in SYNTHETIC}
    assert traced.keys() == recorded.keys()
    if "routing" not in entry.tags:  # how many rows each expert gets depends on the entries
        assert traced == recorded
    shapes = {tuple(t.shape) for _, t in named_tensors(output)}
    ends = [graph[ref.node].outputs[ref.index].shape for ref in graph.outputs]
    assert set(ends) == shapes

    final = normalize(graph)
    known = {n.name for n in final.nodes}
    for node in final.nodes:
        assert all(ref.node in known for ref in node.refs)
    assert all(ref.node in known for ref in final.outputs)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", DEFAULT)
def test_traces_as_it_runs(name, training):
    check(name, ZOO[name].depths[0], training)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_traces_as_it_runs_when_deeper(name):
    check(name, ZOO[name].depths[1], True)


def test_the_zoo_has_what_it_promises():
    assert len(ZOO) >= 60
    assert len(names("activation")) >= 25
    for tag in ("conv", "attention", "recurrent", "residual", "norm", "tied", "parametrized", "dropout", "routing"):
        assert names(tag)
    for entry in ZOO.values():
        assert entry.depths[0] < entry.depths[1]


def test_a_network_is_the_same_for_the_same_seed_and_leaves_the_global_state():
    before = torch.get_rng_state()
    (a, (x,), _), (b, (y,), _) = ZOO["gpt_pre"].make(seed=3), ZOO["gpt_pre"].make(seed=3)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert torch.equal(x, y)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_names_do_not_depend_on_the_device_of_the_weights():
    for name in ("gpt_pre", "resnet_batch_norm", "hf_llama"):
        model, args, kwargs = ZOO[name].make()
        names_real = [n.name for n in trace(model, args, kwargs).nodes]
        assert [n.name for n in trace(model.to("meta"), args, kwargs).nodes] == names_real


@pytest.mark.skipif("hf_llama" not in ZOO, reason="needs transformers")
def test_caches_are_off_inside_and_back_afterwards_and_rotary_tables_are_known_on_meta():
    model, args, kwargs = ZOO["hf_llama"].make()
    assert model.config.use_cache
    real = trace(model, args, kwargs)
    assert model.config.use_cache
    assert len(real.outputs) == 1  # the logits; a cache would add keys and values
    hollow = trace(model.to("meta"), args, kwargs)
    tables = [c for c in real.constants.values() if c.spec.dtype == "float32"]
    assert len(tables) == 2
    for table in tables:
        np.testing.assert_allclose(hollow.constants[table.name].value, table.value, rtol=1e-6)

"""Writing: all or nothing, undo bit for bit, values that depend on seed, name, shape and scheme alone."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import firstlight
from firstlight.errors import InputError, ModelError, RegistryError
from firstlight.schemes import Table, apply, plan, write


class Mixed(nn.Module):
    """All kinds of parameters: tied, parametrized, half, frozen, complex, sliced, expanded, unused."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(8)
        self.wn = parametrizations.weight_norm(nn.Linear(8, 8))
        self.half = nn.Linear(8, 8).half()
        self.bf = nn.Linear(8, 8).bfloat16()
        self.double = nn.Linear(8, 8).double()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 8)
        self.b.weight = self.a.weight
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.act = nn.PReLU()
        self.own = nn.Parameter(torch.randn(3))
        self.phase = nn.Parameter(torch.randn(3, dtype=torch.complex64))
        self.lstm = nn.LSTM(4, 4)


def bits(model):
    """Every parameter as integers, so that NaN equals NaN and 0 differs from -0."""
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return {n: p.detach().clone().view(kinds[p.element_size()]) for n, p in model.named_parameters()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Mixed()


def test_every_parameter_is_listed_once(model):
    table = firstlight.initialize(model).table
    assert sorted(r.name for r in table.rows) == sorted(n for n, _ in model.named_parameters())
    left = table.left
    assert set(left) == {"frozen.weight", "frozen.bias", "act.weight", "own", "phase"}
    assert "frozen=True" in left["frozen.weight"]
    assert "complex64" in left["phase"]
    assert "slope" in left["act.weight"]
    tied = next(r for r in table.rows if r.name == "a.weight")
    assert tied.aliases == ("b.weight",)


def test_what_is_left_alone_keeps_its_bits_and_the_rest_changes(model):
    before = bits(model)
    table = firstlight.initialize(model).table
    after = bits(model)
    for row in table.rows:
        changed = not torch.equal(before[row.name], after[row.name])
        # A norm's gain of 1 and shift of 0 are drawn as what they already were.
        assert changed == (row.action == "draw") or row.module_type == "BatchNorm2d", row


def test_undo_restores_every_bit(model):
    with torch.no_grad():
        model.a.weight[0, 0] = float("nan")
        model.a.weight[0, 1] = -0.0
        model.lstm.weight_hh_l0[0, 0] = float("inf")
    before = bits(model)
    result = firstlight.initialize(model, "orthogonal", seed=5)
    assert not same(before, bits(model))
    result.undo()
    assert same(before, bits(model))
    with pytest.raises(ModelError, match="nothing to put back"):
        result.undo()


def test_undo_works_after_training(model):
    before = bits(model)
    result = firstlight.initialize(model)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in result.table.changed:
                p.add_(1.0)
    result.undo()
    assert same(before, bits(model))


def test_undo_refuses_changed_types_and_changes_nothing():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    result = firstlight.initialize(model)
    after = bits(model)
    data = model[1].weight.data
    model[1].weight.data = data.double()
    other = model[0].weight.detach().clone()
    with pytest.raises(ModelError, match=r"1\.weight"):
        result.undo()
    assert torch.equal(model[0].weight, other)
    model[1].weight.data = data
    assert same(after, bits(model))
    result.undo()


class BoomError(RuntimeError):
    pass


@pytest.mark.parametrize("error", [BoomError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("scheme", ["he", "orthogonal"])
def test_failure_at_any_position_changes_nothing(model, scheme, error, monkeypatch):
    before = bits(model)
    original = apply._write_entry
    count = sum(e.draw is not None for e in plan(model, scheme).entries)
    assert count > 15
    for position in range(count):
        for late in (False, True):
            calls = iter(range(count))

            def failing(entry, seed, *, calls=calls, position=position, late=late):
                at = next(calls)
                if at == position and not late:
                    raise error("injected")
                original(entry, seed)
                if at == position:
                    raise error("injected")

            monkeypatch.setattr(apply, "_write_entry", failing)
            with pytest.raises(error, match="injected"):
                firstlight.initialize(model, scheme)
            assert same(before, bits(model)), (position, late)


def test_failure_inside_a_tensor_and_a_second_interrupt_while_restoring(monkeypatch):
    model = nn.Linear(300, 300)
    before = bits(model)
    original, restore = apply._restore, iter([KeyboardInterrupt, KeyboardInterrupt, None])

    def interrupted(saved):
        error = next(restore)
        if error is not None:
            raise error
        original(saved)

    class Bad(apply.Stream):
        def fill(self, distribution, out, *, start=0):
            out[: out.size // 2] = 7.0
            raise KeyboardInterrupt

    monkeypatch.setattr(apply, "_restore", interrupted)
    monkeypatch.setattr(apply, "Stream", Bad)
    with pytest.raises(KeyboardInterrupt):
        firstlight.initialize(model)
    assert same(before, bits(model))


def test_a_scheme_that_raises_changes_nothing(model):
    before = bits(model)

    def bad(target, context):
        if target.name == "lstm.weight_hh_l0":
            raise BoomError
        from firstlight.schemes.registry import resolve

        return resolve("he").function(target, context)

    with pytest.raises(BoomError):
        firstlight.initialize(model, bad)
    assert same(before, bits(model))


def test_values_do_not_depend_on_order_or_on_other_parameters():
    torch.manual_seed(0)
    first, second = nn.Module(), nn.Module()
    for module, names in ((first, "abcd"), (second, "dba")):
        for name in names:
            module.add_module(name, nn.Linear(6, 6))
    for scheme in ("he", "orthogonal", "random-walk", "he-truncated"):
        firstlight.initialize(first, scheme, seed=3)
        firstlight.initialize(second, scheme, seed=3)
        for name in "abd":
            assert torch.equal(first.get_submodule(name).weight, second.get_submodule(name).weight)
        firstlight.initialize(second, "zeros")
        firstlight.initialize(second, scheme, seed=3, only="b.*")
        assert torch.equal(first.b.weight, second.b.weight)
        assert not second.a.weight.any()


def test_values_do_not_depend_on_type_or_memory_format():
    wanted = nn.Conv2d(4, 4, 3)
    firstlight.initialize(wanted, seed=1)
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        other = nn.Conv2d(4, 4, 3).to(dtype)
        firstlight.initialize(other, seed=1)
        assert torch.equal(other.weight, wanted.weight.to(dtype))
    last = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    firstlight.initialize(last, seed=1)
    assert torch.equal(last.weight, wanted.weight)
    assert last.weight.is_contiguous(memory_format=torch.channels_last)


def test_seeds_differ_and_global_generators_are_untouched():
    model = nn.Linear(6, 6)
    state = torch.get_rng_state()
    firstlight.initialize(model, seed=0)
    first = model.weight.detach().clone()
    firstlight.initialize(model, seed=1)
    assert not torch.equal(first, model.weight)
    assert torch.equal(state, torch.get_rng_state())


def test_parametrized_weights_get_the_law_as_the_layer_sees_it():
    model = parametrizations.weight_norm(nn.Linear(400, 300))
    plain = nn.Linear(400, 300)
    firstlight.initialize(model, "he")
    firstlight.initialize(plain, "he")
    assert torch.allclose(model.weight, plain.weight, atol=1e-6)
    names = [r.name for r in firstlight.initialize(model, "he", dry_run=True).table.rows]
    assert names == [n for n, _ in model.named_parameters()]


def test_optimizers_keep_their_parameters_and_autograd_notices():
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ids = [id(p) for p in model.parameters()]
    pointers = [p.data_ptr() for p in model.parameters()]
    loss = model(torch.ones(1, 4, requires_grad=True)).square().sum()
    firstlight.initialize(model)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    assert ids == [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in model.parameters()]
    assert pointers == [p.data_ptr() for p in model.parameters()]
    assert all(p.requires_grad and p.is_leaf and p.grad is None for p in model.parameters())


def test_dry_run_draws_nothing_and_works_on_meta():
    with torch.device("meta"):
        model = nn.Linear(10**6, 10**6)
    table = firstlight.initialize(model, dry_run=True).table
    assert not table.written
    assert table.rows[0].law.variance == pytest.approx(2e-6, rel=0.5)
    with pytest.raises(ModelError, match="to_empty"):
        firstlight.initialize(model)


def test_frozen_parameters_are_drawn_when_asked(model):
    table = firstlight.initialize(model, frozen=True).table
    assert "frozen.weight" in table.changed


def test_shared_memory_is_written_once():
    model = nn.Module()
    storage = torch.randn(20)
    model.a = nn.Parameter(storage[:12].view(3, 4))
    model.b = nn.Parameter(storage[8:].view(3, 4))
    model.c = nn.Parameter(torch.zeros(1, 4).expand(3, 4))
    result = firstlight.initialize(model, lambda target, context: None or _normal())
    assert "c" in result.table.left
    rows = result.table.left
    assert "shares memory with a" in rows["b"]
    assert "one place in memory" in rows["c"]


def _normal():
    from firstlight.schemes.context import iid
    from firstlight.schemes.draws import Distribution

    return iid(Distribution("normal", 1.0))


@pytest.mark.parametrize("bad", ["model", 3, None, nn.Linear, torch.zeros(3)])
def test_what_is_no_module_is_refused(bad):
    with pytest.raises((InputError, ModelError), match="model"):
        firstlight.initialize(bad)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", None, True])
def test_bad_seeds(seed):
    with pytest.raises(InputError, match="seed"):
        firstlight.initialize(nn.Linear(2, 2), seed=seed)


def test_only_patterns():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    table = firstlight.initialize(model, only=["0.*", "1.bias"]).table
    assert table.left == {"1.weight": "not selected by `only`"}
    table = firstlight.initialize(model, only=lambda name, p: p.dim() == 2).table
    assert set(table.changed) == {"0.weight", "1.weight"}
    with pytest.raises(InputError, match=r"Did you mean '0\.weight'"):
        firstlight.initialize(model, only="0.wieght")
    with pytest.raises(InputError, match="glob patterns"):
        firstlight.initialize(model, only=[3])


def test_lazy_and_inference_parameters():
    lazy = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(InputError, match="Call the model once") as planned:
        firstlight.initialize(lazy)
    with pytest.raises(InputError) as measured:
        firstlight.measure(lazy, torch.ones(2, 3))
    assert str(planned.value) == str(measured.value)
    with torch.inference_mode():
        model = nn.Linear(2, 2)
    assert "inference_mode" in firstlight.initialize(model).table.left["weight"]


def test_empty_models_and_empty_tensors():
    assert firstlight.initialize(nn.ReLU()).table.rows == ()
    with pytest.warns(UserWarning, match="zero-element"):
        empty = nn.Linear(0, 3)
    for scheme in ("he", "orthogonal", "xavier", "random-walk", "looks-linear", "torch-default"):
        result = firstlight.initialize(empty, scheme)
        assert math.isnan(result.table.rows[0].q_after)


@pytest.mark.parametrize("name", ["[bold]x[/bold]", "a\nb", "<script>", "ü" * 50, "{}%s"])
def test_hostile_module_names_print(name):
    model = nn.Module()
    model.add_module(name, nn.Linear(2, 2))
    result = firstlight.initialize(model)
    assert result.table.rows[0].name == f"{name}.weight"
    assert str(result)
    assert Table.from_json(result.to_json()) == result.table


def test_table_forms(model):
    result = firstlight.initialize(model, "he", seed=7)
    frame = result.to_frame()
    assert list(frame["name"]) == [r.name for r in result.table.rows]
    row = frame[frame.name == "a.weight"].iloc[0]
    assert row.q_after == pytest.approx(row["std"] ** 2, rel=0.6)
    assert row.q_after == pytest.approx(float(model.a.weight.detach().square().mean()), rel=1e-6)
    assert Table.from_json(result.to_json()) == result.table
    text = str(result)
    assert "left alone" in text
    assert "= b.weight" in text


def test_long_tables_are_shortened_on_the_terminal_only():
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(100)))
    result = firstlight.initialize(model)
    assert "140 more" in str(result)
    assert len(result.to_frame()) == 200


def test_written_table_needs_no_gradient_mode():
    model = nn.Linear(3, 3)
    with torch.no_grad():
        chosen = plan(model)
    assert write(chosen, 0).table.written


def test_weights_behind_old_hooks_are_left_alone_with_the_reason_and_the_way():
    model = nn.utils.spectral_norm(nn.Linear(4, 3))
    left = firstlight.initialize(model, "he").table.left
    assert "old hook-based spectral_norm" in left["weight_orig"]
    assert "initialize before wrapping" in left["weight_orig"]
    assert "bias" not in left


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("xaiver", "'xavier'"), ("Randon_Walk", "'random-walk'"), ("kaimin", "'kaiming'"), ("lsuv", None), ("mup", None),
     ("trunc-normal", None)],
)  # fmt: skip
def test_only_near_names_are_suggested(wrong, meant):
    with pytest.raises(RegistryError) as caught:
        firstlight.initialize(nn.Linear(2, 2), wrong)
    assert caught.value.action == (f"Did you mean {meant}?" if meant else "")

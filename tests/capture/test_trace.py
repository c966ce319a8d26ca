"""What a traced graph says: dataflow, arguments, constants, parameters, outputs."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from firstlight.capture.nodes import index_of
from firstlight.capture.trace import shape, trace
from firstlight.graph.ir import ConstantRef, ParameterRef, Ref, TensorSpec
from firstlight.graph.json import dumps, loads
from firstlight.graph.normalize import normalize


class Net(nn.Module):
    """A module around a function of (itself, inputs)."""

    def __init__(self, function, **modules):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


X = torch.randn(3, 4)


def nodes(function, *args, **modules):
    return {n.name: n for n in trace(Net(function, **modules), args or (X,)).nodes}


def test_an_mlp_becomes_its_graph():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2, bias=False))
    graph = trace(model, X)
    assert [n.name for n in graph.nodes] == [":input", "0:linear", "1:relu", "2:linear"]
    assert graph["0:linear"].args == (Ref(":input"), ParameterRef("0.weight"), ParameterRef("0.bias"))
    assert graph["2:linear"].args == (Ref("1:relu"), ParameterRef("2.weight"), None)
    assert graph["2:linear"].module_type == "Linear"
    assert graph["2:linear"].outputs == (TensorSpec((3, 2), "float32"),)
    assert graph.outputs == (Ref("2:linear"),)
    assert graph.model == "Sequential"
    assert graph.training
    assert not graph.notes
    assert {n: p.spec.shape for n, p in graph.parameters.items()} == {
        "0.weight": (8, 4),
        "0.bias": (8,),
        "2.weight": (2, 8),
    }


def test_the_same_graph_from_real_meta_and_shape_only():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.GELU())
    with torch.device("meta"):
        hollow = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.GELU())
    texts = {
        dumps(trace(m, x))
        for m in (model, hollow)
        for x in (X, X.to("meta"), torch.Size((3, 4)), (3, 4), shape(3, 4), (shape(3, 4),), {"input": shape(3, 4)})
    }
    assert len({t.replace('{"path": "input"}', '{"path": "0"}') for t in texts}) == 1


def test_graphs_of_real_networks_survive_json():
    graph = trace(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.randn(2, 5, 8))
    assert loads(dumps(graph)).nodes == graph.nodes


def test_reversed_operators_have_their_operands_in_order():
    found = nodes(lambda n, x: (1 - n.lin(x)) / 2, X)
    assert found[":sub"].args == (1, Ref("lin:linear"))
    found = nodes(lambda n, x: 2 ** (3 / n.lin(x)), X)
    assert found[":div"].args == (3, Ref("lin:linear"))
    assert found[":pow"].args == (2, Ref(":div"))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: F.softmax(x, -1),
        lambda x: F.softmax(x, dim=-1),
        lambda x: torch.softmax(x, -1),
        lambda x: x.softmax(dim=-1),
    ],
)
def test_a_normalised_call_is_the_same_however_it_was_made(call):
    node = normalize(trace(Net(lambda _n, x: call(x)), X)).nodes[-1]
    assert node.op == "softmax"
    assert dict(node.options) == {"dim": -1, "dtype": None}


def test_both_batch_norms_have_the_same_arguments():
    def functional(n, x):
        return F.batch_norm(x, n.bn.running_mean, n.bn.running_var, n.bn.weight, n.bn.bias, True, 0.2, 1e-3)

    def builtin(n, x):
        return torch.batch_norm(x, n.bn.weight, n.bn.bias, n.bn.running_mean, n.bn.running_var, True, 0.2, 1e-3, False)

    a, b = (normalize(trace(Net(f, bn=nn.BatchNorm1d(4)), X)).nodes[-1].options for f in (functional, builtin))
    assert {k: v for k, v in b.items() if k in a} == dict(a)
    assert a["running_mean"] == ParameterRef("bn.running_mean")
    assert a["momentum"] == 0.2


def test_indices_casts_and_sizes_are_plain_values():
    found = nodes(lambda n, x: n.lin(x)[..., None, 1:3].double().view(-1, 2).expand(3, -1, 2), X)
    assert found[":getitem"].args[1] == ("...", None, ("slice", 1, 3, None))
    assert dict(found[":to"].options) == {"dtype": "float64"}
    assert found[":view"].args[1] == (-1, 2)
    assert found[":expand"].args[1] == (3, -1, 2)


def test_operations_with_several_outputs():
    def forward(n, x):
        a, b = n.lin(x).chunk(2, dim=-1)
        values, index = torch.topk(b, 1)
        return a * values, x.gather(1, index)

    found = nodes(forward)
    assert len(found[":chunk"].outputs) == 2
    assert found[":mul"].args == (Ref(":chunk", 0), Ref(":topk", 0))
    assert found[":gather"].args[2] == Ref(":topk", 1)


def test_derived_weights_are_nodes_over_parameters():
    graph = trace(nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4))), X)
    (node,) = (n for n in graph.nodes if n.op == "weight_norm")
    assert {a.name.rpartition(".")[2] for a in node.args if isinstance(a, ParameterRef)} == {"original0", "original1"}
    assert graph.nodes[-1].args[1] == Ref(node.name)


def test_tied_weights_are_one_parameter_with_aliases():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model[2].weight.data = model[0].weight.data  # the same memory behind another parameter
    graph = trace(model, X)
    assert graph.parameters["0.weight"].aliases == ("1.weight", "2.weight")
    assert {n.args[1] for n in graph.nodes if n.op == "linear"} == {ParameterRef("0.weight")}


def test_frozen_parameters_and_buffers_are_told_apart():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).requires_grad_(False)
    found = trace(model, X).parameters
    assert not found["0.weight"].requires_grad
    assert found["1.running_var"].role == "buffer"
    assert "1.num_batches_tracked" not in found


def test_masks_and_positions_have_their_values():
    def forward(n, x):
        i = torch.arange(x.shape[1], device=x.device)
        mask = i[:, None] >= i[None]
        angle = i * 0.5
        return (n.lin(x) @ n.lin.weight).masked_fill(~mask[:3], 0.0) * angle.cos()

    graph = trace(Net(forward), X)
    mask = graph.constants[graph[":masked_fill"].args[1].name].value
    np.testing.assert_array_equal(mask, ~np.tril(np.ones((4, 4), bool))[:3])
    cosine = graph.constants[graph[":mul"].args[1].name].value
    np.testing.assert_allclose(cosine, np.cos(np.arange(4) * 0.5), rtol=1e-6)


def test_integer_inputs_keep_their_values_and_stay_inputs():
    model = nn.Embedding(10, 4)
    ids = torch.tensor([[1, 2, 1]])
    graph = trace(model, ids)
    assert graph[":embedding"].args[0] == Ref(":input")
    np.testing.assert_array_equal(graph.constants[":input"].value, ids)
    assert trace(model, shape(1, 3, dtype="int64")).constants == {}


def test_equal_constants_are_kept_once():
    found = trace(Net(lambda _n, x: x + torch.ones(4) * 2 + torch.full((4,), 2.0)), X)
    assert len(found.constants) == 1


def test_a_constant_too_large_is_kept_by_its_shape_and_number():
    graph = trace(Net(lambda _n, x: x.sum() + torch.zeros(3000, 3000)), X)
    (constant,) = graph.constants.values()
    assert constant.value.shape == (3000, 3000)
    assert constant.value.strides == (0, 0)
    assert not constant.value.any()


def test_control_flow_on_constants_and_integer_inputs_just_works():
    def forward(n, x, ids):
        if (ids > 1).all() and torch.arange(3).sum().item() == 3:
            return n.lin(x)
        return x

    ids = torch.tensor([2, 3])
    assert "lin:linear" in nodes(forward, X, ids)
    assert "lin:linear" not in nodes(forward, X, ids - 2)


def test_a_written_view_changes_its_base_and_the_other_views():
    def forward(n, x):
        h = n.lin(x)
        row, flat = h[0], h.view(-1)
        row.mul_(2)
        return flat, h

    graph = trace(Net(forward), X)
    found = {n.name: n for n in graph.nodes}
    assert found[":view_write"].args == (Ref("lin:linear"), Ref(":mul"))
    assert found[":reread"].args == (Ref(":view_write"),)
    assert graph.outputs == (Ref(":reread"), Ref(":view_write"))


def test_an_output_built_by_assignment():
    def forward(n, x):
        out = torch.zeros(2, *x.shape)
        out[0] = n.lin(x)
        out[1] = torch.relu(x)
        return out

    found = nodes(forward)
    assert isinstance(found[":setitem"].args[0], ConstantRef)
    assert found[":setitem#1"].args[0] == Ref(":setitem")


def test_index_add_into_zeros_and_routing():
    def forward(n, x):
        _, chosen = torch.topk(n.lin(x), 1)
        out = torch.zeros_like(x)
        for i in range(2):
            rows = (chosen[:, 0] == i).nonzero()[:, 0]
            out.index_add_(0, rows, x[rows])
        return out

    graph = trace(Net(forward), X)
    assert graph.outputs == (Ref(":index_add#1"),)
    assert graph["lin:linear"].outputs[0].shape == (3, 4)
    assert any("spread evenly" in note for note in graph.notes)


def test_random_draws_are_nodes_and_none_is_made():
    model = Net(lambda n, x: n.lin(x) + torch.randn(4) + torch.rand_like(x) + F.dropout(x))
    before = torch.get_rng_state()
    assert {":randn", ":rand_like", ":dropout"} <= {n.name for n in trace(model, X).nodes}
    assert torch.equal(torch.get_rng_state(), before)


def test_nodes_that_reach_no_output_are_kept():
    found = nodes(lambda n, x: (n.lin(x).exp(), x * 2)[1])
    assert ":exp" in found
    assert ":exp" not in {n.name for n in normalize(trace(Net(lambda n, x: (n.lin(x).exp(), x * 2)[1]), X)).nodes}


@dataclasses.dataclass
class Out:
    first: torch.Tensor
    rest: dict


def test_nested_inputs_and_outputs():
    def forward(n, batch, scale=1.0, *, extra):
        return Out(n.lin(batch["x"]) * scale, {"again": extra[0], "w": n.lin.weight, "number": 3})

    graph = trace(Net(forward), ({"x": X},), {"extra": (X * 2,), "scale": 2.0})
    assert [n.options["path"] for n in graph.nodes if n.op == "input"] == ["0.x", "extra.0"]
    assert graph.outputs == (Ref(":mul"), Ref(":input#1"), Ref(":identity"))
    assert graph[":identity"].args == (ParameterRef("lin.weight"),)


def test_no_tensor_output_is_said():
    assert "returned no tensor" in trace(Net(lambda _n, _x: None), X).notes[0]


def test_training_mode_is_chosen_and_put_back():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).eval()
    assert "1:dropout" in {n.name for n in trace(model, X, training=True).nodes}
    assert not model.training
    graph = trace(model, X)
    assert not graph.training
    assert graph.outputs == (Ref("0:linear"),)


def test_calls_for_devices_do_not_matter():
    found = nodes(lambda n, x: n.lin(x).to("cpu").to(x.device).cpu() + torch.zeros(4, device=x.device))
    assert list(found) == [":input", "lin:linear", ":add"]


def test_custom_functions_and_checkpoints_are_followed():
    class Sign(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.sign()

        @staticmethod
        def backward(ctx, grad):
            return grad

    found = nodes(lambda n, x: n.lin(Sign.apply(x)))
    assert found[":autograd_function"].args == ((Ref(":sign"),), (Ref(":input"),))
    assert found["lin:linear"].args[0] == Ref(":autograd_function")
    from torch.utils.checkpoint import checkpoint

    found = nodes(lambda n, x: checkpoint(n.lin, x, use_reentrant=False) + 1)
    assert found[":add"].args[0] == Ref("lin:linear")


def test_gradients_inside_the_forward_pass():
    def forward(n, x):
        x = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(n.lin(x).pow(2).sum(), x, create_graph=True)
        return x - 0.1 * g

    graph = trace(Net(forward), X)
    assert graph[":mul"].args == (Ref(":grad"), 0.1)


def test_a_tensor_of_unseen_origin_is_a_node_and_a_note():
    hidden = nn.Linear(4, 4)
    graph = trace(Net(lambda _n, x: hidden(x)), X)
    assert [n.op for n in graph.nodes].count("opaque") == 2
    assert any("not registered" in note for note in graph.notes)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_scripted_module_is_reported():
    class Double(nn.Module):
        def forward(self, x):
            return x * 2

    model = Net(lambda n, x: n.lin(n.inner(x)), inner=torch.jit.script(Double()))
    assert "scripted" in trace(model, X).notes[0]


@pytest.mark.parametrize(
    ("take", "index"),
    [
        (lambda x: x[:, 1::2], (("slice", 0, 6, 1), ("slice", 1, 8, 2))),
        (lambda x: x[2:4, 3], (("slice", 2, 4, 1), 3)),
        (lambda x: x[5], (5, ("slice", 0, 8, 1))),
        (lambda x: x[1:2, ::3], (("slice", 1, 2, 1), ("slice", 0, 7, 3))),
        (lambda x: x.t(), None),
        (lambda x: x.view(48)[::9], None),
    ],
)
def test_the_index_of_a_view_is_read_from_its_strides(take, index):
    base = torch.arange(48.0).view(6, 8)
    view = take(base)
    assert index_of(base, view) == index
    if index is not None:
        taken = base[tuple(slice(*i[1:]) if isinstance(i, tuple) else i for i in index)]
        assert torch.equal(taken, view)


def test_a_value_written_back_into_its_own_view_is_one_write():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(8, 8)

        def forward(self, x):
            h = self.lin(x)
            out = torch.zeros_like(h)
            out[:, ::2] = h[:, ::2]
            out[:, 1::2] += h[:, 1::2]
            return out

    graph = trace(Model(), torch.randn(3, 8))
    writes = [n for n in graph.nodes if n.op == "view_write"]
    assert [n.options["index"] for n in writes] == [(("slice", 0, 3, 1), ("slice", 1, 8, 2))]
    assert graph.outputs == (Ref(":setitem#1"),)

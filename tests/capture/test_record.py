import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from firstlight.capture.record import recording
from firstlight.capture.tensors import map_tensors, named_tensors


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


def record(model, *args, **kwargs):
    events = []

    def sink(event):
        shapes = [tuple(t.shape) for t in event.outputs]
        events.append((event.name, event.op, event.inputs, event.parameters, event.signal, event.source, shapes))

    with recording(model, sink) as recorder:
        recorder.start(args, kwargs)
        model(*args, **kwargs)
    return events


def ops(function, *args):
    return [e[1] for e in record(Net(function), *args) if e[1] != "input"]


X = torch.randn(3, 4)


def test_name_path_edges_parameters_and_line_of_each_operation():
    def forward(net, x):
        h = net.lin(x)
        return torch.relu(h) + x * 2

    events = {e[0]: e for e in record(Net(forward), X)}
    assert list(events) == [":input", "lin:linear", ":relu", ":mul", ":add"]
    assert events["lin:linear"][2:4] == ((":input",), ("lin.weight", "lin.bias"))
    assert events[":add"][2] == (":relu", ":mul")
    first = forward.__code__.co_firstlineno
    assert events["lin:linear"][5] == f"test_record.py:{first + 1}"
    assert events[":add"][5] == f"test_record.py:{first + 2}"


@pytest.mark.parametrize(
    "spelling",
    [
        lambda _n, x: x + 1,
        lambda _n, x: 1 + x,
        lambda _n, x: torch.add(x, 1),
        lambda _n, x: x.add(1),
        lambda _n, x: x.clone().add_(1),
        lambda _n, x: x.clone().__iadd__(1),
        lambda _n, x: torch.ops.aten.add(x, 1),
    ],
)
def test_all_spellings_of_addition(spelling):
    assert ops(spelling, X)[-1] == "add"


def test_functional_method_and_in_place_activations_have_one_name():
    for call in (F.relu, torch.relu, torch.Tensor.relu, lambda x: F.relu(x, inplace=True), nn.ReLU(inplace=True)):
        assert ops(lambda _n, x, call=call: call(x * 1), X) == ["mul", "relu"]


def test_metadata_and_calls_that_change_nothing_are_no_events():
    def forward(net, x):
        assert x.shape[0] == x.size(0) == len(x)
        assert x.dim() == x.ndim
        assert x.dtype.is_floating_point
        assert x.device.type == "cpu"
        assert x.is_floating_point()
        return net.lin(F.dropout(x.contiguous().to(torch.float32), 0.5, training=False)).t().contiguous().t()

    assert ops(forward, X) == ["linear", "t", "t"]


def test_constants_integers_and_masks_are_no_events_images_of_bytes_are():
    def forward(net, x, ids, mask, image):
        i = torch.arange(4)
        keep = (i[:, None] >= i[None]) & (ids[:, None] > 0)
        y = net.lin(x).masked_fill(keep[:3], 0.0) + mask.exp()
        return y + image.float().mean()

    mask = torch.zeros(4)
    mask[1] = -torch.inf
    image = torch.randint(255, (2, 2), dtype=torch.uint8)
    assert ops(forward, X, torch.tensor([1, 0, 2, 3]), mask, image) == [
        "linear", "masked_fill", "add", "to", "mean", "add",
    ]  # fmt: skip


def test_a_random_draw_is_signal_though_it_reads_nothing():
    assert ops(lambda _n, x: x + torch.randn(4) + torch.rand_like(x), X) == ["randn", "add", "rand_like", "add"]


def test_what_is_computed_from_weights_alone_is_marked():
    events = {e[1]: e for e in record(Net(lambda n, x: x @ n.lin.weight.t()), X)}
    assert events["t"][4] is False
    assert events["matmul"][4] is True


def test_multihead_attention_is_opened_into_its_parts():
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    model = Net(lambda n, x: n.attention(x, x, x, need_weights=False)[0], attention=attention)
    with torch.no_grad():
        found = [e[1] for e in record(model, torch.randn(2, 5, 8))]
    assert found.count("linear") == 2
    assert "scaled_dot_product_attention" in found
    weighted = Net(lambda n, x: n.attention(x, x, x)[0], attention=attention)
    found = [e[1] for e in record(weighted, torch.randn(2, 5, 8))]
    assert found.count("bmm") == 2
    assert "softmax" in found


def test_transformer_encoder_does_not_take_the_fused_path_unseen():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).eval()
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        events = record(encoder, x)
    assert [e[1] for e in events].count("layer_norm") == 4
    assert [e[0] for e in events].count("layers.1.linear2:linear") == 1


def test_recurrent_layers_stay_whole_and_gumbel_softmax_is_opened():
    assert ops(lambda _n, x: F.gumbel_softmax(x), X)[-1] == "softmax"
    for kind, op in ((nn.LSTM, "lstm"), (nn.GRU, "gru"), (nn.RNN, "rnn_tanh")):
        model = Net(lambda n, x: n.rnn(x)[0], rnn=kind(4, 5))
        events = record(model, torch.randn(6, 2, 4))
        assert [e[0] for e in events] == [":input", f"rnn:{op}"]
        assert len(events[1][3]) == 4


def test_a_module_used_twice_counts_on():
    names = [e[0] for e in record(Net(lambda n, x: n.lin(torch.tanh(n.lin(x)))), X)]
    assert names == [":input", "lin:linear", ":tanh", "lin:linear#1"]


def test_a_change_in_place_is_what_later_readers_read():
    def forward(net, x):
        h = net.lin(x)
        view = h.view(-1)
        h.mul_(2)
        out = torch.zeros(3, 4)
        out[:, 0] = view[:3]
        return out.sum()

    events = {e[0]: e for e in record(Net(forward), X)}
    assert events[":getitem"][2] == (":mul",)
    assert events[":setitem"][2] == (":getitem",)
    assert events[":sum"][2] == (":setitem",)


def test_batch_norm_reads_no_event_of_its_own_statistics():
    model = Net(lambda n, x: n.bn(n.bn(x)), bn=nn.BatchNorm1d(4))
    events = {e[0]: e for e in record(model, X)}
    assert list(events) == [":input", "bn:batch_norm", "bn:batch_norm#1"]
    assert events["bn:batch_norm#1"][2] == ("bn:batch_norm",)


def hooks_of(model):
    return [
        (
            list(m._forward_hooks.items()),
            list(m._forward_pre_hooks.items()),
            list(m._forward_hooks_always_called.items()),
        )
        for m in model.modules()
    ]


def test_hooks_and_mode_are_gone_afterwards_also_when_the_model_raises():
    def fail(net, x):
        net.lin(x)
        raise ValueError("on purpose")

    model = Net(fail, inner=nn.Sequential(nn.Linear(4, 4)))
    model.inner[0].register_forward_hook(lambda _m, _i, o: o * 2)
    before = hooks_of(model)
    with pytest.raises(ValueError, match="on purpose"):
        record(model, X)
    assert hooks_of(model) == before
    assert not torch.overrides._get_current_function_mode_stack()


def test_the_scope_follows_exceptions_that_the_model_catches():
    class Failing(nn.Module):
        def forward(self, x):
            torch.relu(x)
            raise ValueError

    def forward(net, x):
        try:
            net.failing(x)
        except ValueError:
            return torch.tanh(x)

    names = [e[0] for e in record(Net(forward, failing=Failing()), X)]
    assert names == [":input", "failing:relu", ":tanh"]


def test_users_hooks_are_recorded_in_their_module():
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].register_forward_pre_hook(lambda _m, args: (args[0] + 1,))
    model[0].register_forward_hook(lambda _m, _args, out: out * 2)
    assert [e[0] for e in record(model, X)] == [":input", "0:add", "0:linear", "0:mul"]


def test_odd_module_names_stay_as_they_are():
    model = nn.Sequential()
    model.add_module("a b/ü:#1<script>", nn.Linear(4, 4))
    assert record(model, X)[1][0] == "a b/ü:#1<script>:linear"


def test_the_sink_is_not_recorded():
    seen = []

    def sink(event):
        seen.append(event.name)
        (event.outputs[0] * 2).sum()

    model = nn.Linear(4, 4)
    with recording(model, sink) as recorder:
        recorder.start((X,))
        model(X)
    assert seen == [":input", ":linear"]


def test_inputs_are_named_in_order_once_each():
    model = Net(lambda n, d, y: n.lin(d["x"]) + y[0])
    paths = []
    with recording(model, lambda e: paths.append((e.name, e.kwargs.get("path"))) if e.op == "input" else None) as r:
        args, kwargs = ({"x": X, "again": X},), {"y": (torch.ones(4), 3)}
        r.start(args, kwargs)
        model(*args, **kwargs)
    assert paths == [(":input", "0.x"), (":input#1", "y.0")]


def test_compiled_modules_run_as_written():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    assert [e[0] for e in record(torch.compile(model, backend="eager"), X)] == [":input", "0:linear", "1:relu"]


def test_inference_mode_and_inference_tensors():
    with torch.inference_mode():
        assert [e[1] for e in record(Net(lambda n, x: n.lin(x).relu_()), X.clone())] == ["input", "linear", "relu"]


@dataclasses.dataclass
class Out:
    logits: torch.Tensor
    more: dict
    label: str = "x"


def test_tensors_are_found_in_nested_values_and_replaced_without_changing_them():
    value = Out(torch.ones(1), {"a": [torch.ones(2), 3], "b": (torch.ones(3), None)})
    assert [(p, len(t)) for p, t in named_tensors(value)] == [("logits", 1), ("more.a.0", 2), ("more.b.0", 3)]
    doubled = map_tensors(value, lambda t: t * 2)
    assert isinstance(doubled, Out)
    assert doubled.more["b"][0].tolist() == [2.0, 2.0, 2.0]
    assert value.logits.tolist() == [1.0]
    packed = nn.utils.rnn.pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    assert [p for p, _ in named_tensors(packed)] == ["data", "batch_sizes"]
    assert type(map_tensors(packed, lambda t: t)) is type(packed)

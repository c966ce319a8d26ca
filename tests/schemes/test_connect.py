"""Roles from the graph: readout, ends of residual branches, the activation that a layer touches."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import firstlight


class Attention(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, 2, d // 2).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(a.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self, blocks=3, d=16):
        super().__init__()
        self.tokens = nn.Embedding(20, d)
        self.places = nn.Embedding(8, d)
        self.blocks = nn.ModuleList(Attention(d) for _ in range(blocks))
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, 20, bias=False)

    def forward(self, i):
        x = self.tokens(i) + self.places(torch.arange(i.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Basic(nn.Module):
    """Post-activation residual block with a projection where the width changes."""

    def __init__(self, a, b):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b)
        self.conv2, self.bn2 = nn.Conv2d(b, b, 3, padding=1), nn.BatchNorm2d(b)
        self.short = nn.Conv2d(a, b, 1) if a != b else nn.Identity()

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        out += self.short(x)
        return F.relu(out)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.blocks = nn.Sequential(Basic(8, 8), Basic(8, 16))
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.stem(x)), 2)
        return self.fc(self.blocks(x).mean((2, 3)))


def rows(model, batch, scheme="he"):
    return {r.name: r for r in firstlight.initialize(model, scheme, batch=batch, dry_run=True).table.rows}


def with_role(found, role):
    return {n for n, r in found.items() if r.role == role}


TOKENS = torch.zeros(2, 6, dtype=torch.int64)


def test_transformer_roles():
    found = rows(GPT(), TOKENS)
    assert with_role(found, "readout") == {"head.weight"}
    assert with_role(found, "branch end") == {f"blocks.{i}.{n}.weight" for i in range(3) for n in ("out", "down")}
    assert with_role(found, "embedding") == {"tokens.weight", "places.weight"}
    assert with_role(found, "weight") == {f"blocks.{i}.{n}.weight" for i in range(3) for n in ("qkv", "up")}
    assert {r.activation for n, r in found.items() if n.endswith("down.weight")} == {"gelu"}
    assert found["blocks.0.up.weight"].gain == 1.0
    assert found["blocks.0.down.weight"].gain == pytest.approx(1.5335304, abs=1e-7)


def test_gpt2_scales_what_writes_to_the_stream():
    found = rows(GPT(), TOKENS, "gpt-2")
    assert found["blocks.1.out.weight"].law.variance == pytest.approx(0.02**2 / 6)
    assert found["blocks.1.qkv.weight"].law.variance == pytest.approx(0.02**2)
    assert found["tokens.weight"].law.variance == pytest.approx(0.02**2)


def test_names_do_not_matter():
    """A readout called conv1, a branch end called embed: roles come from the wiring."""

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.readout = nn.Linear(8, 8)
            self.embed = nn.Linear(8, 8)
            self.bias = nn.Linear(8, 8)

        def forward(self, x):
            return self.bias(x + self.embed(torch.tanh(self.readout(x))))

    found = rows(Odd(), torch.zeros(2, 8))
    assert found["readout.weight"].role == "weight"
    assert found["embed.weight"].role == "branch end"
    assert found["bias.weight"].role == "readout"


def test_tied_table_is_drawn_once_as_the_readout_that_it_is():
    model = GPT()
    model.head.weight = model.tokens.weight
    found = rows(model, TOKENS)
    tied = found["tokens.weight"]
    assert tied.aliases == ("head.weight",)
    assert (tied.role, tied.fan_in) == ("readout", 16)
    assert tied.law.variance == pytest.approx(1 / 16)


def test_residual_network_roles():
    found = rows(Net(), torch.zeros(2, 3, 12, 12))
    ends = {"blocks.0.conv2.weight", "blocks.1.conv2.weight"}
    assert with_role(found, "branch end") == ends
    assert with_role(found, "readout") == {"fc.weight"}
    assert found["blocks.1.short.weight"].role == "weight"
    maps = with_role(found, "weight") | ends | {"fc.weight"}
    assert all(found[n].gain == pytest.approx(2**0.5) for n in maps), {n: found[n].gain for n in maps}


def test_fixup_follows_its_rules():
    found = rows(Net(), torch.zeros(2, 3, 12, 12), "fixup")
    for name in ("blocks.0.conv2.weight", "blocks.1.conv2.weight", "fc.weight"):
        assert found[name].law.variance == 0.0
    inner = found["blocks.0.conv1.weight"]
    assert inner.law.variance == pytest.approx(2 / (8 * 9) * 2 ** (-2 / 2))  # L = 2 branches of m = 2 layers
    assert found["stem.weight"].law.variance == pytest.approx(2 / 27)


def test_scaled_branches():
    found = rows(Net(), torch.zeros(2, 3, 12, 12), "scaled-branches")
    plain = rows(Net(), torch.zeros(2, 3, 12, 12), "he")
    name = "blocks.0.conv2.weight"
    assert found[name].law.variance == pytest.approx(plain[name].law.variance / 2)
    assert rows(Net(), torch.zeros(2, 3, 12, 12), "scaled-branches(end='zero')")[name].law.variance == 0.0


def test_gated_units_take_the_gain_of_their_gate():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.up, self.down = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, x):
            return self.down(F.silu(self.gate(x)) * self.up(x))

    found = rows(Gated(), torch.zeros(2, 8))
    assert found["down.weight"].activation == "silu"
    assert found["down.weight"].gain == pytest.approx(1.6765325, abs=1e-7)


def test_activations_are_found_through_structure_only():
    class Far(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Linear(16, 8), nn.Linear(8, 2)

        def forward(self, x):
            x = F.avg_pool2d(torch.tanh(self.a(x)), 2)
            x = F.dropout(x.flatten(1), 0.1, self.training)
            x = self.b(x)
            return self.c(F.layer_norm(torch.sigmoid(x), (8,)))

    found = rows(Far(), torch.zeros(2, 3, 6, 6))
    assert found["b.weight"].activation == "tanh"
    assert found["c.weight"].activation == ""  # the layer norm stands between


def test_shared_weights_have_one_row_and_the_weightier_role():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.step, self.out = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            for _ in range(3):
                x = x + torch.relu(self.step(x))
            return self.out(x)

    found = rows(Loop(), torch.zeros(2, 8))
    assert found["step.weight"].role == "branch end"
    assert found["out.weight"].role == "readout"


def test_unused_parameters_and_position_tables():
    class Extra(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(8, 8)
            self.unused = nn.Parameter(torch.zeros(4))
            self.table = nn.Parameter(torch.zeros(5, 8))
            self.scale = nn.Parameter(torch.full((8,), 1e-5))

        def forward(self, x):
            return self.scale * self.lin(x + self.table)

    left = firstlight.initialize(Extra(), batch=torch.zeros(2, 5, 8), dry_run=True).table.left
    assert "no operation" in left["unused"]
    assert set(left) == {"unused", "table", "scale"}


def test_hand_written_rms_norm_has_a_gain():
    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(8))
            self.lin = nn.Linear(8, 8)

        def forward(self, x):
            x = self.lin(x)
            return self.w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))

    found = rows(Norm(), torch.zeros(2, 8))
    assert found["w"].role == "gain"
    assert found["w"].law.mean == 1.0


def test_compiled_and_parametrized_models_keep_their_roles():
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    plain = rows(model, torch.zeros(2, 8))
    compiled = rows(torch.compile(model, backend="eager"), torch.zeros(2, 8))
    assert [r.gain for r in plain.values()] == [r.gain for r in compiled.values()]
    nn.utils.parametrizations.weight_norm(model[2])
    table = rows(model, torch.zeros(2, 8))
    assert table["2.parametrizations.weight.original0"].activation == "tanh"


def test_the_graph_is_captured_without_touching_the_model():
    model = Net()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    rows(model, torch.randn(2, 3, 12, 12))
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_a_batch_that_does_not_fit_changes_nothing():
    model = nn.Linear(8, 8)
    before = model.weight.detach().clone()
    with pytest.raises(firstlight.FirstlightError):
        firstlight.initialize(model, batch=torch.zeros(2, 9))
    assert torch.equal(before, model.weight)


def test_stacked_experts_are_counted_one_by_one():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Parameter(torch.zeros(3, 12, 8))  # expert × out × in, read by F.linear
            self.down = nn.Parameter(torch.zeros(3, 12, 8))  # expert × in × out, read by @

        def forward(self, x):
            return sum(torch.relu(F.linear(x, self.up[i])) @ self.down[i] for i in range(3))

    found = rows(Experts(), torch.zeros(2, 8))
    assert (found["up"].fan_in, found["up"].fan_out) == (8, 12)
    assert (found["down"].fan_in, found["down"].fan_out) == (12, 8)
    firstlight.initialize(Experts(), "orthogonal", batch=torch.zeros(2, 8))


def test_a_recurrence_written_by_hand_has_no_residual_branch():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.u = nn.Linear(4, 8), nn.Linear(8, 8)

        def forward(self, x):
            h = torch.zeros(x.shape[0], 8)
            for t in range(x.shape[1]):
                h = torch.tanh(self.w(x[:, t]) + self.u(h))
            return h

    assert not with_role(rows(Loop(), torch.zeros(2, 3, 4)), "branch end")


ZOO_ROLES = {
    "hf_gpt2": {"branch end": 2, "embedding": 1, "readout": 1},
    "hf_llama": {"branch end": 2, "embedding": 1, "readout": 1},
    "hf_mixtral": {"embedding": 1, "readout": 1},
    "hf_t5": {"branch end": 5, "readout": 1},
    "unet": {"readout": 1},
    "encoder_pre": {"branch end": 4},
    "residual_post": {"branch end": 3, "readout": 1},
}


@pytest.mark.parametrize("name", ZOO_ROLES)
def test_roles_in_networks_of_others(name):
    from tests.models import ZOO

    if name not in ZOO:
        pytest.skip("transformers is not installed")
    model, args, kwargs = ZOO[name].make()
    found = rows(model, (args, kwargs))
    for role, count in ZOO_ROLES[name].items():
        assert len(with_role(found, role)) == count, (role, with_role(found, role))
    assert not with_role(found, "other")
    assert not any("assumed" in r.reason for r in found.values())

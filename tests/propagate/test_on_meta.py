"""A model of which only shapes are known is predicted as the same model with entries."""

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

import firstlight
from firstlight.errors import CaptureError
from tests.models import ZOO


def on_meta(name, real_inputs=False):
    """Predictions of a network of the zoo with entries, and on the meta device."""
    entry = ZOO[name]
    model, args, kwargs = entry.make()
    real = firstlight.predict(model, (args, kwargs), "he")
    with torch.device("meta"):
        bare = entry.build(entry.depths[0], entry.width)
    if not real_inputs:
        args, kwargs = tree_map(lambda t: t.to("meta") if isinstance(t, torch.Tensor) else t, (args, kwargs))
    return real, firstlight.predict(bare, (args, kwargs), "he")


@pytest.mark.parametrize("name", ["hf_gpt2", "gpt_tied", "hf_vit", "vit_like", "hf_convnext", "hf_swin", "hf_mamba"])
def test_shapes_alone_give_the_same_chance_to_start(name):
    real, bare = on_meta(name)
    assert [n.name for n in bare.nodes] == [n.name for n in real.nodes]
    assert bare.p_start == pytest.approx(real.p_start, abs=0.02)


def test_token_ids_that_are_laid_out_anew_still_differ_from_sample_to_sample():
    _, bare = on_meta("hf_gpt2")
    (looked_up,) = (n for n in bare.nodes if n.name == "transformer.wte:embedding")
    assert looked_up.output.c_batch == pytest.approx(1.0 / 60.0)  # two of 60 tokens are the same
    assert any("made of integers or buffers without entries" in text for text in bare.notes)


class Scaled(nn.Module):
    """A token in front, and a branch with a scale of its own."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.empty(1, 1, 32))
        self.scale = nn.Parameter(torch.empty(32))
        self.map = nn.Linear(32, 32)

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        return x + self.scale * torch.relu(self.map(x))


def test_what_has_no_law_and_no_entries_is_assumed_and_named():
    with torch.device("meta"):
        model = Scaled()
    found = firstlight.predict(model, torch.empty(8, 5, 32, device="meta"), "he")
    assert "1 parameter has no law and no entries, taken as 1: scale" in found.notes
    assert (
        "1 parameter has no law and no entries, taken as normal entries of standard deviation 0.02: token"
        in found.notes
    )
    known = {p.name: p.q for p in found.parameters}
    assert (known["scale"], known["token"]) == (1.0, pytest.approx(4e-4))


def test_a_mask_that_decides_the_path_is_asked_for():
    with torch.device("meta"):
        model = nn.Transformer(32, 4, 1, 1, 64, batch_first=True)
    x, mask = torch.empty(4, 6, 32, device="meta"), nn.Transformer.generate_square_subsequent_mask(6)
    with pytest.raises(CaptureError, match="Pass real inputs"):
        firstlight.predict(model, ((x, x), {"tgt_mask": mask.to("meta")}), "he")
    assert firstlight.predict(model, ((x, x), {"tgt_mask": mask}), "he").p_start > 0.9


def test_memory_that_is_written_before_it_is_read_is_no_mask():
    model, args, kwargs = ZOO["recurrent_by_hand"].make()
    found = firstlight.predict(model, (args, kwargs), "he")
    assert found.notes == ()
    assert abs(found.nodes[-1].output.c_batch) < 0.1

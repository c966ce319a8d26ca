"""Packed sequences: of one length they are what the whole sequence is; shorter ones count their own steps."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import firstlight as fl
from firstlight.capture.trace import trace

DRAWS = 32


class Reader(nn.Module):
    def __init__(self, kind, lengths):
        super().__init__()
        self.lengths = lengths
        self.rnn = kind(24, 32, batch_first=True)
        self.out = nn.Linear(32, 8)

    def forward(self, x):
        if self.lengths is None:
            return self.out(self.rnn(x)[0])
        packed = pack_padded_sequence(x, torch.tensor(self.lengths), batch_first=True, enforce_sorted=False)
        return self.out(pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])


def made(kind, lengths):
    torch.manual_seed(0)
    return Reader(kind, lengths), torch.randn(8, 6, 24)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_sequences_of_one_length_are_predicted_as_whole_ones(kind):
    (whole, x), (packed, _) = made(kind, None), made(kind, [6] * 8)
    a, b = fl.predict(whole, x), fl.predict(packed, x)
    for node in trace(whole, (x,)).nodes:
        mine, other = a[node.name], b[node.name]
        assert mine.output.q == pytest.approx(other.output.q, rel=1e-9)
        assert mine.grad.q == pytest.approx(other.grad.q, rel=1e-9)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_shorter_sequences_are_met_within_their_error(kind):
    model, x = made(kind, [6, 5, 6, 3, 2, 6, 4, 1])
    both = fl.compare(fl.predict(model, x), fl.measure(model, x, draws=DRAWS)).nodes
    assert {"_pack_padded_sequence", "_pad_packed_sequence"} <= {n.op for n in both}
    for n in both:
        assert n.q_z is None or n.q_measured == 0.0 or abs(n.q_z) < 4, n
        assert n.grad_q_z is None or abs(n.grad_q_z) < 4, n


def test_shapes_alone_are_enough_where_lengths_are_known():
    model, x = made(nn.LSTM, [6, 5, 6, 3, 2, 6, 4, 1])
    graph = trace(model, (x,))
    assert not graph.notes
    assert graph["rnn:lstm"].outputs[0].shape == (33, 32)
    assert fl.predict(model.to("meta"), x, "he")["out:linear"].output.q > 0.0

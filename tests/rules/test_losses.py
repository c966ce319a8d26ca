"""Models that are given their labels and return a loss: the loss and its gradients, against draws."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight

CLASSES, WIDTH, SAMPLES, PLACES, DRAWS = 10, 32, 16, 12, 64


class Tagger(nn.Module):
    """Scores of every place of a sequence, and their loss."""

    def __init__(self, loss):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())
        self.head, self.loss = nn.Linear(WIDTH, CLASSES), loss

    def forward(self, x, labels):
        return self.loss(self.head(self.body(x)), labels)


def by_place(scores, labels):
    return F.cross_entropy(scores.mT, labels, ignore_index=-100)


def flat(scores, labels):
    return F.cross_entropy(scores.view(-1, CLASSES), labels.view(-1), ignore_index=-100, label_smoothing=0.1)


def likelihood(scores, labels):
    return F.nll_loss(scores.view(-1, CLASSES).log_softmax(-1), labels.view(-1), reduction="sum")


def shares(scores, labels):
    return F.cross_entropy(scores.view(-1, CLASSES), F.one_hot(labels.view(-1).clamp(0), CLASSES).float())


@pytest.mark.parametrize("loss", [by_place, flat, likelihood, shares])
def test_the_loss_inside_a_model_and_its_gradients(loss):
    torch.manual_seed(0)
    model, x = Tagger(loss), torch.randn(SAMPLES, PLACES, WIDTH)
    labels = torch.randint(CLASSES, (SAMPLES, PLACES))
    if loss in (by_place, flat):
        labels[:, -5:] = -100  # padding, which no loss counts
    found = firstlight.predict(model, (x, labels), "he")
    known = {n.name: n for n in firstlight.measure(model, (x, labels), draws=DRAWS, scheme="he").nodes}
    for name in ("body.0:linear", "body.1:relu", "head:linear"):
        q = np.exp(known[name].log_grad_q.values)
        error = float(q.std(ddof=1) / q.mean() / DRAWS**0.5)
        assert abs(found[name].grad.q / q.mean() - 1.0) <= 4.0 * error + 0.05, (name, found[name].grad.q / q.mean())
    end = next(n for n in found.nodes if n.op in ("cross_entropy", "nll_loss"))
    q = np.exp(known[end.name].log_q.values)
    error = float(q.std(ddof=1) / q.mean() / DRAWS**0.5)
    assert abs(math.log(end.output.q / q.mean())) <= 4.0 * error + 0.05, (end.output.q, q.mean())

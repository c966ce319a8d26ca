"""What the forward pass draws, in every spelling, against drawn values."""

import pytest
import torch
from torch import nn

import firstlight

FORMS = {
    "normal of numbers": lambda x: torch.normal(0.5, 0.3, size=x.shape),
    "normal around a tensor": lambda x: torch.normal(x, 0.5),
    "normal of two tensors": lambda x: torch.normal(x, torch.sigmoid(x)),
    "normal in place": lambda x: torch.empty_like(x).normal_(0.2, 0.7),
    "standard normal in place": lambda x: torch.empty_like(x).normal_(),
    "uniform in place": lambda x: torch.empty_like(x).uniform_(-0.3, 0.1),
    "exponential in place": lambda x: torch.empty_like(x).exponential_(2.0),
    "Gumbel noise": lambda x: -torch.empty_like(x).exponential_().log(),
    "Gumbel noise of uniform": lambda x: -(-(torch.rand_like(x) + 1e-9).log()).log(),
    "chances of a tensor": lambda x: torch.bernoulli(torch.sigmoid(x)),
    "mask in place": lambda x: x.new_empty((x.shape[0], 1)).bernoulli_(0.9),
    "mask of one number": lambda x: torch.bernoulli(torch.full_like(x, 0.2)),
    "floor of uniform": lambda x: torch.floor(0.9 + torch.rand(x.shape[0], 1)),
    "comparison with uniform": lambda x: (torch.rand_like(x) < 0.3).float(),
    "counts": lambda x: torch.poisson(torch.exp(0.3 * x)),
}


class Drawing(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.first, self.last, self.form = nn.Linear(64, 16, bias=False), nn.Linear(16, 4), form
        self.draw()

    def draw(self):
        """Normal weights that have exactly the variance 1/64: the law that the prediction reads from them."""
        w = torch.randn(16, 64)
        with torch.no_grad():
            self.first.weight.copy_((w - w.mean()) / w.std(correction=0) / 8.0)

    def forward(self, x):
        x = self.first(x)
        return self.last(x), self.form(x)


@pytest.mark.parametrize("form", list(FORMS))
def test_a_draw_has_the_mean_square_that_its_arguments_say(form):
    torch.manual_seed(0)
    model, x = Drawing(FORMS[form]), torch.randn(64, 64)
    x = x / x.square().mean().sqrt()
    predicted = firstlight.predict(model, x).nodes[-1].output.q
    q = []
    for _ in range(400):  # the weights and what is drawn, each time anew
        model.draw()
        with torch.no_grad():
            q.append(model(x)[1].square().mean())
    q = torch.stack(q).double()
    assert abs(float(q.mean()) - predicted) < 4.0 * float(q.std()) / len(q) ** 0.5

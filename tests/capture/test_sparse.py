"""Sparse tensors: a graph's adjacency as buffer or argument, in every layout. And complex inputs, which do differ."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import firstlight
from firstlight.capture import tensors

NODES = 40
PRODUCTS = ("matmul", "mm")
LAYOUTS = ("coo", "csr", "csc")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """torch calls compressed layouts a beta, once a process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse .* support is in beta")
        yield


def adjacency() -> Tensor:
    g = torch.Generator().manual_seed(0)
    a = (torch.rand(NODES, NODES, generator=g) < 0.1).float()
    a = ((a + a.T) > 0).float() + torch.eye(NODES)
    d = a.sum(1).rsqrt()
    return d[:, None] * a * d


def laid_out(a: Tensor, layout: str) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse .* support is in beta")
        return a.to_sparse_coo() if layout == "coo" else a.to_sparse_csr() if layout == "csr" else a.to_sparse_csc()


class Graph(nn.Module):
    """Kipf & Welling's layers, with the adjacency as a buffer or as an argument."""

    def __init__(self, layout: str = "coo", product: str = "@", buffer: bool = True, depth: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(depth))
        self.head, self.product = nn.Linear(32, 4), product
        if buffer:
            self.register_buffer("adjacency", laid_out(adjacency(), layout))

    def forward(self, x: Tensor, adjacency: Tensor | None = None) -> Tensor:
        a = self.adjacency if adjacency is None else adjacency
        for layer in self.layers:
            h = layer(x)
            x = {"@": lambda a, h: a @ h, "sparse.mm": torch.sparse.mm, "spmm": torch.spmm}[self.product](a, h).relu()
        return self.head(x)


X = torch.randn(NODES, 32, generator=torch.Generator().manual_seed(1))


#: torch.spmm takes the layout by coordinates alone.
WAYS = [(a, p) for a in LAYOUTS for p in ("@", "sparse.mm", "spmm") if a == "coo" or p != "spmm"]


@pytest.mark.parametrize(("layout", "product"), WAYS)
def test_every_verb_with_a_sparse_buffer(layout: str, product: str) -> None:
    torch.manual_seed(0)
    model = Graph(layout, product)
    before = model.adjacency.to_dense()
    measured = firstlight.measure(model, X)
    assert measured.nodes[-1].output.q == pytest.approx(float(model(X).detach().square().mean()), rel=1e-5)
    assert firstlight.diagnose(model, X).verdict in ("starts", "mis-scaled")
    assert firstlight.predict(model, X, "he").p_start > 0.9
    firstlight.initialize(model, "he", batch=X).undo()
    assert torch.equal(model.adjacency.to_dense(), before)
    assert model.adjacency.layout == laid_out(adjacency(), layout).layout


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_a_sparse_argument_is_a_graph_and_no_sample(layout: str) -> None:
    torch.manual_seed(0)
    model, batch = Graph(buffer=False), (X, laid_out(adjacency() / 100.0, layout))
    report = firstlight.diagnose(model, batch)
    assert not {f.code for f in report.findings if f.code.startswith("INP") and f.code != "INP005"}
    assert firstlight.measure(model, batch).nodes[1].grad is None
    assert firstlight.predict(model, (X, laid_out(adjacency(), layout)), "he").p_start > 0.9


def test_what_a_forward_pass_writes_into_a_sparse_buffer_is_put_back() -> None:
    class Writes(Graph):
        def forward(self, x: Tensor, adjacency: Tensor | None = None) -> Tensor:
            with torch.no_grad():
                self.adjacency._values().mul_(2.0)
            return super().forward(x, adjacency)

    model = Writes()
    before = model.adjacency.to_dense()
    firstlight.measure(model, X)
    assert torch.equal(model.adjacency.to_dense(), before)


@pytest.mark.parametrize("buffer", [True, False])
def test_the_first_product_is_predicted(buffer: bool) -> None:
    """64 draws; lengths of sums over neighbours, which have much in common, scatter: four standard errors."""
    model = Graph(buffer=buffer, depth=2)
    batch = X if buffer else (X, adjacency().to_sparse_coo())
    drawn: list[float] = []
    for seed in range(64):
        firstlight.initialize(model, "he", seed=seed, batch=batch)
        frame = firstlight.measure(model, batch).to_frame()
        drawn.append(float(frame["q"][frame["op"].isin(PRODUCTS)].iloc[0]))
    q = torch.tensor(drawn)
    frame = firstlight.predict(model, batch, "he").to_frame()
    found = float(frame["q"][frame["op"].isin(PRODUCTS)].iloc[0])
    assert abs(found - float(q.mean())) < 4 * float(q.std()) / 8


def test_of_a_large_graph_some_rows_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, batch = Graph(buffer=False), (X, adjacency().to_sparse_coo())
    whole = firstlight.predict(model, batch, "he").nodes[-1].output.q
    monkeypatch.setattr(tensors, "SPARSE_LIMIT", 10 * NODES)
    assert tensors.dense(batch[1]).shape == (10, NODES)
    some = firstlight.predict(model, batch, "he").nodes[-1].output.q
    assert 0.3 < some / whole < 3.0  # ten of forty nodes
    firstlight.measure(model, batch)
    assert firstlight.diagnose(model, batch).verdict in ("starts", "mis-scaled")


def test_complex_samples_differ() -> None:
    class Spectrum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(16, 32, dtype=torch.complex64), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.first(x).abs())

    torch.manual_seed(0)
    x = torch.randn(32, 16, dtype=torch.complex64)
    assert firstlight.diagnose(Spectrum(), x).verdict == "starts"
    alike = firstlight.diagnose(Spectrum(), x[:1].expand(32, 16))
    assert "INP003" in {f.code for f in alike.findings}

"""The zoo: small networks of every kind, each at two depths; what the tests and the accuracy benchmark run on.

`ZOO` maps a name to an `Entry`; `Entry.make(...)` gives (model, args, kwargs). Weights follow from `seed`; the
global random state is left alone. Entries of transformers and diffusers are there if those packages are.
"""

from __future__ import annotations

from tests.zoo import convolution, dense, pretrained, sequence, shared
from tests.zoo.entry import Entry

ZOO: dict[str, Entry] = {}
for _entries in (dense.ENTRIES, convolution.ENTRIES, sequence.ENTRIES, shared.ENTRIES, pretrained.ENTRIES):
    for _entry in _entries:
        if _entry.name in ZOO:
            raise ValueError(f"two networks are called {_entry.name!r}")
        ZOO[_entry.name] = _entry


def names(*tags: str, without: tuple[str, ...] = ()) -> list[str]:
    """Names of the networks that carry all of `tags` and none of `without`."""
    return [n for n, e in ZOO.items() if e.tags.issuperset(tags) and not e.tags.intersection(without)]

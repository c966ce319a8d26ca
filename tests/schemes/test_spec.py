"""Spec strings: what is read, what is refused, and that nothing in them is ever evaluated."""

import pytest

from firstlight.errors import InputError, RegistryError
from firstlight.schemes import Context, Draw, Target, names, resolve, scheme, schemes
from firstlight.schemes.spec import parse


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("he", ("he", [], {})),
        ("  HE ( ) ", ("he", [], {})),
        ("normal(0.02)", ("normal", [0.02], {})),
        ("normal(-1, mean=+2)", ("normal", [-1], {"mean": 2})),
        ("random_walk(law='paper')", ("random-walk", [], {"law": "paper"})),
        (
            'he(activation="leaky_relu", bias_std=1e-3)',
            ("he", [], {"activation": "leaky_relu", "bias_std": 1e-3}),
        ),
    ],
)
def test_reads(spec, expected):
    assert parse(spec) == expected


@pytest.mark.parametrize(
    "spec",
    [
        "",
        " ",
        "he(",
        "he)",
        "he(1)+f(2)",
        "he(x)",
        "he(__import__('os').system('true'))",
        "he(1+1)",
        "he(*[1])",
        "he(**{'a': 1})",
        "he([1])",
        "he(None)",
        "he(-'a')",
        "he(lambda: 1)",
        "he((yield))",
        "normal(" + "(" * 150,
        "he(" + "9" * 5000 + ")",
        "he\n;import os",
        "he()()",
        "1he",
        "he--x",
        "\x00",
        "ﬁxup(" + "1",
    ],
)
def test_refuses_what_is_no_literal_call(spec):
    with pytest.raises((InputError, RegistryError)):
        resolve(spec)


@pytest.mark.parametrize("bad", [None, 3, b"he", ["he"], {"he": 1}])
def test_refuses_other_types(bad):
    with pytest.raises(InputError, match="spec string"):
        resolve(bad)


def test_unknown_names_suggest_near_ones():
    with pytest.raises(RegistryError, match="'orthogonal'"):
        resolve("orthogonl")
    with pytest.raises(RegistryError, match="'xavier'"):
        resolve("xaver")


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("he(mode='fan_int')", "Did you mean 'fan_in'"),
        ("he(colour=1)", "mode, distribution, activation, bias_std"),
        ("normal", "no value for std"),
        ("normal('a')", "a number"),
        ("normal(True)", "a number"),
        ("normal(1e999)", "finite"),
        ("normal(1, 2, 'normal', 4)", "at most 3"),
        ("normal(1, std=2)", "std twice"),
        ("he(bias_std=-1)", "≥ 0"),
        ("he-uniform(distribution='normal')", "distribution twice"),
    ],
)
def test_unusable_options_are_named(spec, text):
    with pytest.raises(InputError, match=text):
        resolve(spec)


def test_canonical_spec_resolves_to_itself():
    for name in names():
        if name in ("constant", "normal", "uniform"):
            name += "(0.5)"
        chosen = resolve(name)
        assert resolve(chosen.spec).spec == chosen.spec
        assert resolve(chosen) is chosen


def test_variants_are_the_options_they_stand_for():
    assert resolve("kaiming-uniform(mode='fan_out')").spec == "he(distribution='uniform', mode='fan_out')"
    assert resolve("glorot").spec == "xavier"


def test_duplicates_are_refused():
    def again(target: Target, context: Context) -> Draw: ...

    before = names()
    with pytest.raises(RegistryError, match="second entry"):
        scheme("he")(again)
    with pytest.raises(RegistryError, match="second entry"):
        scheme("brand-new", variants={"kaiming": {}})(again)
    assert "brand-new" not in [s.name for s in schemes()]
    assert set(names()) == set(before)


def test_every_reference_exists():
    from firstlight.theory import bibliography

    for record in schemes():
        for key in record.refs:
            assert bibliography.bibtex(key)
        assert record.note

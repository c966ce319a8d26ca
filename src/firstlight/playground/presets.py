"""Scenes to open with one click: the article's, both papers', and the seven steps of the guided tour."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

Settings = dict[str, Any]

SETS = ("circle", "moon", "square", "gaussian")
# The article's network: 2-6-3-1, rectifiers, 100 points, full batch, rate 0.1.
ARTICLE: Settings = {
    "count": 100,
    "widths": [6, 3],
    "depth": 2,
    "width": 6,
    "activation": "relu",
    "learning_rate": 0.1,
    "optimizer": "sgd",
    "batch": 0,
}
CHOICES: dict[str, Settings] = {
    "zero": {"scheme": "zero"},
    "constant": {"scheme": "constant", "gain": 0.5},
    "too-small": {"scheme": "too-small", "variance_scale": 0.01},
    "appropriate": {"scheme": "appropriate"},
    "too-large": {"scheme": "too-large", "variance_scale": 100.0},
}


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene.

    Attributes:
        key: Name in addresses.
        group: Heading in the gallery.
        title: What it is called.
        text: What to look for, in a sentence or two.
        runs: Settings of one to four runs, what they leave out is the default's.
        speed: Steps a tick.
        task: "", or the long picture to draw at once: "walks", "strip" or "critical".
        selected: The run whose layers are shown first.
    """

    key: str
    group: str
    title: str
    text: str
    runs: tuple[Settings, ...]
    speed: int | str = 1
    task: str = ""
    selected: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the guided tour: a scene, and a prediction to make before play.

    Attributes:
        title: What the step is about.
        text: The story in plain words.
        question: What to predict.
        options: Answers to choose from.
        answer: Number of the right one.
        reveal: Why, shown after the choice; what to see when pressing play.
        scene: Key of the scene to open.
    """

    title: str
    text: str
    question: str
    options: tuple[str, ...]
    answer: int
    reveal: str
    scene: str


def article(choice: str, data: str = "circle") -> Settings:
    """Settings of one of the article's five choices on one of its four sets."""
    return {**ARTICLE, "data": data, **CHOICES[choice]}


_SAID = {
    "zero": "All weights zero: nothing of the input passes, no gradient comes back. The cost stays at ln 2 for ever.",
    "constant": "All weights equal: every unit of a layer computes the same and learns the same. Six units act as one.",
    "too-small": "Variance a hundredth of 1/n: the gradient is tiny, the cost stands still for hundreds of steps, "
    "then falls.",
    "appropriate": "Variance 1/n: signal and gradient keep their size from layer to layer, learning begins at once.",
    "too-large": "Variance a hundred times 1/n: the first cost is huge, the first steps kill units, and what is "
    "left sticks.",
}


def _article_scenes() -> list[Scene]:
    scenes = [
        Scene(
            "article-side-by-side",
            "The article",
            "Four choices side by side",
            "The same seed and the same points; only the size of the first weights differs.",
            tuple(article(c) for c in ("zero", "too-small", "appropriate", "too-large")),
            10,
            selected=2,
        )
    ]
    for choice, said in _SAID.items():
        for data in SETS:
            key, title = f"article-{choice}-{data}", f"{choice.replace('-', ' ').capitalize()} · {data}"
            scenes.append(Scene(key, "The article", title, said, (article(choice, data),), 10))
    chain = {**ARTICLE, "widths": [2] * 9, "activation": "linear", "scheme": "identity", "bias": False}
    scenes += [
        Scene(
            "exploding-9-layer",
            "The article",
            "Exploding nine-layer chain",
            "Nine linear layers, each 1.5 times the identity, beside 0.5 and 1: 1.5⁹ ≈ 38, 0.5⁹ ≈ 0.002.",
            ({**chain, "gain": 1.5}, {**chain, "gain": 0.5}, {**chain, "gain": 1.0}),
            1,
        )
    ]
    return scenes


_DIGITS: Settings = {"data": "digits", "count": 500, "learning_rate": 0.05, "batch": 50}
_PAPERS = [
    Scene(
        "sussillo-walks",
        "Random walk initialization (2014)",
        "A hundred walks against the band",
        "Ln length goes up and down from layer to layer like a random walk. The shaded band is ±2σ, predicted.",
        (
            {
                "data": "gaussian",
                "widths": [32] * 100,
                "activation": "linear",
                "scheme": "random-walk",
                "bias": False,
                "learning_rate": 1e-4,
            },
        ),
        1,
        "walks",
    ),
    Scene(
        "sussillo-gain",
        "Random walk initialization (2014)",
        "The gain at which the walk has no drift",
        "Below the critical gain signals die out with depth, above it they explode; where the line crosses zero they "
        "do neither.",
        ({**_DIGITS, "widths": [32] * 30, "scheme": "random-walk"},),
        1,
        "critical",
    ),
    Scene(
        "sussillo-depth-100",
        "Random walk initialization (2014)",
        "A hundred layers: He, Xavier, random walk",
        "The same hundred layers of rectifiers, started three ways. Watch which walk stays inside.",
        tuple(
            {**_DIGITS, "widths": [64] * 100, "learning_rate": 0.001, "scheme": s}
            for s in ("random-walk", "he", "xavier")
        ),
        1,
    ),
    Scene(
        "hanin-mean",
        "How to start training (2018)",
        "First failure: the mean length",
        "Fifty layers of rectifiers. With variance 2/n the mean length is kept, with 1/n it halves at every layer, "
        "with 4/n it doubles.",
        tuple({**_DIGITS, "widths": [64] * 50, "scheme": "gain", "gain": g} for g in (1.4142, 1.0, 2.0)),
        1,
    ),
    Scene(
        "hanin-narrow",
        "How to start training (2018)",
        "Second failure: too narrow for its depth",
        "The variance is right in all three, yet narrow deep networks swing: Σ1/n is what counts. Ask for the strip "
        "of 25 seeds.",
        tuple({**_DIGITS, "widths": [n] * 40, "scheme": "he"} for n in (100, 20, 6)),
        1,
    ),
    Scene(
        "hanin-residual",
        "How to start training (2018)",
        "Residual branches and their weight",
        "h + η f(h): rectifiers only ever add, so that with η = 1 the mean square nearly triples at every block; with "
        "η = 0.02 a hundred blocks together let it grow about tenfold.",
        tuple(
            {**_DIGITS, "widths": [32] * 100, "learning_rate": 0.01, "scheme": "he", "residual": eta}
            for eta in (0.02, 0.3, 1.0)
        ),
        1,
    ),
]
_MORE = [
    Scene(
        "depth-100",
        "More",
        "Depth 100 and a normalization",
        "The same hundred layers plain, with layer normalization, and with branches.",
        tuple(
            {**_DIGITS, "widths": [32] * 100, "learning_rate": 0.03, **choice}
            for choice in (
                {"scheme": "torch-default"},
                {"scheme": "torch-default", "normalization": "layer"},
                {"scheme": "he", "residual": 0.02},
            )
        ),
    ),
    Scene(
        "sigmoid-saturated",
        "More",
        "Saturated sigmoids",
        "Large weights push sigmoids onto their flat pieces, where no gradient passes; under small ones the mean of "
        "each layer, the same for every input, drowns the signal. Rows that sum to zero do not let it through.",
        tuple(
            {"data": "moon", "widths": [12] * 5, "activation": "sigmoid", **start}
            for start in ({"scheme": "gain", "gain": 30.0}, {"scheme": "gain", "gain": 1.0}, {"scheme": "centred"})
        ),
        10,
    ),
    Scene(
        "spiral",
        "More",
        "Spiral",
        "A task that needs a good start: six layers of tanh, drawn orthogonal and by torch's default.",
        tuple(
            {
                "data": "spiral",
                "count": 300,
                "widths": [24] * 6,
                "activation": "tanh",
                "optimizer": "adam",
                "learning_rate": 0.01,
                "scheme": s,
            }
            for s in ("orthogonal", "torch-default")
        ),
        1,
    ),
]
SCENES: tuple[Scene, ...] = (*_article_scenes(), *_PAPERS, *_MORE)

TOUR: tuple[Step, ...] = (
    Step(
        "Why not zero?",
        "Before a network learns, somebody has to choose its first weights. The simplest choice is zero for all.",
        "All weights are zero. What will the cost do when you press play?",
        ("Fall slowly", "Stay exactly where it is", "Jump up"),
        1,
        "It stays at ln 2 = 0.693 for ever. Zero times the input is zero, so all layers pass zeros on, and every "
        "gradient of a weight is a product with one of these zeros. Any other equal value is no better: units that "
        "start equal stay equal.",
        "article-zero-circle",
    ),
    Step(
        "Too small, too large",
        "So the weights must differ: we draw them at random. But how large? Here are four runs with the same points "
        "and the same random numbers, only multiplied by another factor.",
        "Which run is the first to have learned the circle?",
        ("Variance 0.01/n", "Variance 1/n", "Variance 100/n"),
        1,
        "With 1/n the cost falls from the first step on. With 0.01/n it stands still for hundreds of steps before "
        "it falls. With 100/n it starts in the hundreds and does not blow up: the first huge steps switch units "
        "off, and what is left sticks above 0.5.",
        "article-side-by-side",
    ),
    Step(
        "Nine layers in a row",
        "What is a small mistake in one layer becomes a large one in many. Take nine layers that each multiply by "
        "the same number, and look at the walk: the logarithm of the signal's length, layer by layer.",
        "Every layer multiplies by 1.5. By how much does the signal grow over nine layers?",
        ("About 13 times", "About 38 times", "About 150 times"),
        1,
        "1.5⁹ = 38, while 0.5⁹ = 0.002. The walk is a straight line, up or down. The gradient takes the same road "
        "backwards, so the first layers get steps that are far too large, or none.",
        "exploding-9-layer",
    ),
    Step(
        "Rules of thumb",
        "Keep the mean of the activations at zero, and their variance the same in every layer. Then neither signal "
        "nor gradient explodes or fades.",
        "Fifty layers of 64 rectifiers. Which variance of the weights keeps the signal's mean length?",
        ("2/n", "1/n", "4/n"),
        0,
        "A rectifier passes half of the signal's square. The weights must make up for it: 2/n. With 1/n the square "
        "halves at every layer (2⁻⁵⁰ in all), with 4/n it doubles.",
        "hanin-mean",
    ),
    Step(
        "Where Xavier's rule comes from",
        "For units without a kink the sum of n terms, each of variance σ², has variance nσ² times the input's. So "
        "σ² = 1/n going forward; the gradient sees the other side, n′, so the rule takes 2/(n + n′).",
        "The critical gain is where the walk has no drift. For rectifiers, is it below or above Xavier's g = 1?",
        ("Below 1", "Exactly 1", "Above 1"),
        2,
        "The curve crosses zero near g = 1.5 for this width. Xavier's derivation assumed units that are linear near "
        "zero (tanh); rectifiers need √2 and a little more.",
        "sussillo-gain",
    ),
    Step(
        "He and the random walk",
        "He's g = √2 keeps the mean length of rectifier layers. But a mean can be carried by a few lucky draws. "
        "Each layer adds a random step to the logarithm of the length, so the typical network does a random walk.",
        "A hundred networks, the same law, only other draws. How will their walks look?",
        ("All on one line", "Spreading like a fan", "Half of them at infinity"),
        1,
        "They spread like a fan: its width grows with the square root of depth over width. The band is predicted "
        "before any weight is drawn. The random-walk gain keeps the median, so half of the walks end above and half "
        "below where they began.",
        "sussillo-walks",
    ),
    Step(
        "When depth still fails: Σ 1/n",
        "So even with the right gain the fan may be too wide. Its variance is about 5 Σ 1/n for rectifiers, summed "
        "over the layers: a deep network needs width.",
        "Forty layers with He's weights. Which width makes starting a matter of luck?",
        ("100", "20", "6"),
        2,
        "Forty layers of 6 give Σ1/n = 6.7: one seed starts, the next does not (press 25 seeds). With 100 units it "
        "is 0.4. What also helps: residual branches with a small weight, or normalization.",
        "hanin-narrow",
    ),
)


def gallery() -> dict[str, Any]:
    """Scenes and tour as plain values for the page."""
    return {"scenes": [asdict(s) for s in SCENES], "tour": [asdict(s) for s in TOUR]}


def scene(key: str) -> Scene:
    """The scene of that key.

    Raises:
        KeyError: There is none.
    """
    return {s.key: s for s in SCENES}[key]

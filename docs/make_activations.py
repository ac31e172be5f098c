"""Write docs/activations.md and its figures, on whichever backend Keras runs.

    python docs/make_activations.py [--output FOLDER]

Values that the page measures come from `keras_apa.ops`; the curves of derivatives are the closed formulas below in
float64 (tests/test_docs_activations.py holds them against the gradients of `keras_apa.ops`).
"""

import argparse
import math
from pathlib import Path

import keras
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from keras_apa import ops

DOCS = Path(__file__).resolve().parent

# ---------------------------------------------------------------------------------------------------------------
# Closed formulas, float64 numpy, with w = lambda * exp(-kappa * z).


def apa(z, kappa, lam):
    """`(1 + w) ** (-1 / lambda)`."""
    return np.exp(-np.log1p(lam * np.exp(-kappa * z)) / lam)


def aglu(z, kappa, lam):
    """`z * apa(z)`."""
    return z * apa(z, kappa, lam)


def apa_derivatives(z, kappa, lam):
    """Derivatives of `apa` with respect to z, kappa and lambda."""
    w = lam * np.exp(-kappa * z)
    value, share = apa(z, kappa, lam), w / (1 + w)
    return value * kappa * share / lam, value * z * share / lam, value * (np.log1p(w) - share) / lam**2


def aglu_derivatives(z, kappa, lam):
    """Derivatives of `aglu` with respect to z, kappa and lambda."""
    by_z, by_kappa, by_lambda = apa_derivatives(z, kappa, lam)
    return apa(z, kappa, lam) + z * by_z, z * by_kappa, z * by_lambda


def aglu_lambda_derivative_paper(z, kappa, lam):
    """Eq. 8 of the APA paper for the derivative of `aglu` with respect to lambda."""
    w = lam * np.exp(-kappa * z)
    return -aglu(z, kappa, lam) * w / (1 + w) / lam**2


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def gumbel(z):
    return np.exp(-np.exp(-z))


def gumbel_positive_gradient(z):
    """Derivative of `-log(gumbel(z))`."""
    return -np.exp(-z)


def gumbel_negative_gradient(z):
    """Derivative of `-log(1 - gumbel(z))`."""
    v = np.exp(-z)
    return v / np.expm1(v)


def gelu(z):
    return z * 0.5 * (1 + np.array([math.erf(value / math.sqrt(2)) for value in z]))


# ---------------------------------------------------------------------------------------------------------------
# Figures.

Z = np.linspace(-6, 6, 601)
LAMBDAS = (1e-4, 0.3, 1.0, 3.0, 10.0)
KAPPAS = (-1.0, 0.5, 1.0, 2.0, 5.0)
AGLU_KAPPAS = (0.3, 1.0, 1.702, 5.0)
# Blue and vermillion of Okabe and Ito's palette, told apart with every kind of colour vision.
BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#8A8F98"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.edgecolor": GREY,
    "axes.labelcolor": "#30343B",
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E8EB",
    "grid.linewidth": 0.7,
    "xtick.color": "#30343B",
    "ytick.color": "#30343B",
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.09,
    "figure.constrained_layout.h_pad": 0.07,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.7,
    "legend.labelspacing": 0.35,
    "lines.linewidth": 1.9,
    "lines.solid_capstyle": "round",
    "figure.dpi": 110,
}


def shades(count, name):
    """Colours for an ordered parameter, dark to light, without the light end that white swallows."""
    return [matplotlib.colormaps[name](value) for value in np.linspace(0.05, 0.82, count)]


def number(value):
    return "→ 0" if value == 1e-4 else f"= {value:g}"


def curves(axes, function, parameters, symbol, names=None):
    """One curve for each value of kappa or lambda, the other one at 1."""
    palette = "viridis" if symbol == "λ" else "plasma"
    for value, colour in zip(parameters, shades(len(parameters), palette), strict=True):
        kappa, lam = (1.0, value) if symbol == "λ" else (value, 1.0)
        name = (names or {}).get(value)
        label = f"{symbol} {number(value)}" + (f"  {name}" if name else "")
        axes.plot(Z, function(Z, kappa, lam), color=colour, label=label)


def finish(axes, title, y_label, x_label="z", legend="best", limits=None):
    axes.set(title=title, xlabel=x_label, ylabel=y_label, xlim=(-6, 6))
    axes.axhline(0, color=GREY, linewidth=0.8, zorder=1)
    if limits:
        axes.set_ylim(limits)
    if legend:
        axes.legend(loc=legend)


def readme_figure():
    figure = Figure(figsize=(9, 3.2), dpi=100)
    left, right = figure.subplots(1, 2)
    curves(left, apa, LAMBDAS, "λ", {1e-4: "(Gumbel)", 1.0: "(sigmoid)"})
    finish(left, "APA: a gate that learns its shape", "APA(z), κ = 1", legend="upper left", limits=(-0.03, 1.05))
    pairs = ((5.0, 1.0, "ReLU"), (1.702, 1.0, "GELU"), (1.0, 1.0, "SiLU"), (1.0, 10.0, ""), (1.0, 100.0, "identity"))
    notes = {"ReLU": "towards ReLU", "GELU": "≈ GELU", "SiLU": "SiLU", "identity": "towards identity"}
    for (kappa, lam, name), colour in zip(pairs, shades(len(pairs), "plasma"), strict=True):
        note = f"  ({notes[name]})" if name else ""
        right.plot(Z, aglu(Z, kappa, lam), color=colour, label=f"κ = {kappa:g}, λ = {lam:g}{note}")
    finish(right, "AGLU: the same gate times its input", "AGLU(z) = z · APA(z)", legend="upper left")
    right.set(xlim=(-4, 3), ylim=(-3.2, 3.2))
    return figure


def families_figure():
    figure = Figure(figsize=(9, 6.4))
    (top_left, top_right), (low_left, low_right) = figure.subplots(2, 2)
    curves(top_left, apa, LAMBDAS, "λ", {1e-4: "(Gumbel)", 1.0: "(sigmoid)"})
    finish(top_left, "APA, κ = 1", "APA(z)", legend="upper left", limits=(-0.03, 1.05))
    curves(top_right, apa, KAPPAS, "κ", {1.0: "(sigmoid)"})
    finish(top_right, "APA, λ = 1", "APA(z)", legend="center left", limits=(-0.03, 1.05))
    curves(low_left, aglu, LAMBDAS, "λ", {1.0: "(SiLU)"})
    finish(low_left, "AGLU, κ = 1", "AGLU(z)", legend="upper left", limits=(-4, 4.2))
    curves(low_right, aglu, AGLU_KAPPAS, "κ", {1.0: "(SiLU)", 1.702: "(≈ GELU)"})
    finish(low_right, "AGLU, λ = 1", "AGLU(z)", legend="upper left", limits=(-1.3, 4.2))
    for axes in (low_left, low_right):
        axes.set_xlim(-5, 4)
    return figure


def derivatives_figure(name, derivatives, kappas):
    figure = Figure(figsize=(9.6, 5.8))
    rows = figure.subplots(2, 3)
    for row, values, symbol, fixed in ((rows[0], LAMBDAS, "λ", "κ = 1"), (rows[1], kappas, "κ", "λ = 1")):
        for index, (axes, by) in enumerate(zip(row, "zκλ", strict=True)):
            curves(axes, lambda *point, i=index: derivatives(*point)[i], values, symbol)
            finish(axes, f"with respect to {by}", f"∂{name} / ∂{by},  {fixed}", legend=None)
        row[2].legend(loc="upper right" if name == "APA" else "lower right")
    return figure


def lambda_derivative_figure():
    figure = Figure(figsize=(9.6, 3.5))
    exact, paper, both = figure.subplots(1, 3, sharey=True)
    lambdas = (0.5, 1.0, 2.0)
    curves(exact, lambda *point: aglu_derivatives(*point)[2], lambdas, "λ")
    finish(exact, "exact", "∂AGLU / ∂λ,  κ = 1", legend="upper right")
    curves(paper, aglu_lambda_derivative_paper, lambdas, "λ")
    finish(paper, "Eq. 8 of the paper", "", legend="upper right")
    point = (1.0, 1.0, 0.5)
    sides = (
        (lambda *p: aglu_derivatives(*p)[2], BLUE, "-", "exact", (1.6, 0.22), "bottom"),
        (aglu_lambda_derivative_paper, VERMILLION, "--", "Eq. 8", (1.7, -0.47), "center"),
    )
    for function, colour, line, label, place, vertical in sides:
        both.plot(Z, function(Z, 1.0, 0.5), color=colour, linestyle=line, label=label)
        value = function(*point)
        both.plot(1.0, value, "o", color=colour, markersize=6, markeredgecolor="white", zorder=5)
        both.annotate(
            f"{value:+.5f}".replace("-", "−"), (1.0, value), place, color=colour, fontweight="bold", va=vertical
        )
    both.axvline(1.0, color=GREY, linewidth=0.8, linestyle=":")
    finish(both, "both at λ = 0.5; points at z = 1", "", legend="upper right")
    return figure


def losses_figure():
    figure = Figure(figsize=(9.6, 3.3))
    values, positive, negative = figure.subplots(1, 3)
    panels = (
        (values, gumbel, sigmoid),
        (positive, gumbel_positive_gradient, lambda z: sigmoid(z) - 1),
        (negative, gumbel_negative_gradient, sigmoid),
    )
    for axes, of_gumbel, of_sigmoid in panels:
        axes.plot(Z, of_gumbel(Z), color=BLUE, label="Gumbel")
        axes.plot(Z, of_sigmoid(Z), color=VERMILLION, linestyle="--", label="sigmoid")
    finish(values, "activation", "probability", "logit z", "upper left", (-0.03, 1.05))
    finish(positive, "gradient, positives", "∂loss / ∂z,  target 1", "logit z", "lower right", (-20.5, 0.9))
    positive.set_xlim(-3, 6)
    finish(negative, "gradient, negatives", "∂loss / ∂z,  target 0", "logit z", "upper left", (-0.03, 1.05))
    return figure


def save(figure, path):
    """A PNG with a palette of 256 colours: a third of the size, and nothing to see of it in line drawings."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


FIGURES = {
    "apa_family": readme_figure,
    "activation_families": families_figure,
    "apa_derivatives": lambda: derivatives_figure("APA", apa_derivatives, KAPPAS),
    "aglu_derivatives": lambda: derivatives_figure("AGLU", aglu_derivatives, AGLU_KAPPAS),
    "aglu_lambda_derivative": lambda_derivative_figure,
    "gumbel_sigmoid": losses_figure,
}


# ---------------------------------------------------------------------------------------------------------------
# Tables. Numbers are rounded so that every backend prints the same.


def special_cases():
    """Rows of Table 1: name, our call, kappa, lambda, largest difference from the named one, and the range."""
    # The points close to 0 are for the ReLU limit, whose largest difference is at |z| = 1.28 / kappa.
    near_zero = np.geomspace(1e-6, 6, 500)
    z = np.concatenate([-near_zero[::-1], np.linspace(-6, 6, 1201), near_zero])
    open_unit = "(0, 1)"
    rows = (
        ("sigmoid", "apa", 1.0, 1.0, "1", "1", sigmoid, open_unit),
        ("Gumbel", "apa", 1.0, 1e-4, "1", "→ 0 (1e-4)", gumbel, open_unit),
        ("SiLU", "aglu", 1.0, 1.0, "1", "1", lambda z: z * sigmoid(z), None),
        ("GELU, approximated", "aglu", 1.702, 1.0, "1.702", "1", gelu, None),
        ("ReLU", "aglu", 100.0, 1.0, "→ ∞ (100)", "1", lambda z: np.maximum(z, 0), "[0, ∞) in the limit"),
        ("ReLU", "aglu", 1e4, 1.0, "→ ∞ (10,000)", "1", lambda z: np.maximum(z, 0), "[0, ∞) in the limit"),
        ("identity", "aglu", 1.0, 1e3, "1", "→ ∞ (1,000)", lambda z: z, "(-∞, ∞) in the limit"),
        ("identity", "aglu", 1.0, 1e6, "1", "→ ∞ (1,000,000)", lambda z: z, "(-∞, ∞) in the limit"),
    )
    for name, function, kappa, lam, kappa_text, lam_text, named, span in rows:
        values = keras.ops.convert_to_numpy(getattr(ops, function)(z.astype("float32"), kappa, lam))
        largest = np.abs(values.astype("float64") - named(z)).max()
        # Rounding of float32 differs between backends; what is not more than that is only bounded.
        difference = f"{largest:.1e}" if largest > 1e-5 else "below 1e-6" if largest < 1e-6 else "below 1e-5"
        yield name, function, kappa_text, lam_text, difference, span or f"[{values.min():.3f}, ∞)"


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def losses_table():
    rows = []
    for z in (-6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0):
        numbers = (
            gumbel_positive_gradient(z),
            sigmoid(z) - 1,
            gumbel_negative_gradient(z),
            sigmoid(z),
        )
        rows.append([f"{z:g}", *(f"{value:.4g}" for value in numbers)])
    header = ["logit z", "Gumbel, target 1", "sigmoid, target 1", "Gumbel, target 0", "sigmoid, target 0"]
    return table(header, rows)


def lambda_table():
    rows = []
    for lam in (0.1, 0.5, 1.0, 2.0, 10.0):
        for z in (-1.0, 1.0):
            exact = aglu_derivatives(z, 1.0, lam)[2]
            paper = aglu_lambda_derivative_paper(z, 1.0, lam)
            rows.append([f"{lam:g}", f"{z:g}", f"{exact:+.5f}", f"{paper:+.5f}"])
    return table(["lambda", "z", "exact", "Eq. 8"], rows)


PAGE = """\
<!-- Written by `python docs/make_activations.py`: change the script, not this page. -->

# The activations: APA, AGLU, Gumbel

This page explains the activations with formulas and curves. The functions are in
[`keras_apa/ops.py`](../keras_apa/ops.py). The layers that learn kappa and lambda are in
[`keras_apa/layers/activations.py`](../keras_apa/layers/activations.py). `python docs/make_activations.py` writes the
page and its figures; the text is the same on TensorFlow, JAX and PyTorch.

![APA for several lambda, and AGLU for several pairs of kappa and lambda](images/apa_family.png)

## 1. The two families

```
APA(z)  =     (lambda * exp(-kappa * z) + 1) ** (-1 / lambda)      Eq. 5 of the APA paper
AGLU(z) = z * (lambda * exp(-kappa * z) + 1) ** (-1 / lambda)      Eq. 6
```

*APA* (Adaptive Parametric Activation) is a gate between 0 and 1, for channel and spatial attention. *AGLU* (Adaptive
Generalised Linear Unit) is APA times its input. It replaces ReLU. Both learn two numbers:

* `kappa` is the slope. With a negative `kappa` the gate is mirrored: it falls when its input rises. The gates of
  Squeeze-and-Excitation start with `kappa` between -1 and 0. In AGLU a large `kappa` sharpens the unit towards ReLU.
* `lambda` is the asymmetry. At 1 the gate is the symmetric sigmoid. Towards 0 it becomes the Gumbel function, which
  falls to 0 doubly exponentially for negative inputs. Above 1 the gate opens at lower inputs and falls slowly to 0. In
  AGLU a large `lambda` lets negative inputs pass, so AGLU approaches the identity.

![APA and AGLU, for several lambda at kappa = 1 and several kappa at lambda = 1](images/activation_families.png)

```python
import numpy as np
from keras_apa.ops import aglu, apa

z = np.linspace(-6.0, 6.0, 5, dtype="float32")
gate = apa(z, kappa=1.0, lam=0.5)
unit = aglu(z, kappa=1.0, lam=0.5)
```

## 2. The derivatives

With `w = lambda * exp(-kappa * z)` and `eta = APA(z)`:

| derivative with respect to | of APA | of AGLU |
| --- | --- | --- |
| z | `eta * kappa / lambda * w/(1+w)` | `eta + z * eta * kappa / lambda * w/(1+w)` |
| kappa | `eta * z / lambda * w/(1+w)` | `z^2 * eta / lambda * w/(1+w)` |
| lambda | `eta / lambda^2 * [log(1+w) - w/(1+w)]` | `z * eta / lambda^2 * [log(1+w) - w/(1+w)]` |

The figures show these derivatives. The top row has several values of lambda at kappa = 1. The bottom row has several
values of kappa at lambda = 1.

![The derivatives of APA with respect to z, kappa and lambda](images/apa_derivatives.png)

![The derivatives of AGLU with respect to z, kappa and lambda](images/aglu_derivatives.png)

### The lambda derivative in the paper has the wrong sign

Eq. 8 of the paper lacks the term `log(1 + w)`. So does the backward pass in the authors' classification code, which
they wrote by hand:

```
exact :  dAGLU/dlambda = z * eta / lambda^2 * [ log(1+w) - w/(1+w) ]
Eq. 8 :                  z * eta / lambda^2 * [          - w/(1+w) ]
```

For w > 0, `log(1+w)` is larger than `w/(1+w)`. So the exact derivative has the sign of z everywhere, and Eq. 8 has
the opposite sign (at z = 0 both are 0). At z = {z:g}, kappa = {kappa:g}, lambda = {lam:g} the exact derivative is **{exact:+.5f}** (a
central difference of the function with step 1e-4 gives {difference:+.5f}), Eq. 8 gives **{paper:+.5f}**.

![The exact lambda derivative of AGLU beside Eq. 8, which has the opposite sign](images/aglu_lambda_derivative.png)

The table compares the two derivatives at kappa = 1:

{lambda_table}

For a small lambda, Eq. 8 is also too large: it grows like 1/lambda. The exact derivative stays finite. It is
`z * eta * exp(-2 * kappa * z) / 2` at lambda → 0.

The argument `lambda_gradient` of `keras_apa.ops.aglu` and of the layer `AGLU` selects one of these two derivatives. It
changes neither the forward pass nor the derivatives with respect to z and kappa.

* `lambda_gradient="exact"`, the default, is the derivative of the function.
* `lambda_gradient="paper"` repeats the published training of the AGLU classification networks. It is Eq. 8 for a
  positive lambda, and 0 for lambda <= 0. It makes no difference when you only predict with published weights.

Prefer `"exact"` for your own training. With `"paper"`, one step can move a small lambda so far that AGLU becomes the
identity, and a lambda that steps below 0 stays there. The table shows lambda after one step of SGD. The step fits AGLU
to |z| on 2,048 normally distributed values of z, with kappa = 1, learning rate 0.1 and the mean squared error:

{thrown_table}

The authors trained their attention gates (APA) and detection networks with automatic differentiation. This gives the
exact derivative, so `APA` does not have the argument `lambda_gradient`.

## 3. Special cases (Table 1 of the APA paper)

The last column is the largest difference between `keras_apa.ops` in float32 and the named function in float64, for z in
[-6, 6]. A value in brackets stands for the limit. The column *range* gives the values that our function returns.

{special_cases}

For GELU, our function equals the usual approximation `z * sigmoid(1.702 * z)`, so the difference is that of the
approximation. Its minimum is {gelu_approximated:.3f}; GELU's is {gelu_minimum:.3f}. For ReLU the difference falls as 1/kappa, for the identity as
log(lambda)/lambda.

## 4. Gumbel and sigmoid as probabilities (Fig. 3 of the GOL paper)

The Gumbel activation is `exp(-exp(-z))`, the limit of APA for lambda → 0. It can replace the sigmoid in a binary cross
entropy. The gradients of this loss with respect to the logit are:

| target | Gumbel | sigmoid |
| --- | --- | --- |
| 1 (positive), loss `-log(p)` | `-exp(-z)` | `-(1 - sigmoid(z))` |
| 0 (negative), loss `-log(1 - p)` | `v / (exp(v) - 1)`, `v = exp(-z)` | `sigmoid(z)` |

![The Gumbel and the sigmoid activation, and the gradients of their losses](images/gumbel_sigmoid.png)

{losses_table}

* For a positive with a low logit, the Gumbel gradient grows exponentially. The sigmoid's is never
  larger than 1. Rare classes have few positives, and most of these still have a low logit.
* For a negative with a high logit, both gradients approach 1. Below a logit of 0 the Gumbel gradient vanishes doubly
  exponentially. So the many easy negatives of a rare class hardly lower its logit.

`-exp(-z)` has no bound. `keras_apa.losses.GumbelCrossentropy` therefore clamps the logits to `logit_range=(-10, 10)`;
outside this range there is no gradient. `GumbelOptimizedLoss` builds on the same two losses.

## 5. Stability

**Evaluation.** `APA` is computed as `exp(-softplus(log(lambda) - kappa * z) / lambda)`, never as a power, because
`exp(-kappa * z)` alone overflows float32 at `kappa * z = -89`. If APA itself is too small for float32, use
`log_apa`: at z = -200, kappa = 1, lambda = 0.5 it is {log_apa:.2f}. If `gumbel(z)` rounds to 1, use `log1m_gumbel(z)`, the
logarithm of `1 - gumbel(z)`: at z = 50 it is {log1m:.1f}.

**Precision.** The gradients are written as formulas. Automatic differentiation would overflow, or lose digits, in its
intermediate results. Inputs in float16 and bfloat16 are computed in float32 and cast back. Inputs in float64 are
computed in float64 (on JAX after `jax.config.update("jax_enable_x64", True)`). With `dtype="float64"`, a loss also
computes every reduction in float64.
There is one exception: on PyTorch and JAX, Keras's own layers compute float64 with the accuracy of float32. The
attention gates and `UnbiasedBatchNormalization` contain such layers.

**Loss of digits.** For a small w, the two terms of `log(1+w) - w/(1+w)` differ only by about w^2/2: at w = 1e-4
they agree to more than four of the seven digits that float32 has. Below w = {series_below:g} the series
`w^2 * (1/2 - 2/3 w + 3/4 w^2 - ...)` takes their place.

**Clamps.** APA divides by `lambda` and takes its logarithm. So `lambda` is clamped, as in the authors' code:

{clamp_table}

**The gradient below the clamp.** A clamp usually has no gradient below itself. If one optimiser step moved lambda below
it, lambda would stay there for ever. Here, lambda gets the gradient at the clamp instead, but only its negative part:

```
gradient = min(gradient at the clamp, summed to the shape of lambda, 0)
```

A step of gradient descent can then raise lambda again, but never push it further down. With data parallelism each
replica applies this rule before the gradients are summed. The rule holds for APA, and for AGLU with
`lambda_gradient="exact"`, because their derivatives are bounded at the clamp. Eq. 8 is not bounded: it has a
factor 1/lambda, which is 1e8 at the clamp. With `lambda_gradient="paper"` lambda has no gradient at and below 0, as in
the authors' code.

## Sources

* *Adaptive Parametric Activation*, ECCV 2024, [arXiv 2407.08567](https://arxiv.org/abs/2407.08567):
  Eqs. 5 to 9, Table 1.
* *Long-tailed Instance Segmentation using Gumbel Optimized Loss*, ECCV 2022,
  [arXiv 2207.10936](https://arxiv.org/abs/2207.10936): Eqs. 4 and 6, Fig. 3.
"""


def lambda_after_one_step(start, lambda_gradient):
    """Lambda after a step of SGD at rate 0.1, by the rules of `keras_apa.ops.aglu`, where AGLU(z) is to be |z|."""
    z = np.random.default_rng(0).normal(size=2048)
    lam = max(start, 0.0) + 1e-8
    derivative = aglu_lambda_derivative_paper if lambda_gradient == "paper" else aglu_lambda_derivative
    gradient = np.mean(2 * (aglu(z, 1.0, lam) - np.abs(z)) * derivative(z, 1.0, lam))
    if start <= 0 and lambda_gradient == "paper":
        gradient = 0.0
    elif start < 0:
        gradient = min(gradient, 0.0)
    return start - 0.1 * gradient


def aglu_lambda_derivative(z, kappa, lam):
    """The derivative of `aglu` with respect to lambda, by its series where the closed form cancels."""
    w = lam * np.exp(-kappa * z)
    series = aglu(z, kappa, lam) * np.exp(-2 * kappa * z) * (1 / 2 - 2 / 3 * w + 3 / 4 * w**2)
    return np.where(w < 1e-4, series, aglu_derivatives(z, kappa, lam)[2])


def thrown_table():
    rows = [
        [f"{start:g}", *(f"{lambda_after_one_step(start, mode):.4g}" for mode in ("exact", "paper"))]
        for start in (0.5, 0.1, 0.01, 1e-3, 1e-5, -1e-3)
    ]
    return table(["lambda", 'after one step, `"exact"`', 'after one step, `"paper"`'], rows)


def clamp_table():
    rows = []
    for stored in (-1.0, 0.0, 1e-5, 0.5):
        gate = float(keras.ops.convert_to_numpy(ops.apa(-2.0, 1.0, stored)))
        unit = float(keras.ops.convert_to_numpy(ops.aglu(-2.0, 1.0, stored)))
        used = (f"{max(stored, 1e-4):g}", f"{max(stored, 0) + 1e-8:.8g}")
        rows.append([f"{stored:g}", used[0], f"{gate:.2e}", used[1], f"{unit:.2e}"])
    header = ["lambda given", "APA uses `max(lambda, 1e-4)`", "APA(-2)", "AGLU uses `relu(lambda) + 1e-8`", "AGLU(-2)"]
    return table(header, rows)


def page():
    """The Markdown text."""
    z, kappa, lam, step = 1.0, 1.0, 0.5, 1e-4
    fine = np.linspace(-3, 0, 30001)
    return PAGE.format(
        z=z,
        kappa=kappa,
        lam=lam,
        exact=aglu_derivatives(z, kappa, lam)[2],
        paper=aglu_lambda_derivative_paper(z, kappa, lam),
        difference=(aglu(z, kappa, lam + step) - aglu(z, kappa, lam - step)) / (2 * step),
        lambda_table=lambda_table(),
        special_cases=table(
            ["function", "`keras_apa.ops`", "kappa", "lambda", "range", "largest difference"],
            [[name, f"`{call}`", k, la, span, diff] for name, call, k, la, diff, span in special_cases()],
        ),
        gelu_approximated=aglu(fine, 1.702, 1.0).min(),
        gelu_minimum=gelu(fine).min(),
        losses_table=losses_table(),
        log_apa=float(keras.ops.convert_to_numpy(ops.log_apa(-200.0, 1.0, 0.5))),
        log1m=float(keras.ops.convert_to_numpy(ops.log1m_gumbel(50.0))),
        clamp_table=clamp_table(),
        thrown_table=thrown_table(),
        series_below=round(math.exp(ops._LOG_SERIES_BELOW), 6),
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Write activations.md and images/*.png.")
    parser.add_argument("--output", type=Path, default=DOCS, help="folder to write into (default: docs)")
    output = parser.parse_args(arguments).output
    images = output / "images"
    images.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        for name, draw in FIGURES.items():
            save(draw(), images / f"{name}.png")
    path = output / "activations.md"
    path.write_text(page(), encoding="utf-8", newline="\n")
    print(path)


if __name__ == "__main__":
    main()

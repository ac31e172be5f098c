"""The figures of a report: each function draws one, from outcomes, and returns a matplotlib figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter, ScalarFormatter

from training.classification.outcome import Outcome
from training.reporting import BAND, COLOURS, INK, QUIET, plain


def training_curves(outcomes: Sequence[Outcome]) -> Figure:
    """Training loss, few-shot and overall test accuracy by epoch."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, key, title in zip(
        axes,
        ("loss", "val_few", "val_all"),
        ("Training loss", "Few-shot accuracy, test", "Accuracy over all classes, test"),
        strict=True,
    ):
        for colour, outcome in zip(COLOURS, outcomes, strict=False):
            values = outcome.history[key]
            axis.plot(
                range(1, len(values) + 1),
                values,
                "o-",
                color=colour,
                markersize=4,
                label=plain(outcome.recipe.title),
            )
        axis.set(title=title, xlabel="epoch")
        axis.locator_params(axis="x", integer=True)
        if key != "loss":
            axis.set_ylim(0, 1)
            axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    # Losses with different formulas have different scales; the shape is what can be compared.
    if len({outcome.recipe.loss.name for outcome in outcomes}) > 1:
        axes[0].annotate(
            "different losses: compare shapes, not heights",
            (0.98, 0.97),
            xycoords="axes fraction",
            ha="right",
            va="top",
            color=QUIET,
            fontsize=8,
        )
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(outcomes))
    return figure


def accuracy_by_class(outcomes: Sequence[Outcome]) -> Figure:
    """Accuracy of each class, most frequent first, above the number of its training images."""
    first = outcomes[0]
    order = first.classes_by_count()
    counts = np.asarray(first.class_counts)[order]
    places = np.arange(len(order))
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for colour, outcome in zip(COLOURS, outcomes, strict=False):
        accuracies = outcome.class_accuracies()[order]
        top.plot(places, accuracies, "o", color=colour, markersize=3.5, alpha=0.45, markeredgewidth=0)
        top.plot(places, smooth(accuracies, len(order) // 10), color=colour, label=plain(outcome.recipe.title))
    top.set_ylim(-0.03, 1.03)
    top.yaxis.set_major_formatter(PercentFormatter(1.0))
    top.legend(loc="lower left", title="line: mean over neighbouring classes", title_fontsize=8, alignment="left")
    bottom.bar(places, counts, width=1.0, color=QUIET, linewidth=0)
    bottom.set(
        title="Training images",
        yscale="log",
        xlabel="classes, most frequent first",
        xlim=(-0.5, len(order) - 0.5),
    )
    bottom.set_yticks([count for count in (1, 5, 20, 100, 500, 2000, 10000) if count <= counts.max()])
    bottom.yaxis.set_major_formatter(ScalarFormatter())
    bottom.minorticks_off()
    for axis in (top, bottom):
        axis.grid(axis="x", visible=False)
    for name, start, end in shot_groups(first):
        shaded = name == "medium-shot"
        for axis in (top, bottom):
            if shaded:
                axis.axvspan(start - 0.5, end - 0.5, color=BAND, zorder=0, linewidth=0)
        top.text((start + end - 1) / 2, 1.035, name, transform=top.get_xaxis_transform(), ha="center", color=QUIET)
    top.set_title("Test accuracy by class", pad=20)
    return figure


def confusion_matrices(outcomes: Sequence[Outcome]) -> Figure:
    """Row-normalised confusion matrices, classes by training images, with the shot groups marked."""
    figure = Figure(figsize=(5.3 * len(outcomes) + 0.9, 5.6), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(outcomes), sharey=True))
    for axis, outcome in zip(axes, outcomes, strict=True):
        order = outcome.classes_by_count()
        confusion = outcome.confusion_matrix()[np.ix_(order, order)].astype(float)
        confusion /= np.maximum(confusion.sum(axis=1, keepdims=True), 1)
        # The square root lets the many small shares off the diagonal be seen; nothing stays white.
        shown = np.ma.masked_equal(np.sqrt(confusion), 0.0)
        image = axis.imshow(shown, cmap="magma_r", vmin=0, vmax=1, interpolation="nearest")
        groups = shot_groups(outcome)
        for _, start, _ in groups[1:]:
            axis.axhline(start - 0.5, color=QUIET, linewidth=0.8)
            axis.axvline(start - 0.5, color=QUIET, linewidth=0.8)
        middles = [(start + end - 1) / 2 for _, start, end in groups]
        names = [name for name, _, _ in groups]
        axis.set_xticks(middles, names)
        axis.set_yticks(middles, names, rotation=90, va="center")
        axis.tick_params(length=0)
        axis.grid(visible=False)
        axis.spines[["top", "right"]].set_visible(True)
        axis.set(title=plain(outcome.recipe.title), xlabel="predicted class, most frequent first")
    axes[0].set_ylabel("true class, most frequent first")
    bar = figure.colorbar(image, ax=axes, shrink=0.75, pad=0.02)
    shares = (0.0, 0.05, 0.25, 0.5, 1.0)
    bar.set_ticks(np.sqrt(shares).tolist(), labels=[f"{share:.0%}" for share in shares])
    bar.set_label("share of the true class's test images (square-root scale)")
    bar.outline.set_visible(False)
    return figure


def learned_parameters(outcome: Outcome) -> Figure:
    """Kappa and lambda of every layer: start value (hollow) and what was learned (filled)."""
    names = list(outcome.parameters)
    figure = Figure(figsize=(11, 1.6 + 0.28 * len(names)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    rows = np.arange(len(names))
    for axis, key, meaning in zip(axes, ("kappa", "lambda"), ("sharpness", "asymmetry; 1 is the sigmoid"), strict=True):
        for row, name in zip(rows, names, strict=True):
            values = outcome.parameters[name][key]
            colour = kind_colour(outcome.parameters[name]["kind"])
            axis.plot([values[0], values[-1]], [row, row], color=colour, linewidth=1.5, alpha=0.5)
            axis.plot(values[0], row, "o", markersize=6, markerfacecolor="white", markeredgecolor=colour)
            axis.plot(values[-1], row, "o", markersize=7, color=colour)
        axis.set_title(f"{key} ({meaning})")
        axis.axvline(0, color=QUIET, linewidth=0.8)
    axes[0].set_yticks(rows, [plain(short_name(name)) for name in names])
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    kinds = list(dict.fromkeys(record["kind"] for record in outcome.parameters.values()))
    handles = [Line2D([], [], color=kind_colour(kind), marker="o", linewidth=0, label=kind) for kind in kinds]
    handles.append(Line2D([], [], color=QUIET, marker="o", linewidth=0, markerfacecolor="white", label="start value"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def learned_curves(outcome: Outcome) -> Figure:
    """The curve that each layer learned: APA (gates) and AGLU (activations), beside the fixed functions."""
    by_kind: dict[str, list[str]] = {}
    for name, record in sorted(outcome.parameters.items(), key=lambda item: item[1]["kind"] != "APA"):
        by_kind.setdefault(record["kind"], []).append(name)
    figure = Figure(figsize=(5.6 * max(len(by_kind), 1), 5.2), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, max(len(by_kind), 1)))
    x = np.linspace(-6, 6, 481)
    sigmoid = 1 / (1 + np.exp(-x))
    for axis, (kind, names) in zip(axes, by_kind.items(), strict=False):
        fixed = {"sigmoid": sigmoid} if kind == "APA" else {"ReLU": np.maximum(x, 0), "SiLU": x * sigmoid}
        for style, (label, values) in zip(("--", ":"), fixed.items(), strict=False):
            axis.plot(x, values, style, color=INK, linewidth=1.4, label=label)
        for place, name in enumerate(names):
            record = outcome.parameters[name]
            curve = apa_curve(x, record["kappa"][-1], record["lambda"][-1])
            axis.plot(
                x,
                curve if kind == "APA" else x * curve,
                color=depth_colour(place, len(names)),
                label=plain(short_name(name)),
            )
        title = "APA: the gate each layer learned" if kind == "APA" else "AGLU: the activation each layer learned"
        axis.set(title=title, xlabel="input", xlim=(-6, 6))
        if kind == "APA":
            axis.set_ylim(-0.03, 1.03)
        else:
            axis.set(xlim=(-4, 4), ylim=(-1.2, 4))
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
    return figure


def apa_curve(x: np.ndarray, kappa: float, lam: float) -> np.ndarray:
    """APA in float64 numpy, for drawing: `(lam * exp(-kappa * x) + 1) ** (-1 / lam)`, `lam` clamped."""
    lam = max(lam, 1e-4)
    return np.exp(-np.logaddexp(0.0, np.log(lam) - kappa * x) / lam)


def shot_groups(outcome: Outcome) -> list[tuple[str, int, int]]:
    """Name, first and one past the last place of each group that has classes, in the order by count."""
    counts = np.sort(np.asarray(outcome.class_counts))[::-1]
    many = int(np.sum(counts > outcome.recipe.evaluation.many_threshold))
    few = int(np.sum(counts >= outcome.recipe.evaluation.few_threshold))
    groups = [("many-shot", 0, many), ("medium-shot", many, few), ("few-shot", few, len(counts))]
    return [group for group in groups if group[2] > group[1]]


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Mean over the neighbours within `width // 2` places that are there, NaN left out."""
    half = max(width, 1) // 2
    windows = [values[max(place - half, 0) : place + half + 1] for place in range(len(values))]
    return np.array([np.nanmean(window) if np.isfinite(window).any() else np.nan for window in windows])


def short_name(path: str) -> str:
    """`stage1_block1_gate/gate` as `stage1 block1 gate`: a layer's path without its own role or class at the end."""
    parts = [part for part in path.split("/") if part not in ("gate", "apa", "aglu")] or [path]
    return " ".join(parts).replace("_", " ")


def kind_colour(kind: str) -> str:
    """Colour of the lines of APA gates and of AGLUs in every figure."""
    return COLOURS[1] if kind == "APA" else COLOURS[0]


def depth_colour(place: int, number: int):
    """From light (first layers) to dark (last layers)."""
    return colormaps["viridis_r"](0.12 + 0.83 * place / max(number - 1, 1))

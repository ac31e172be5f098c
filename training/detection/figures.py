"""The figures of a report about detectors: each function draws one and returns a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from training.data.detection.masks import decode_mask
from training.reporting import COLOURS, QUIET, plain
from training.runtime.output import visible

# Detections with a lower score are not drawn.
DRAWN_SCORE = 0.5
_OPAQUE = 0.45
_LONGEST = 40  # characters of a name above a box


def loss_curves(outcomes: Sequence[Any]) -> Figure:
    """Every loss of the detector by epoch."""
    names = [name for name in outcomes[0].history if name.endswith("loss") and not name.startswith("val_")]
    names = ["loss", *sorted(name for name in names if name != "loss")]
    rows = -(-len(names) // 3)
    figure = Figure(figsize=(10, 2.9 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, 3, squeeze=False).ravel()
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes, names, strict=False):
        for colour, outcome in zip(COLOURS, outcomes, strict=False):
            values = outcome.history[name]
            axis.plot(
                range(1, len(values) + 1), values, "o-", color=colour, markersize=3, label=plain(outcome.recipe.title)
            )
        axis.set(title=name.replace("_", " "), xlabel="epoch")
        axis.set_ylim(bottom=0)
        axis.locator_params(axis="x", integer=True)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(outcomes))
    return figure


def precision_by_class(outcomes: Sequence[Any]) -> Figure:
    """AP50 of the boxes of each class against the number of training images that show it."""
    return _by_count(
        outcomes, lambda outcome: outcome.by_class50["box"], "Box AP50 by class", percent=True, limits=(-0.03, 1.03)
    )


def weight_norms(outcomes: Sequence[Any]) -> Figure:
    """The length of each class's weights in the last layer of the box head, over its mean, against image count."""
    return _by_count(
        outcomes,
        lambda outcome: np.asarray(outcome.weight_norms) / np.mean(outcome.weight_norms),
        "Classifier weight norm by class, mean 1",
    )


def _by_count(outcomes, values, title, percent=False, limits=None):
    counts = np.asarray(outcomes[0].image_counts)
    order = np.argsort(-counts, kind="stable")
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    axis = figure.subplots()
    for colour, outcome in zip(COLOURS, outcomes, strict=False):
        drawn = np.asarray(values(outcome), "float64")[order]
        axis.plot(
            counts[order], drawn, "o-", color=colour, markersize=5, linewidth=1.2, label=plain(outcome.recipe.title)
        )
    axis.set(title=title, xscale="log", xlabel="training images that show the class")
    axis.xaxis.set_major_formatter("{x:g}")
    if percent:
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    if limits:
        axis.set_ylim(*limits)
    axis.legend()
    return figure


def presence_maps(maps: Mapping[str, np.ndarray], divergences: Mapping[str, float]) -> Figure:
    """P(obj, u) of the annotations, the first, and of each detector, on one scale."""
    figure = Figure(figsize=(3.1 * len(maps) + 0.9, 3.9), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(maps)))
    highest = max(float(values.max()) for values in maps.values())
    for axis, (name, values) in zip(axes, maps.items(), strict=True):
        image = axis.imshow(values, cmap="magma", vmin=0, vmax=highest)
        below = f"\nKL {divergences[name]:.4f}" if name in divergences else ""
        axis.set_title(plain(name) + below, fontsize=10, pad=8)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label("P(obj, u)")
    bar.outline.set_visible(False)
    return figure


def scenes(
    images: Mapping[int, np.ndarray],
    rows: Mapping[str, Mapping[int, Sequence[Mapping[str, Any]]]],
    class_names: Mapping[int, str],
) -> Figure:
    """Images with boxes, masks, class names and scores; a row for each way to find the objects.

    Args:
        images: By id.
        rows: Title -> image id -> annotations or results.
        class_names: By category id.
    """
    figure = Figure(figsize=(3.0 * len(images) + 0.4, 3.1 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(images), squeeze=False)
    colours = dict(zip(class_names, np.resize(COLOURS, len(class_names)), strict=True))
    for line, (title, found) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(plain(title))
        for axis, (image_id, image) in zip(line, images.items(), strict=True):
            axis.imshow(image)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.grid(visible=False)
            axis.spines[:].set_visible(False)
            for each in found.get(image_id, ()):
                if each.get("score", 1.0) >= DRAWN_SCORE:
                    _draw(axis, each, colours[each["category_id"]], class_names[each["category_id"]], image.shape)
    return figure


def picture(image: np.ndarray, found: Sequence[Mapping[str, Any]], class_names: Sequence[str]) -> Figure:
    """One image, pixel by pixel, with boxes, masks, class names and scores.

    Args:
        image: uint8 `(height, width, 3)`.
        found: Results with `bbox`, `category_id`, and maybe `score` and `segmentation`.
        class_names: By `category_id`.
    """
    height, width = image.shape[:2]
    # Names and lines grow with the image; a little more than its size, of which the part of a pixel is cut off.
    dpi = max(100, max(height, width) // 8)
    figure = Figure(figsize=((width + 0.01) / dpi, (height + 0.01) / dpi), dpi=dpi)
    axis = figure.add_axes((0, 0, 1, 1))
    # Into the pixels: a layer of its own for each mask would be 32 bytes for every pixel of a photo.
    image = image.copy()
    colours = [COLOURS[each["category_id"] % len(COLOURS)] for each in found]
    for each, colour in zip(found, colours, strict=True):
        if each.get("segmentation"):
            mask = decode_mask(each["segmentation"], height, width).astype(bool)
            image[mask] = (1 - _OPAQUE) * image[mask] + _OPAQUE * 255 * np.array(_rgb(colour))
    figure.figimage(image, zorder=-1)
    axis.set_axis_off()
    for each, colour in zip(found, colours, strict=True):
        _frame(axis, each, colour, class_names[each["category_id"]], text_pixels=0.14 * dpi)
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    return figure


def _draw(axis, each, colour, name, shape):
    if each.get("segmentation"):
        mask = decode_mask(each["segmentation"], *shape[:2]).astype(bool)
        layer = np.zeros((*shape[:2], 4))
        layer[mask] = [*_rgb(colour), _OPAQUE]
        axis.imshow(layer)
    _frame(axis, each, colour, name)


def _rgb(colour):
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def _frame(axis, each, colour, name, text_pixels=0.0):
    """The box with its class above it, or within it at the upper border of a picture."""
    x, y, width, height = each["bbox"]
    axis.add_patch(Rectangle((x - 0.5, y - 0.5), width, height, fill=False, edgecolor=colour, linewidth=1.2))
    below = y < text_pixels
    name = visible(name, lines=False)
    if len(name) > _LONGEST:  # a longer one would leave no room for the images themselves
        name = f"{name[: _LONGEST - 1]}…"
    text = name if "score" not in each else f"{name} {each['score']:.2f}"
    axis.text(
        x,
        y + 1 if below else y - 1,
        text,
        fontsize=7,
        color="white",
        va="top" if below else "bottom",
        parse_math=False,
        bbox={"facecolor": colour, "edgecolor": QUIET, "linewidth": 0, "pad": 1},
    )

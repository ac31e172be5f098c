"""What is said about targets that cannot be trained on is true of them."""

import re

import numpy as np
import pytest

from zoo.detection.targets import check_targets

SIZE = (48, 64)
pytestmark = pytest.mark.any_backend


def refusal(*boxes, label=0, **more):
    """What `check_targets` says of the boxes of one image."""
    targets = {"boxes": np.array([boxes], "float32"), "labels": np.full((1, len(boxes)), label), **more}
    with pytest.raises(ValueError) as caught:
        check_targets(targets, 3, SIZE)
    return str(caught.value)


@pytest.mark.parametrize(
    "box, says",
    [
        (
            [5, 5, 5, 9],
            "given: [5.0, 5.0, 5.0, 9.0] in image 0. Its width is 0: leave it out, or give it the label -1.",
        ),
        ([5, 9, 7, 9], "given: [5.0, 9.0, 7.0, 9.0] in image 0. Its height is 0: leave"),
        ([5, 5, 5, 5], "Its width and height are 0: leave"),
        ([0, 0, 0, 0], "Its width and height are 0: leave"),
    ],
)
def test_a_box_without_width_or_height_is_named_as_such(box, says):
    message = refusal([1, 1, 9, 9], box)
    assert says in message and "looks like" not in message


@pytest.mark.parametrize("box", [[30, 30, 8, 9], [30, 2, 20, 40], [2, 30, 40, 18]])
def test_only_a_reversed_box_that_fits_the_image_as_xywh_looks_like_it(box):
    assert "It looks like (x, y, width, height): add x and y to the last two." in refusal(box)
    # The one that tells more is shown, whichever comes first.
    assert re.search(r"given: \[30.* It looks like", refusal([5, 5, 5, 9], [30, 30, 8, 9]))
    # As xywh it has no width, which alone would look like exchanged corners.
    assert re.search(r"given: \[30.* It looks like", refusal([40, 40, 0, 5], [30, 30, 8, 9]))


def test_exchanged_corners_that_are_no_xywh_are_asked_about():
    """60 + 20 is beyond the image, which is 64 wide."""
    assert refusal([60, 5, 20, 9]).endswith("given: [60.0, 5.0, 20.0, 9.0] in image 0. Are x1 and x2 exchanged?")
    assert refusal([5, 9, 40, 0]).endswith("Are y1 and y2 exchanged?")


def test_shares_look_like_shares_in_any_order_and_boxes_of_nothing_do_not():
    assert "2 boxes that all look like shares of the image, 0 to 1" in refusal([0, 0, 0.5, 0.5], [0.2, 0.2, 1, 1])
    # Centre, width and height, as in YOLO's files.
    message = refusal([0.5, 0.6, 0.2, 0.3])
    assert "look like shares" in message and message.endswith("Give x1, y1, x2, y2, with x2 > x1 and y2 > y1.")
    assert "shares" not in refusal([0, 0, 0, 0])


def test_an_ignored_region_needs_no_label():
    boxes, labels = np.array([[[1, 1, 9, 9], [2, 2, 20, 20]]], "float32"), np.array([[1, 99]])
    check_targets({"boxes": boxes, "labels": labels, "ignored": np.array([[False, True]])}, 3, SIZE)
    with pytest.raises(ValueError, match=r"labels must be 0\.\.2, or -1 for padding; given: 99 in image 0"):
        check_targets({"boxes": boxes, "labels": labels, "ignored": np.array([[True, False]])}, 3, SIZE)

"""Losses of the proposal, box and mask heads, values and gradients."""

import numpy as np
import pytest
from gradients import value_and_gradient
from keras import ops

from zoo.detection import losses
from zoo.detection.masks import crop_masks, mask_targets
from zoo.detection.matching import balanced_sample, index_order
from zoo.detection.proposals import sampled_proposal_losses


@pytest.mark.parametrize(("name", "beta"), [("1_9", 1 / 9), ("1", 1.0)])
def test_smooth_l1(blocks, name, beta):
    target = ops.convert_to_tensor(blocks["losses/sl1_target"])
    value, (gradient,) = value_and_gradient(lambda x: losses.smooth_l1(target, x, beta), blocks["losses/sl1_pred"])
    np.testing.assert_allclose(value.sum(), blocks[f"losses/sl1_sum_beta_{name}"], rtol=1e-6)
    np.testing.assert_allclose(gradient, blocks[f"losses/sl1_grad_beta_{name}"], rtol=1e-5, atol=1e-6)


def test_l1_is_smooth_l1_without_the_parabola():
    value, (gradient,) = value_and_gradient(lambda x: losses.smooth_l1(0.0 * x, x, 0), np.array([-2.0, 3.0], "float32"))
    assert value.tolist() == [2.0, 3.0] and gradient.tolist() == [-1.0, 1.0]


def test_proposal_losses(blocks):
    labels = blocks["losses/rpn_labels"]
    index, is_positive, valid = balanced_sample(
        ops.convert_to_tensor(labels == 1), ops.convert_to_tensor(labels == 0), 32, 0.5, index_order
    )
    flat = ops.convert_to_numpy(index) + np.array([[0], [60]])
    positive, chosen = ops.convert_to_numpy(is_positive), ops.convert_to_numpy(valid)
    np.testing.assert_array_equal(np.sort(flat[positive]), np.sort(blocks["losses/rpn_sampled_pos"]))
    np.testing.assert_array_equal(np.sort(flat[chosen & ~positive]), np.sort(blocks["losses/rpn_sampled_neg"]))
    targets = ops.take_along_axis(ops.convert_to_tensor(blocks["losses/rpn_targets"]), ops.expand_dims(index, -1), 1)

    def both(logits, deltas):
        logits = ops.take_along_axis(ops.reshape(logits, (2, 60)), index, axis=1)
        deltas = ops.take_along_axis(ops.reshape(deltas, (2, 60, 4)), ops.expand_dims(index, -1), axis=1)
        return ops.stack(sampled_proposal_losses(logits, deltas, targets, is_positive, valid, 1 / 9))

    value, gradients = value_and_gradient(both, blocks["losses/rpn_objectness"], blocks["losses/rpn_deltas"])
    names = ("losses/rpn_loss_objectness", "losses/rpn_loss_rpn_box_reg")
    np.testing.assert_allclose(value, [blocks[name] for name in names], rtol=2e-6)
    np.testing.assert_allclose(gradients[0], blocks["losses/rpn_grad_objectness"], rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(gradients[1], blocks["losses/rpn_grad_deltas"], rtol=1e-5, atol=1e-8)


def test_box_head_losses(blocks):
    """The reference has the background first, in the logits and in the deltas; here it is last, and has no deltas."""
    from zoo.detection.roi_losses import softmax_crossentropy

    given = blocks["losses/fast_labels"]
    labels, positive = np.where(given == 0, 6, given - 1).astype("int32"), ops.convert_to_tensor(given > 0)
    valid = ops.ones((24,), "bool")
    targets, labels = ops.convert_to_tensor(blocks["losses/fast_targets"]), ops.convert_to_tensor(labels)

    def both(logits, deltas):
        classes = ops.mean(softmax_crossentropy(labels, logits))
        return ops.stack([classes, losses.box_loss(deltas, targets, labels, positive, valid, 1 / 9)])

    logits = np.roll(blocks["losses/fast_class_logits"], -1, axis=1)
    deltas = blocks["losses/fast_box_regression"].reshape(24, 7, 4)[:, 1:]
    value, gradients = value_and_gradient(both, logits, deltas)
    names = ("losses/fast_loss_classifier", "losses/fast_loss_box_reg")
    np.testing.assert_allclose(value, [blocks[name] for name in names], rtol=2e-6)
    expected = np.roll(blocks["losses/fast_grad_class_logits"], -1, axis=1)
    np.testing.assert_allclose(gradients[0], expected, rtol=1e-5, atol=1e-7)
    expected = blocks["losses/fast_grad_box_regression"].reshape(24, 7, 4)
    assert not expected[:, 0].any()
    np.testing.assert_allclose(gradients[1], expected[:, 1:], rtol=1e-5, atol=1e-8)


def regions(blocks):
    """Masks `(2, 3, 48, 64)`, and for each of the eight regions its box, image, object and object's label."""
    masks = np.zeros((2, 3, 48, 64), "uint8")
    masks[0], masks[1, :1] = blocks["losses/mask_gt_0"], blocks["losses/mask_gt_1"]
    boxes = np.concatenate([blocks["losses/mask_proposals_0"], blocks["losses/mask_proposals_1"]])
    objects = np.concatenate([blocks["losses/mask_matched_idx_0"], blocks["losses/mask_matched_idx_1"]])
    return masks, boxes, np.repeat([0, 1], [5, 3]).astype("int32"), objects.astype("int32")


def test_mask_targets_and_loss(run, blocks):
    masks, boxes, image, objects = regions(blocks)
    result = run(lambda m, b, i, o: mask_targets(m, b, i, o, b, 28), masks, boxes, image, objects)
    expected = np.concatenate([blocks["losses/mask_targets_0"], blocks["losses/mask_targets_1"]])
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    logits = np.take_along_axis(
        blocks["losses/mask_logits"], blocks["losses/mask_labels_of_rows"].reshape(-1, 1, 1, 1), axis=1
    )[:, 0]
    yes = ops.ones((8,), "bool")
    value, (gradient,) = value_and_gradient(lambda x: losses.mask_loss(x, ops.convert_to_tensor(expected), yes), logits)
    np.testing.assert_allclose(value, blocks["losses/mask_loss"], rtol=2e-6)
    np.testing.assert_allclose(gradient, blocks["losses/mask_grad_at_label"], rtol=1e-5, atol=1e-8)
    nothing = losses.mask_loss(ops.convert_to_tensor(logits), ops.convert_to_tensor(expected), ops.zeros((8,), "bool"))
    assert float(nothing) == 0.0


def test_masks_of_boxes_give_nearly_the_targets_of_masks_of_images(blocks):
    masks, boxes, image, objects = regions(blocks)
    cropped, around = np.zeros((2, 3, 112, 112), "uint8"), np.zeros((2, 3, 4), "float32")
    for i in range(2):
        for j in range(3):
            y, x = np.nonzero(masks[i, j])
            if len(y):
                around[i, j] = x.min(), y.min(), x.max() + 1, y.max() + 1
        cropped[i] = crop_masks(masks[i], around[i])
    tensors = [ops.convert_to_tensor(x) for x in (boxes, image, objects, around[image, objects])]
    whole = ops.convert_to_numpy(mask_targets(ops.convert_to_tensor(masks), *tensors, 28))
    part = ops.convert_to_numpy(mask_targets(ops.convert_to_tensor(cropped), *tensors, 28, mask_format="box"))
    assert np.abs(whole - part).mean() < 0.02
    assert ((whole > 0.5) == (part > 0.5)).mean() > 0.98

"""The tf.data pipeline of detection: boxes and masks that fit the pixels, and a pure function of its place."""

import json
import time
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import zoo
from training.config.detection import DetectionAugmentOptions, DetectionDataOptions
from training.data.detection.coco import coco_source
from training.data.detection.digit_scenes import digit_scenes_lt
from training.data.detection.masks import crop_to_boxes
from training.data.detection.pipeline import (
    detection_evaluation_images,
    detection_notes,
    detection_steps_per_epoch,
    detection_training_dataset,
    place_image,
    resized_part,
)
from training.data.detection.source import AnnotatedImages, ArrayScenes, DetectionSource, Objects
from zoo.detection import check_targets, paste_masks, resize_image


class Recipe:
    """The parts of a recipe that the data need."""

    def __init__(self, epochs=2, batch_size=4, seed=0, augment=None, **data):
        self.epochs, self.batch_size, self.seed = epochs, batch_size, seed
        self.data = DetectionDataOptions(**{"image_size": (64, 64), "max_objects": 6, "mask_size": 28, **data})
        self.augment = DetectionAugmentOptions(**(augment or {}))


JITTER = {"flip": True, "scale": (0.5, 2.0)}


@pytest.fixture(scope="module")
def scenes():
    return digit_scenes_lt(num_train=10, num_test=5, image_size=(64, 64), imbalance_factor=4)


def batches(dataset):
    return list(dataset.as_numpy_iterator())


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(tf.nest.flatten(first), tf.nest.flatten(second), strict=True))


def blocks(height, width, boxes):
    """An image that is bright where an object is, and its objects: masks that fill their boxes but for a corner."""
    image, masks = np.zeros((height, width, 3), "uint8"), np.zeros((len(boxes), height, width), "uint8")
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = 1
        mask[y1 : (y1 + y2) // 2, x1 : (x1 + x2) // 2] = 0
    image[masks.any(0)] = 255
    return image, Objects(boxes, np.arange(len(boxes)), masks)


def test_a_part_of_a_resized_image_is_that_of_the_whole():
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3)).astype("uint8")
    for resized in ((37, 53), (80, 91), (20, 53), (21, 17)):
        whole = np.rint(resize_image(image, resized))
        corner, size = (3, 5), (resized[0] - 9, resized[1] - 8)
        part = resized_part(image, resized, corner, size)
        expected = whole[3 : 3 + size[0], 5 : 5 + size[1]]
        # Halves may be rounded either way where the last bit differs.
        assert part.shape == expected.shape and np.abs(part - expected).max() <= 1
        assert (part != expected).mean() < 1e-3


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.4, 0.9), (1.2, 2.5)])
def test_masks_and_boxes_stay_on_their_objects(flip, scale):
    """Masks that are pasted back by their boxes cover what is bright in the image."""
    boxes = [[4, 6, 34, 40], [40, 20, 70, 44], [20, 50, 60, 58]]
    image, objects = blocks(60, 80, boxes)
    agreement = []
    for seed in range(10):
        canvas, size, placed = place_image(
            image, objects, (96, 64), 56, np.random.default_rng(seed), flip=flip, scale=scale
        )
        assert canvas.shape == (96, 64, 3) and not canvas[size[0] :].any() and not canvas[:, size[1] :].any()
        bright = canvas[..., 0] >= 128
        soft = paste_masks(placed.masks, placed.boxes, 96, 64, padding=0, integer_boxes=False)
        pasted = (keras.ops.convert_to_numpy(soft) >= 0.5).any(0)
        if len(placed):
            agreement.append((bright & pasted).sum() / (bright | pasted).sum())
        for box in placed.boxes:
            assert (box >= 0).all() and box[2] <= size[1] and box[3] <= size[0]
    assert len(agreement) >= 5 and np.mean(agreement) > 0.95 and min(agreement) > 0.85


def test_every_mask_of_a_batch_fits_its_digit(scenes):
    """The mean IoU of pasted box masks and the true masks, with augmentation that can be undone."""
    recipe = Recipe(epochs=1, batch_size=5, mask_size=56)
    found = []
    order = {image.tobytes(): index for index, image in enumerate(map(scenes.train.image, range(10)))}
    for inputs, targets in batches(detection_training_dataset(recipe, scenes)):
        for image, boxes, labels, masks in zip(
            inputs["images"], targets["boxes"], targets["labels"], targets["masks"], strict=True
        ):
            objects = scenes.train.objects(order[image.tobytes()])
            n = len(objects)
            np.testing.assert_array_equal(labels, np.pad(objects.labels, (0, 6 - n), constant_values=-1))
            np.testing.assert_array_equal(boxes[:n], objects.boxes)
            np.testing.assert_array_equal(masks[:n], crop_to_boxes(objects.masks, objects.boxes, 56))
            soft = paste_masks(masks[:n], boxes[:n], 64, 64, padding=0, integer_boxes=False)
            pasted = keras.ops.convert_to_numpy(soft) >= 0.5
            both = (pasted & (objects.masks > 0)).sum((1, 2))
            found += (both / (pasted | (objects.masks > 0)).sum((1, 2))).tolist()
    assert len(found) > 20 and np.mean(found) > 0.97


def test_the_box_of_an_object_that_was_cut_fits_what_is_left_of_it():
    # An L: what is right of the stem has only its foot.
    image, mask = np.zeros((40, 40, 3), "uint8"), np.zeros((1, 40, 40), "uint8")
    mask[0, 4:36, 4:8] = mask[0, 32:36, 4:36] = 1
    image[mask[0] > 0] = 255
    cut = 0
    for seed in range(60):
        canvas, _, placed = place_image(
            image, Objects([[4, 4, 36, 36]], [0], mask), (40, 40), 28, np.random.default_rng(seed), scale=(2.0, 2.0)
        )
        rows, columns = np.nonzero(canvas[..., 0] >= 128)
        if not len(placed):
            # At most a pixel of it is in sight.
            assert not len(rows) or min(np.ptp(rows), np.ptp(columns)) < 1
            continue
        cut += 1
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(placed.boxes[0], expected, atol=1.01)
    assert cut > 25


def test_objects_out_of_sight_are_dropped_and_whole_ones_kept_however_small():
    image, objects = blocks(400, 400, [[0, 0, 40, 40], [396, 396, 400, 400]])
    _, _, placed = place_image(image, objects, (40, 40), 28, np.random.default_rng(0), scale=(0.5, 0.5))
    assert placed.labels.tolist() == [0, 1]
    np.testing.assert_allclose(placed.boxes[1], [19.8, 19.8, 20, 20], atol=1e-4)
    counts = set()
    for seed in range(20):
        _, _, placed = place_image(image, objects, (40, 40), 28, np.random.default_rng(seed), scale=(8.0, 8.0))
        counts.add(len(placed))
    assert 0 in counts


def test_landscape_and_portrait_images_come_alike_large_on_a_square():
    images, objects = zip(blocks(30, 60, [[0, 0, 20, 20]]), blocks(60, 30, [[0, 0, 20, 20]]), strict=True)
    source = SimpleNamespace(train=ArrayScenes(images, objects), image_counts=[2], num_images=2)
    recipe = Recipe(epochs=1, batch_size=2, image_size=(128, 128), shorter_side=45)
    ((inputs, targets),) = batches(detection_training_dataset(recipe, source))
    assert sorted(inputs["image_size"].tolist()) == [[45, 90], [90, 45]]
    assert targets["boxes"][:, 0].tolist() == [[0, 0, 30, 30]] * 2


def test_flip_mirrors_every_second_image():
    image, objects = blocks(64, 64, [[0, 0, 16, 32]])
    left = []
    for seed in range(200):
        _, _, placed = place_image(image, objects, (64, 64), 8, np.random.default_rng(seed), flip=True)
        left.append(placed.boxes[0].tolist() == [0, 0, 16, 32])
        corner = placed.masks[0, :4, :4] if left[-1] else placed.masks[0, :4, 4:]
        assert not corner.any() and placed.masks[0].sum() == 48
        assert left[-1] or placed.boxes[0].tolist() == [48, 0, 64, 32]
    assert 70 < sum(left) < 130


@pytest.mark.smoke
def test_batches_are_what_the_detector_takes(scenes):
    recipe = Recipe(augment=JITTER)
    dataset = detection_training_dataset(recipe, scenes)
    assert len(dataset) == 2 * detection_steps_per_epoch(recipe, scenes) == 6
    static = tf.nest.map_structure(lambda spec: spec.shape[1:].as_list(), dataset.element_spec)
    for inputs, targets in batches(dataset):
        assert inputs["images"].dtype == np.uint8 and inputs["image_size"].dtype == np.float32
        assert [targets[key].dtype for key in ("boxes", "labels", "ignored", "masks")] == [
            np.float32, np.int32, bool, np.uint8,
        ]  # fmt: skip
        assert tf.nest.map_structure(lambda value: [*value.shape[1:]], (inputs, targets)) == static
        assert len(inputs["images"]) == 4
        check_targets({**targets, "image_size": inputs["image_size"]}, 10, (64, 64), "box")


def test_every_image_comes_once_an_epoch_and_the_last_batch_is_filled_up(scenes):
    dataset = batches(detection_training_dataset(Recipe(), scenes))
    images = [image.tobytes() for inputs, _ in dataset for image in inputs["images"]]
    assert len(images) == 24
    for epoch in (images[:12], images[12:]):
        assert len(set(epoch)) == 10 and epoch[10:] == epoch[:2]
    assert images[:12] != images[12:]


def test_a_batch_may_be_larger_than_the_data(scenes):
    (inputs, _), *others = batches(detection_training_dataset(Recipe(batch_size=13, epochs=1), scenes))
    assert len(inputs["images"]) == 13 and not others


@pytest.mark.parametrize("sampler", ["random", "repeat_factor"])
def test_a_dataset_that_starts_at_a_step_is_the_rest_of_the_whole_one(scenes, sampler):
    recipe = Recipe(sampler=sampler, repeat_threshold=0.7, augment=JITTER)
    whole = batches(detection_training_dataset(recipe, scenes))
    steps = detection_steps_per_epoch(recipe, scenes)
    assert len(whole) == 2 * steps
    for start in (1, steps, steps + 1, 2 * steps):
        rest = batches(detection_training_dataset(recipe, scenes, start_step=start))
        assert len(rest) == len(whole) - start
        assert all(equal(a, b) for a, b in zip(whole[start:], rest, strict=True))


def test_no_image_is_read_before_the_step_that_a_training_goes_on_from(scenes):
    class Counted(ArrayScenes):
        reads = 0

        def image(self, index):
            Counted.reads += 1
            return super().image(index)

    counted = Counted([scenes.train.image(i) for i in range(10)], [scenes.train.objects(i) for i in range(10)])
    source = DetectionSource(
        "counted", counted, scenes.test, scenes.class_names, scenes.category_ids, scenes.test_annotations
    )
    batches(detection_training_dataset(Recipe(), source, start_step=5))
    assert Counted.reads == 4


def test_batches_do_not_depend_on_the_number_of_parallel_calls(scenes):
    class Slow(ArrayScenes):
        """Images that take their time, another one each."""

        def image(self, index):
            time.sleep(0.003 * (index % 3))
            return super().image(index)

    slow = Slow([scenes.train.image(i) for i in range(10)], [scenes.train.objects(i) for i in range(10)])
    source = DetectionSource(
        "slow", slow, scenes.test, scenes.class_names, scenes.category_ids, scenes.test_annotations
    )
    recipe = Recipe(augment=JITTER)
    first = batches(detection_training_dataset(recipe, source))
    for threads in (1, 6):
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        again = batches(detection_training_dataset(recipe, source).with_options(options))
        assert all(equal(a, b) for a, b in zip(first, again, strict=True))


def test_another_seed_gives_other_batches(scenes):
    first, other = (batches(detection_training_dataset(Recipe(seed=seed, augment=JITTER), scenes)) for seed in (0, 1))
    assert not any(equal(a, b) for a, b in zip(first, other, strict=True))


def test_rare_classes_come_more_often(scenes):
    recipe = Recipe(epochs=4, sampler="repeat_factor", repeat_threshold=1.0)
    plain = Recipe(epochs=4)

    def share(recipe):
        labels = np.concatenate([each["labels"].ravel() for _, each in batches(
            detection_training_dataset(recipe, scenes, masks=False))])  # fmt: skip
        counts = np.bincount(labels[labels >= 0], minlength=10)
        return counts[np.argmin(scenes.image_counts)] / counts.sum()

    assert share(recipe) > share(plain)


def many_objects():
    boxes = [[i, i, i + 2 + i, i + 2 + i] for i in range(8)]
    image, objects = blocks(64, 64, boxes)
    ignored = np.zeros(9, bool)
    ignored[8] = True
    objects = Objects(
        [*boxes, [0, 0, 60, 60]], [*range(8), -1], np.concatenate([objects.masks, np.zeros((1, 64, 64))]), ignored
    )
    images = ArrayScenes([image], [objects])
    categories = {"images": [], "annotations": [], "categories": []}
    return DetectionSource("many", images, images, tuple("abcdefgh"), np.arange(8), categories)


def test_of_too_many_objects_the_largest_are_kept_and_the_others_counted():
    source = many_objects()
    recipe = Recipe(epochs=1, batch_size=1, max_objects=5)
    ((_, targets),) = batches(detection_training_dataset(recipe, source))
    assert targets["labels"][0].tolist() == [3, 4, 5, 6, 7] and not targets["ignored"].any()
    assert detection_notes(recipe, source) == (
        "3 objects in 1 training images are left out: an image keeps its 5 largest (data.max_objects)",
    )
    recipe = Recipe(epochs=1, batch_size=1, max_objects=12)
    ((_, targets),) = batches(detection_training_dataset(recipe, source))
    assert targets["labels"][0].tolist() == [*range(8), -1, -1, -1, -1]
    assert targets["ignored"][0].tolist() == [False] * 8 + [True] + [False] * 3
    assert targets["boxes"][0, 8].tolist() == [0, 0, 60, 60] and not targets["masks"][0, 8].any()
    assert detection_notes(recipe, source) == ()


def test_evaluation_gives_every_test_image_as_it_is(scenes):
    found = dict(detection_evaluation_images(scenes))
    assert list(found) == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(found[3], scenes.test.image(2))


def test_what_cannot_be_is_an_error(scenes):
    with pytest.raises(ValueError, match="start_step must be a whole number of at least 0 and below 7; given: 7"):
        detection_training_dataset(Recipe(), scenes, start_step=7)
    images = ArrayScenes([np.zeros((40, 40, 3), "uint8")], [Objects([[0, 0, 4, 4]], [0])])
    source = DetectionSource("boxes", images, images, ("a",), np.arange(1), {})
    with pytest.raises(ValueError, match="masks must be False for boxes, whose objects have none"):
        detection_training_dataset(Recipe(), source, masks=True)
    assert "masks" not in detection_training_dataset(Recipe(), source).element_spec[1]
    with pytest.raises(ValueError, match=r"class 1 \('b'\) of two must be in a training image; given: none\."):
        DetectionSource("two", images, images, ("a", "b"), np.arange(2), {})
    with pytest.raises(
        ValueError, match="labels of one must be from 0 to 0, for 1 classes; given: .* in its train images"
    ):
        other = ArrayScenes([np.zeros((40, 40, 3), "uint8")], [Objects([[0, 0, 4, 4]], [1])])
        DetectionSource("one", other, images, ("a",), np.arange(1), {})
    with pytest.raises(ValueError, match="none must have a training image that shows an object"):
        empty = ArrayScenes([np.zeros((40, 40, 3), "uint8")], [Objects([], [])])
        DetectionSource("none", empty, images, ("a",), np.arange(1), {})
    with pytest.raises(ValueError, match="nothing must have training images"):
        DetectionSource("nothing", ArrayScenes([], []), images, ("a",), np.arange(1), {})


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: DetectionDataOptions(image_size=(16, 64)), "each side of data.image_size must be .* 32; given: 16"),
        (
            lambda: DetectionDataOptions(image_size=64),
            "data.image_size must be two numbers, height and width; given: 64",
        ),
        (lambda: DetectionDataOptions(sampler="repeat"), "data.sampler must be one of random, repeat_factor"),
        (
            lambda: DetectionDataOptions(max_objects=0),
            "data.max_objects must be a whole number of at least 1; given: 0",
        ),
        (lambda: DetectionAugmentOptions(scale=(2.0, 1.0)), "augment.scale must be the smallest and the largest"),
        (lambda: DetectionAugmentOptions(scale=(0.0, 1.0)), "each of augment.scale must be a finite number above 0"),
        (lambda: DetectionAugmentOptions(flip=1), "augment.flip must be True or False; given: 1"),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def own_data(folder, scenes):
    """Scenes as files with COCO's annotations."""
    annotations = scenes.test_annotations
    for index, image in enumerate(annotations["images"]):
        Image.fromarray(scenes.test.image(index)).save(folder / image["file_name"])
    (folder / "a.json").write_text(json.dumps(annotations))
    return coco_source(folder / "a.json", folder, folder / "a.json")


def test_scenes_as_files_give_the_same_batches_as_in_memory(scenes, tmp_path):
    from_files = own_data(tmp_path, scenes)
    kept = [scenes.class_names.index(name) for name in from_files.class_names]
    in_memory = DetectionSource(
        "memory",
        ArrayScenes(
            [scenes.test.image(i) for i in range(5)],
            [
                Objects(o.boxes, [kept.index(label) for label in o.labels], o.masks)
                for o in map(scenes.test.objects, range(5))
            ],
        ),
        scenes.test,
        scenes.class_names,
        scenes.category_ids,
        {},
        image_counts=np.ones(10),
    )
    recipe = Recipe(augment=JITTER)
    first, second = (batches(detection_training_dataset(recipe, each)) for each in (from_files, in_memory))
    assert all(equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.slow
@pytest.mark.any_backend
def test_mask_rcnn_trains_on_both_sources(scenes, tmp_path):
    """A few steps of `fit`, from files and from memory; the losses are finite, and the weights move."""
    recipe = Recipe(epochs=1, batch_size=2, augment=JITTER)
    model = zoo.MaskRCNN(
        "resnet18", num_classes=10, mask_format="box", pyramid_filters=16, box_units=32, mask_filters=16,
        rpn_candidates_training=50, proposals_training=30, rpn_samples=32, roi_samples=16,
    )  # fmt: skip
    model.compile(keras.optimizers.SGD(0.01))
    before = keras.ops.convert_to_numpy(model.mask_head.trainable_variables[0])
    memory = detection_training_dataset(recipe, scenes).take(3)
    files = detection_training_dataset(recipe, own_data(tmp_path, scenes)).take(2)
    for dataset in (memory, files):
        history = model.fit(dataset, epochs=1, verbose=0).history
        assert all(np.isfinite(values).all() for values in history.values())
        assert history["mask_loss"][0] > 0 and history["classifier_loss"][0] > 0
    assert not np.array_equal(before, keras.ops.convert_to_numpy(model.mask_head.trainable_variables[0]))


def test_images_are_an_interface():
    with pytest.raises(TypeError, match="abstract"):
        AnnotatedImages([], [], (), False)

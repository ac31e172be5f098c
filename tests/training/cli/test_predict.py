"""`keras-apa predict`: the same numbers as `model.predict`, every kind of model, broken files, and exit codes."""

import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest
from backends import convolves_channels_first
from PIL import Image

import zoo
from training.cli.predict import run_predict
from training.errors import UsageError
from training.inference.classifier import find_saved_model, load_predictor, read_class_names
from zoo import Preprocessing
from zoo.presets import save_preset
from zoo.serving.graph import final_activation

NAMES = ("cat", "dog", "owl")
PREPARED = Preprocessing(image_size=(16, 16), resize_size=18, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


def build(preprocessing=PREPARED, class_names=NAMES, **options):
    """A network whose logits tell its inputs apart."""
    model = zoo.create_model("se_resnet8", **{"classes": 3, "input_shape": (16, 16, 3), **options})
    model.preprocessing, model.class_names = preprocessing, class_names
    return model


def expected(model, pixels, data_format="channels_last"):
    """Probabilities by `model.predict` and a softmax."""
    inputs = keras.ops.convert_to_numpy(model.preprocessing(np.stack(pixels), data_format))
    return keras.ops.convert_to_numpy(keras.ops.softmax(model.predict(inputs, verbose=0)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three images of the size that the network is fed from, a broken one, and the network."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("predict")
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    for name in ("a", "b", "c"):
        # 18 is `resize_size`, so the crop is all that is done.
        Image.fromarray(random.integers(0, 256, (18, 18, 3), "uint8")).save(folder / "images" / f"{name}.png")
    (folder / "broken.jpg").write_bytes((folder / "images" / "a.png").read_bytes()[:300])
    build().save(folder / "model.keras")
    return folder


def pixels_of(folder, names="abc"):
    return [np.asarray(Image.open(folder / "images" / f"{name}.png"))[1:17, 1:17] for name in names]


def predicted(capsys, *arguments, code=0, **options):
    """The JSON document that the command prints, alone on stdout."""
    assert run_predict(*arguments, as_json=True, **options) == code
    return json.loads(capsys.readouterr().out)


def as_rows(document):
    """Probabilities in the order of the classes."""
    rows = []
    for image in document["images"]:
        rows.append([row["probability"] for row in sorted(image["predictions"], key=lambda row: row["index"])])
    return np.array(rows)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_probabilities_are_those_of_model_predict(folder, capsys, batch_size):
    document = predicted(capsys, folder / "model.keras", [folder / "images"], batch_size=batch_size)
    model = keras.saving.load_model(folder / "model.keras")
    np.testing.assert_allclose(as_rows(document), expected(model, pixels_of(folder)), rtol=1e-4)
    assert [image["file"] for image in document["images"]] == [str(folder / "images" / f"{n}.png") for n in "abc"]
    for image in document["images"]:
        rows = image["predictions"]
        assert [row["rank"] for row in rows] == [1, 2, 3]
        assert [row["probability"] for row in rows] == sorted((row["probability"] for row in rows), reverse=True)
        assert all(row["class"] == NAMES[row["index"]] for row in rows)


def test_a_broken_file_is_named_and_the_rest_goes_on(folder, capsys):
    files = [folder / "images" / "a.png", folder / "broken.jpg", folder / "images" / "b.png", folder / "none.png"]
    assert run_predict(folder / "model.keras", files, as_json=True, top_k=1, batch_size=2) == 1
    printed = capsys.readouterr()
    images = json.loads(printed.out)["images"]
    assert ["predictions" in image for image in images] == [True, False, True, False]
    assert images[1]["file"] == str(folder / "broken.jpg") and "cannot be read" in images[1]["error"]
    assert images[3] == {"file": str(folder / "none.png"), "error": "no such file, folder or pattern"}
    assert f"keras-apa: {folder}/broken.jpg: cannot be read" in printed.err
    assert f"{folder}/none.png: no such file" in printed.err and "2 of 4 not predicted" in printed.err


def test_only_broken_files_give_no_table(folder, capsys):
    assert run_predict(folder / "model.keras", [folder / "broken.jpg"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and "broken.jpg" in printed.err


def test_the_table_has_file_rank_class_and_probability(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder / "images")
    monkeypatch.setenv("COLUMNS", "100")
    assert run_predict(folder / "model.keras", ["a.png", "b.png"], top_k=2) == 0
    printed = capsys.readouterr()
    rows = [line.split("│")[1:-1] for line in printed.out.splitlines() if "│" in line]
    assert [(row[0].strip(), row[1].strip()) for row in rows] == [("a.png", "1"), ("", "2"), ("b.png", "1"), ("", "2")]
    probabilities = expected(keras.saving.load_model(folder / "model.keras"), pixels_of(folder, "ab"))
    for i, found in enumerate(probabilities):
        for rank, j in enumerate(np.argsort(-found)[:2]):
            assert rows[2 * i + rank][2].strip() == NAMES[j]
            assert float(rows[2 * i + rank][3]) == pytest.approx(found[j], abs=6e-5)
    assert printed.err == ""


def test_names_with_markup_and_control_characters_are_printed_as_text(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("[red]a.png", "b\x1b[31m.png", os.fsdecode(b"c\xff.png")):
        Image.new("RGB", (18, 18)).save(tmp_path / name)
    (tmp_path / "names.txt").write_text("[bold]x\n[/]y\nz\n")
    assert run_predict(folder / "model.keras", ["."], class_names=tmp_path / "names.txt") == 0
    printed = capsys.readouterr().out
    assert "[red]a.png" in printed and "[bold]x" in printed and "[/]y" in printed and "\x1b[31m" not in printed
    document = predicted(capsys, folder / "model.keras", ["."])
    assert {image["file"] for image in document["images"]} == set(os.listdir(tmp_path)) - {"names.txt"}


def test_output_is_the_json_document_in_a_file(folder, tmp_path, capsys):
    path = tmp_path / "below" / "out.json"
    assert run_predict(folder / "model.keras", [folder / "images"], output=path) == 0
    printed = capsys.readouterr().out
    assert printed.strip().splitlines()[-1] == f"Wrote {path}" and "probability" in printed
    document = predicted(capsys, folder / "model.keras", [folder / "images"], output=path)
    assert json.loads(path.read_text()) == document
    assert os.listdir(path.parent) == ["out.json"]


def test_names_and_size_can_be_given(folder, tmp_path, capsys):
    model = build(class_names=None, input_shape=(None, None, 3))
    model.save(tmp_path / "any.keras")
    (tmp_path / "names.txt").write_text("\ufefffirst\n second\t\nthird\n\n", encoding="utf-8")
    images = [folder / "images" / "a.png"]
    document = predicted(capsys, tmp_path / "any.keras", images)
    assert [row["class"] == str(row["index"]) for row in document["images"][0]["predictions"]] == [True] * 3
    names = tmp_path / "names.txt"
    document = predicted(capsys, tmp_path / "any.keras", images, class_names=names, image_size=(32, 24))
    assert {row["class"] for row in document["images"][0]["predictions"]} == {"first", "second", "third"}
    chosen = load_predictor(tmp_path / "any.keras", image_size=(32, 24)).preprocessing
    assert (chosen.image_size, chosen.resize_size, chosen.mean) == ((32, 24), 36, PREPARED.mean)


def test_a_model_without_preprocessing_gets_stretched_images_and_says_so(folder, tmp_path, capsys):
    build(preprocessing=None).save(tmp_path / "model.keras")
    assert run_predict(tmp_path / "model.keras", [folder / "images"] * 2, as_json=True, batch_size=1) == 0
    printed = capsys.readouterr()
    assert printed.err.count("does not say") == 1 and "stretched to 16x16 pixels and scaled to 0..1" in printed.err
    stretched = [Image.open(path).resize((16, 16), Image.BILINEAR) for path in sorted((folder / "images").iterdir())]
    model = keras.saving.load_model(tmp_path / "model.keras")
    logits = model.predict(np.stack([np.asarray(image) for image in stretched]).astype("float32") / 255, verbose=0)
    found = as_rows(json.loads(printed.out))
    np.testing.assert_allclose(found, keras.ops.convert_to_numpy(keras.ops.softmax(logits)), rtol=1e-4)


@pytest.mark.parametrize(
    ("scale", "fed", "part"),
    [
        (1.0, 1.0, "with values from 0 to 255 as in its training"),
        (1 / 255, 1 / 255, "and scaled to 0..1\n"),
        (-1 / 60, 1 / 255, "scaled to 0..1, but it was trained on values from -4.25 to "),
    ],
)
def test_a_model_without_preprocessing_gets_the_range_of_its_training(folder, tmp_path, capsys, scale, fed, part):
    model = build(preprocessing=None)
    model.compile("sgd", loss="mse")
    images = np.stack(pixels_of(folder)).astype("float32")
    images[0, 0, 0], images[0, 0, 1] = 0, 255
    model.fit(images * np.float32(scale), np.zeros((3, 3)), verbose=0)
    model.save(tmp_path / "model.keras")
    Image.fromarray(images[1].astype("uint8")).save(tmp_path / "one.png")
    assert run_predict(tmp_path / "model.keras", [tmp_path / "one.png"], as_json=True) == 0
    printed = capsys.readouterr()
    assert part in printed.err
    wanted = keras.ops.convert_to_numpy(keras.ops.softmax(model.predict(images[1:2] * np.float32(fed), verbose=0)))
    np.testing.assert_allclose(as_rows(json.loads(printed.out)), wanted, rtol=1e-3, atol=1e-6)


def test_a_network_for_grey_images_gets_their_luminance(folder, tmp_path, capsys):
    grey = Preprocessing(image_size=(16, 16), resize_size=18, channels=1, mean=(0.5,), std=(0.2,))
    model = build(preprocessing=grey, input_shape=(16, 16, 1))
    model.save(tmp_path / "grey.keras")
    pixels = [np.asarray(Image.open(folder / "images" / f"{n}.png").convert("L"))[1:17, 1:17, None] for n in "abc"]
    found = as_rows(predicted(capsys, tmp_path / "grey.keras", [folder / "images"]))
    np.testing.assert_allclose(found, expected(model, pixels), rtol=1e-4)


@pytest.mark.every_backend  # TensorFlow may have no such convolutions
def test_a_channels_first_network_gets_channels_first_images(folder, tmp_path, capsys):
    model = build(input_shape=(3, 16, 16), data_format="channels_first")
    model.save(tmp_path / "first.keras")
    if not convolves_channels_first():
        with pytest.raises(UsageError, match="channels first: TensorFlow does not convolve"):
            run_predict(tmp_path / "first.keras", [folder / "images"])
        return
    found = as_rows(predicted(capsys, tmp_path / "first.keras", [folder / "images"]))
    np.testing.assert_allclose(found, expected(model, pixels_of(folder), "channels_first"), rtol=1e-4)


# Probabilities


def dense(activation=None, units=2):
    return keras.layers.Dense(units, activation=activation)


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (lambda x: dense()(x), None),
        (lambda x: dense("relu")(x), None),
        (lambda x: dense("softmax")(x), "softmax"),
        (lambda x: keras.layers.Activation("sigmoid")(dense()(x)), "sigmoid"),
        (lambda x: keras.layers.Softmax()(dense()(x)), "softmax"),
        (lambda x: keras.ops.softmax(dense()(x)), "softmax"),
        (lambda x: keras.layers.Activation("linear", dtype="float32")(dense("softmax")(x)), "softmax"),
        (lambda x: keras.Sequential([dense(), keras.layers.Activation("softmax")])(x), "softmax"),
        (lambda x: dense()(dense("softmax")(x)), None),
    ],
)
def test_the_activation_that_a_model_ends_with_is_found(head, found):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, head(inputs))
    assert final_activation(model) == found
    assert final_activation(keras.Sequential([keras.Input((4,)), model])) == found


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_are_not_squashed_twice(folder, tmp_path, capsys, activation):
    model = build(classifier_activation=activation)
    model.save(tmp_path / "model.keras")
    inputs = keras.ops.convert_to_numpy(PREPARED(np.stack(pixels_of(folder)), "channels_last"))
    found = as_rows(predicted(capsys, tmp_path / "model.keras", [folder / "images"]))
    np.testing.assert_allclose(found, model.predict(inputs, verbose=0), rtol=1e-4)


def test_a_single_logit_gets_a_sigmoid(folder, tmp_path, capsys):
    model = build(classes=1, class_names=["cat"])
    model.save(tmp_path / "model.keras")
    inputs = keras.ops.convert_to_numpy(PREPARED(np.stack(pixels_of(folder)), "channels_last"))
    found = as_rows(predicted(capsys, tmp_path / "model.keras", [folder / "images"]))
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-model.predict(inputs, verbose=0))), rtol=1e-4)


def test_an_output_that_is_not_finite_is_an_error_of_its_file(folder, tmp_path, capsys):
    model = build()
    model.layers[-1].set_weights([np.full_like(weights, np.nan) for weights in model.layers[-1].get_weights()])
    model.save(tmp_path / "model.keras")
    document = predicted(capsys, tmp_path / "model.keras", [folder / "images" / "a.png"], code=1)
    assert "not finite" in document["images"][0]["error"]


def test_a_compiled_model_with_an_unknown_loss_is_loaded(folder, tmp_path, capsys):
    def own_loss(y, p):
        return keras.ops.mean(p)

    model = build()
    model.compile("sgd", own_loss)
    model.save(tmp_path / "model.keras")
    assert len(predicted(capsys, tmp_path / "model.keras", [folder / "images"])["images"]) == 3


def test_a_preset_is_taken_by_its_folder(folder, tmp_path, capsys):
    save_preset(keras.saving.load_model(folder / "model.keras"), tmp_path / "preset")
    document = predicted(capsys, tmp_path / "preset", [folder / "images"])
    direct = predicted(capsys, folder / "model.keras", [folder / "images"])
    assert document["images"] == direct["images"]


# SavedModels


@pytest.fixture
def saved_model(tmp_path):
    """Two versions of a model whose probabilities are the shares of red, green and blue."""
    import tensorflow as tf

    for version, size in (("2", 16), ("10", 8)):
        module = tf.Module()
        module.scale = tf.Variable(3.0)

        def serve(images, module=module):
            sums = tf.reduce_sum(images, (1, 2)) * module.scale
            shares = sums / tf.reduce_sum(sums, -1, keepdims=True)
            return {"logits": tf.math.log(shares), "probabilities": shares}

        spec = tf.TensorSpec((None, size, size, 3), "float32", name="images")
        function = tf.function(serve, input_signature=[spec], autograph=False)
        tf.saved_model.save(
            module, str(tmp_path / "served" / version), signatures={"serving_default": function.get_concrete_function()}
        )
    (tmp_path / "served" / "notes").mkdir()
    return tmp_path / "served"


def test_the_highest_version_of_a_saved_model_is_taken(saved_model, tmp_path):
    assert find_saved_model(saved_model) == saved_model / "10"
    assert find_saved_model(saved_model / "2") == saved_model / "2"
    assert find_saved_model(saved_model / "notes") is None and find_saved_model(tmp_path / "none") is None


def test_a_saved_model_gets_pixels_from_0_to_255(saved_model, folder, capsys):
    assert run_predict(saved_model, [folder / "images"], as_json=True) == 0
    printed = capsys.readouterr()
    assert "they are stretched to 8x8 pixels\n" in printed.err
    images = [Image.open(path).resize((8, 8), Image.BILINEAR) for path in sorted((folder / "images").iterdir())]
    sums = np.stack([np.asarray(image) for image in images]).sum(axis=(1, 2))
    np.testing.assert_allclose(as_rows(json.loads(printed.out)), sums / sums.sum(axis=-1, keepdims=True), rtol=1e-5)


def test_the_description_beside_a_saved_model_is_used(saved_model, folder, capsys):
    (saved_model / "2" / "assets.extra").mkdir()
    description = {"class_names": ["red", "green", "blue"], "preprocessing": PREPARED.get_config()}
    (saved_model / "2" / "assets.extra" / "model.json").write_text(json.dumps(description))
    assert run_predict(saved_model / "2", [folder / "images"], as_json=True) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert {row["class"] for row in document["images"][0]["predictions"]} == {"red", "green", "blue"}
    sums = np.stack(pixels_of(folder)).sum(axis=(1, 2))
    np.testing.assert_allclose(as_rows(document), sums / sums.sum(axis=-1, keepdims=True), rtol=1e-5)
    assert "does not say" not in printed.err


def test_a_saved_model_without_probabilities_is_an_error(tmp_path, folder):
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec((None, 8, 8, 3), "float32")
    function = tf.function(lambda images: {"features": images}, input_signature=[spec]).get_concrete_function()
    tf.saved_model.save(module, str(tmp_path / "features"), signatures={"serving_default": function})
    with pytest.raises(UsageError, match="must have a signature 'serving_default'.*keras-apa export"):
        run_predict(tmp_path / "features", [folder / "images"])


def test_a_broken_saved_model_is_an_error(tmp_path, folder):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(UsageError, match=f"cannot load '{tmp_path}/1': "):
        run_predict(tmp_path, [folder / "images"])


@pytest.mark.slow
@pytest.mark.any_backend
def test_an_exported_model_predicts_as_the_model_itself(folder, tmp_path, capsys):
    from zoo.export import export

    export(keras.saving.load_model(folder / "model.keras"), tmp_path / "served")
    document = predicted(capsys, tmp_path / "served", [folder / "images"])
    direct = predicted(capsys, folder / "model.keras", [folder / "images"])
    np.testing.assert_allclose(as_rows(document), as_rows(direct), atol=1e-5)
    assert {row["class"] for row in document["images"][0]["predictions"]} == set(NAMES)


# Wrong usage


@pytest.mark.parametrize(
    ("model", "images", "options", "parts"),
    [
        ("model.keras", ["images"], {"top_k": 0}, ["--top-k", "at least 1", "0"]),
        ("model.keras", ["images"], {"batch_size": 0}, ["--batch-size"]),
        ("model.keras", [], {}, ["IMAGES must be", "given: nothing"]),
        ("model.keras", ["none.png", "nothing"], {}, ["given: none.png, nothing"]),
        ("model.keras", ["images"], {"output": "images"}, ["--output", "is a folder"]),
        ("model.keras", ["images"], {"output": "model.keras/x.json"}, ["--output", "can be written to"]),
        ("model.keras", ["images"], {"image_size": (32, 32)}, ["16x16x3", "--image-size", "32x32x3"]),
        ("model.keras", ["images"], {"image_size": (0, 16)}, ["image_size", "positive"]),
        ("model.keras", ["images"], {"class_names": "two.txt"}, ["two.txt must have the 3 class names", "given: 2"]),
        ("model.keras", ["images"], {"class_names": "gap.txt"}, ["line 2", "empty"]),
        ("model.keras", ["images"], {"class_names": "none.txt"}, ["--class-names", "none.txt"]),
        ("model.keras", ["images"], {"class_names": "broken.jpg"}, ["--class-names", "UTF-8"]),
        ("modell.keras", ["images"], {}, ["must be a file that is there; given: 'modell.keras'"]),
        ("no_such_preset", ["images"], {}, ["preset must be", "no_such_preset"]),
        ("images", ["images"], {}, ["given: the folder 'images'", ".keras file", "SavedModel", "preset"]),
        ("weights.pth", ["images"], {}, ["weights.pth", "keras-apa convert"]),
        ("not.keras", ["images"], {}, ["cannot load 'not.keras'"]),
        ("features.keras", ["images"], {}, ["features.keras must be a classifier of images"]),
        ("any.keras", ["images"], {}, ["any.keras", "--image-size"]),
        ("deep.keras", ["images"], {}, ["1 or 3 channels; given: 5"]),
        ("small.keras", ["images"], {}, ["20x20x3", "its preprocessing", "16x16x3"]),
    ],
)
def test_wrong_usage_is_one_clear_error(wrong, model, images, options, parts):
    paths = {name: Path(value) if name in ("output", "class_names") else value for name, value in options.items()}
    with pytest.raises(UsageError) as error:
        run_predict(model, images, **paths)
    assert all(part in str(error.value) for part in parts), error.value
    assert len(str(error.value).splitlines()) == 1


@pytest.fixture
def wrong(folder, tmp_path, monkeypatch):
    """A folder with models and files that do not fit."""
    monkeypatch.chdir(tmp_path)
    for name in ("images", "model.keras", "broken.jpg"):
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / "two.txt").write_text("a\nb\n")
    (tmp_path / "gap.txt").write_text("a\n\nb\n")
    (tmp_path / "weights.pth").write_bytes(b"weights")
    (tmp_path / "not.keras").write_bytes(b"not a model")
    flat = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    flat.save(tmp_path / "features.keras")
    for name, shape in (("any", (None, None, 3)), ("deep", (8, 8, 5))):
        inputs = keras.Input(shape)
        outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(inputs))
        keras.Model(inputs, outputs).save(tmp_path / f"{name}.keras")
    inputs = keras.Input((20, 20, 3))
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(inputs))
    zoo.Classifier(inputs, outputs, preprocessing=PREPARED).save(tmp_path / "small.keras")


def test_class_names_are_the_lines_of_a_file(tmp_path):
    (tmp_path / "names.txt").write_text("snow leopard\r\ncafé\n", encoding="utf-8")
    assert read_class_names(tmp_path / "names.txt") == ["snow leopard", "café"]


def test_a_network_without_classifier_has_no_classes_to_predict(tmp_path):
    model = zoo.create_model("resnet8", include_top=False, pooling="avg", input_shape=(16, 16, 3))
    model.save(tmp_path / "features.keras")
    with pytest.raises(ValueError, match="must have a classifier; given: a model that ends in 64 features"):
        load_predictor(tmp_path / "features.keras")


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 cut"])
def test_a_damaged_model_is_called_so(content, tmp_path):
    (tmp_path / "net.keras").write_bytes(content)
    with pytest.raises(ValueError, match="is no .keras file, or is damaged"):
        load_predictor(tmp_path / "net.keras")

"""What is found below folders: every ending that can be read, through links, without what this project wrote."""

import json
import os

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import zoo
from training.classification.own_images import fingerprint
from training.cli.main import main
from training.config.classification import DataOptions
from training.data.classification.folder import folder
from training.data.classification.registry import load_source
from training.image_files import ENDINGS, FORMATS, find_images, is_written, mark_written, search_images
from training.recipes import get_recipe
from training.reporting import save_figures
from training.runs.ownership import claim

pytestmark = pytest.mark.any_backend  # no backend takes part in finding files


def picture(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7), (shade,) * 3).save(path)


@pytest.fixture
def birds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("emu", "wren"):
        for number in range(4):
            picture(tmp_path / "birds" / name / f"{number}.png")
    return tmp_path / "birds"


def write_run(path):
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"backend": "torch", "recipes": [{"name": "folder"}], "date": ""}))
    picture(path / "figures" / "curves.png")
    (path / "checkpoints").mkdir()
    (path / "folder.keras").touch()


def write_preset(path):
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"format": zoo.presets.FORMAT}))
    picture(path / "card.png")


def write_export(path):
    (path / "1").mkdir(parents=True)
    (path / "1" / "saved_model.pb").touch()
    picture(path / "1" / "warm.png")


def write_pictures(path):
    picture(path / "drawn.png")
    mark_written(path)


OURS = {"run": write_run, "preset": write_preset, "export": write_export, "pictures": write_pictures}


@pytest.mark.parametrize("where", ["out", "runs/folder", "emu/out", "emu/runs/folder"])
@pytest.mark.parametrize("kind", OURS)
def test_what_this_project_wrote_is_no_class_and_no_image(birds, kind, where):
    before = folder(birds)
    OURS[kind](birds / where)
    after = folder(birds)
    assert after.class_names == before.class_names and list(after.class_counts) == list(before.class_counts)
    recipe = get_recipe("folder").replace(data={"path": str(birds)})
    assert fingerprint(recipe, after) == fingerprint(recipe, before)
    top = str(birds / where.split("/")[0]) if "emu" not in where else str(birds / where)
    top += "/1" if kind == "export" and "emu" in where else ""
    assert after.notes == (f"what keras-apa wrote itself is left out: {top}",)
    for argument in ("birds", "birds/*", "birds/**/*.png"):
        found = search_images([argument])
        assert len(found.files) == 8 and len(found.written) == 1 and not found.missing


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_run_beside_or_in_a_split_is_left_out(birds, part):
    os.renames(birds / "emu", birds / "train" / "emu")
    os.renames(birds / "wren", birds / "train" / "wren")
    for name in ("emu", "wren"):
        picture(birds / "test" / name / "0.png")
    write_run(birds / "runs" / "folder")
    write_run(birds / part / "runs" / "folder")
    source = folder(birds)
    assert (source.class_names, len(source.train), len(source.test)) == (("emu", "wren"), 8, 2)
    assert str(birds / "runs" / "folder") in source.notes[0] and str(birds / part / "runs") in source.notes[0]


@pytest.mark.parametrize("where", ["runs/folder", "emu/out", "out"])
def test_the_folder_of_a_run_that_reads_its_images_is_no_class(birds, where):
    before = folder(birds)
    with claim(birds / where):  # it gets its configuration when the images are known
        after = folder(birds)
        assert len(search_images(["birds"]).files) == 8
    assert after.class_names == before.class_names and list(after.class_counts) == list(before.class_counts)


def test_a_folder_of_ours_is_read_where_it_is_named(birds):
    write_run(birds / "run")
    assert find_images(["birds/run/figures"])[0] == find_images(["birds/run/figures/*.png"])[0]
    assert find_images(["birds/run/figures/curves.png"]) == (["birds/run/figures/curves.png"], {})
    files, missing = find_images(["birds/run"])
    assert files == [] and "what keras-apa wrote itself is left out" in missing["birds/run"]


def test_class_folders_inside_a_run_folder_are_classes(birds):
    write_run(birds.parent / "run")
    for name in ("emu", "wren"):
        os.rename(birds / name, birds.parent / "run" / name)
    assert folder(birds.parent / "run").class_names == ("emu", "wren")


def test_a_configuration_of_something_else_is_not_ours(birds):
    for contents in ("{}", "[1]", "no json", '{"backend": "x"}'):
        (birds / "emu" / "config.json").write_text(contents)
        assert not is_written(birds / "emu")
    (birds / "wren" / "model.onnx").touch()
    assert not is_written(birds / "wren")
    assert len(search_images(["birds"]).files) == 8


def test_files_left_out_are_counted_by_their_endings(birds):
    for name in ("a.heic", "b.HEIC", "c.txt", "noending", ".hidden.heic"):
        (birds / "emu" / name).touch()
    (birds / "wren" / "d.txt").touch()
    (note,) = folder(birds).notes
    assert "are left out: 2 .heic, 2 .txt, 1 without an ending; .heic are images: convert them" in note
    assert search_images(["birds"]).notes() == [note]


def test_every_ending_that_is_left_out_is_named(birds):
    endings = [f".{letter}" for letter in "abcdefgh"]
    for ending in endings:
        (birds / "emu" / f"x{ending}").touch()
    (note,) = search_images(["birds"]).notes()
    assert note.endswith(", ".join(f"1 {ending}" for ending in endings))


def test_arguments_that_overlap_are_searched_once(birds):
    (birds / "emu" / "notes.txt").touch()
    (birds / "emu" / "gone").symlink_to("nowhere")
    write_run(birds / "runs")
    arguments = ["birds", "./birds", "birds/emu", str(birds), "birds/**", "birds/*/*", "birds/**/*.png"]
    assert len(find_images(arguments)[0]) == 8
    for several in (arguments, ["birds/**"], ["birds/**/*"], ["birds", "birds/*"]):
        found = search_images(several)
        assert len(found.files) == 8 and len(found.written) == 1 and len(found.dangling) == 1
        assert "are left out: 1 .txt" in found.notes()[0]
    # By its name, or a pattern that says its ending, a file is meant.
    assert len(find_images(["birds/emu/notes.txt"])[0]) == len(find_images(["birds/emu/*.txt"])[0]) == 1


@pytest.mark.parametrize("pattern", ["birds/**", "birds/**/*", "birds/**/*.png", "**/*.png", "b*/**/*.png", "birds/*"])
def test_a_pattern_takes_each_image_once_wherever_links_lead(birds, pattern):
    # Two links up in each folder: `glob` goes on in all ways through both of them, 2 ** 40 of them.
    for name in ("emu", "wren"):
        (birds / name / "up").symlink_to("..")
        (birds / name / "again").symlink_to(birds)
    (birds / "auk").symlink_to("emu")
    (birds / "wren" / "same.png").symlink_to("../emu/0.png")
    picture(birds.parent / "store" / "kiwi.png")
    (birds / "kiwi").symlink_to(birds.parent / "store")
    found = search_images([pattern])
    want = [f"birds/{name}/{number}.png" for name in ("emu", "wren") for number in range(4)]
    store = "store/kiwi.png" if pattern[0] == "*" else "birds/kiwi/kiwi.png"
    assert sorted(found.files) == sorted([*want, store]) and not found.missing
    assert {*map(os.path.normpath, found.loops)} == {
        f"birds/{name}/{link}" for name in ("emu", "wren") for link in ("up", "again")
    }


def test_what_has_no_image_is_told_from_what_is_not_there(birds):
    (birds / "auk").mkdir()
    _, missing = find_images(["birds/auk", "birds/a*", "birds/a*/*", "birds/kiwi/**"])
    found = {name for name, reason in missing.items() if reason.startswith("no image below it")}
    assert len(missing) == 4 and found == {"birds/auk", "birds/a*"}


def test_a_pattern_with_several_levels_keeps_the_own_names(birds):
    (birds / "auk").symlink_to("emu")
    picture(birds / "emu" / "young" / "chick.png")
    own = [*(f"birds/emu/{number}.png" for number in range(4)), "birds/emu/young/chick.png"]
    for pattern in ("birds/*u*/*", "birds/**/*u*/**", f"{birds}/*u*/**/**//*.png", "./birds/**/*u*/**/*.png"):
        assert [os.path.relpath(file) for file in find_images([pattern])[0]] == own
    # A pattern without an image of its own name takes the one behind the link.
    assert find_images(["birds/a*/0.png"])[0] == ["birds/auk/0.png"]
    os.rename(birds / "wren", birds / "wr[e]n")
    assert len(find_images(["birds/**/?.png"])[0]) == 8


@pytest.mark.parametrize("pattern", ["run/*", "run/**", "run/**/*", "run/**/*.png", "run/*/*", "r*/figures/*.png"])
def test_a_pattern_leaves_out_the_figures_of_a_run(birds, pattern):
    write_run(birds.parent / "run")
    picture(birds.parent / "run" / "own.png")
    taken = pattern in ("run/*", "run/**", "run/**/*", "run/**/*.png")
    assert search_images(["run"]).files == ["run/own.png"]
    found = search_images([pattern])
    assert found.files == ["run/own.png"] * taken
    assert any(place in found.written for place in ("run", "run/figures"))
    assert len(find_images(["run/figures/*"])[0]) == len(find_images(["run/figures/curves.png"])[0]) == 1


@pytest.mark.parametrize("how", ["linked", "moved"])
def test_the_figures_of_a_run_are_ours_wherever_they_are(birds, how):
    save_figures(birds.parent / "figures", [("a", "A", lambda: Figure((1, 1)))])
    if how == "linked":
        (birds / "emu" / "pictures").symlink_to(birds.parent / "figures")
    else:
        os.rename(birds.parent / "figures", birds / "emu" / "pictures")
    found = search_images(["birds"])
    assert len(found.files) == 8 and found.written == ["birds/emu/pictures"]


@pytest.mark.parametrize(
    ("ending", "format"),
    [
        *((ending, "JPEG2000") for ending in (".j2c", ".jpc", ".j2k", ".jpx", ".jpf")),
        *((".apng", "PNG"), (".dib", "DIB"), (".dib", "BMP"), (".mpo", "MPO"), (".mpo", "JPEG"), (".avifs", "AVIF")),
    ],
)
def test_rarer_endings_of_the_formats_are_read(birds, ending, format):
    if format not in (*FORMATS, "MPO"):
        pytest.skip(f"Pillow without {format} here")
    image = Image.new("RGB", (9, 7), (200, 40, 40))
    several = {"save_all": True, "append_images": [image]} if ending in (".mpo", ".avifs") and format != "JPEG" else {}
    image.save(birds / "emu" / f"more{ending}", format=format, **several)
    source = folder(birds)
    assert len(source.train) + len(source.test) == 9 and source.notes == ()


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_is_found_in_any_case(birds, ending):
    (birds / "emu" / f"a{ending}").touch()
    (birds / "emu" / f"b{ending.upper()}").touch()
    assert len(find_images([birds / "emu"])[0]) == 6


def test_links_are_followed_and_each_folder_is_read_once(birds):
    picture(birds.parent / "store" / "more.png")
    (birds / "emu" / "camera").symlink_to(birds.parent / "store")
    (birds / "emu" / "again").symlink_to(birds.parent / "store")
    (birds / "emu" / "young").mkdir()
    picture(birds / "emu" / "young" / "chick.png")
    (birds / "emu" / "a_link").symlink_to("young")
    (birds / "auk").symlink_to(birds.parent / "store")
    files = find_images(["birds/emu"])[0]
    assert [os.path.relpath(file, "birds/emu") for file in files] == [
        *("0.png", "1.png", "2.png", "3.png"),
        "again/more.png",
        "young/chick.png",
    ]
    with pytest.raises(
        ValueError, match=r"emu/again/more\.png must .*the same file as .*auk/more\.png, by a link\. Remove"
    ):
        folder(birds)
    (birds / "auk").unlink()
    assert len(folder(birds).train) + len(folder(birds).test) == 10


def test_a_link_to_the_training_images_is_no_test(birds):
    os.renames(birds / "emu", birds / "train" / "emu")
    os.renames(birds / "wren", birds / "train" / "wren")
    (birds / "test").symlink_to("train")
    with pytest.raises(
        ValueError, match=r"either the training or the test images; given: the same file as .*, by a link"
    ):
        folder(birds)


def test_a_link_to_an_image_is_the_image(birds):
    (birds / "emu" / "0_first.png").symlink_to("0.png")
    assert [os.path.basename(file) for file in find_images(["birds/emu"])[0]] == [f"{n}.png" for n in range(4)]
    assert len(folder(birds).train) + len(folder(birds).test) == 8
    (birds / "wren" / "emu.png").symlink_to("../emu/0.png")
    with pytest.raises(ValueError, match=r"wren/emu\.png must .*the same file as .*emu/0\.png, by a link"):
        folder(birds)


def test_a_class_of_images_that_cannot_be_read_says_what_is_in_it(birds):
    (birds / "heron").mkdir()
    for number in range(3):
        (birds / "heron" / f"{number}.heic").touch()
    with pytest.raises(
        ValueError, match=r"heron must have an image; given: none(.|\n)*are left out: 3 \.heic; \.heic are images"
    ):
        folder(birds)


@pytest.mark.parametrize("target", [".", "..", "../..", "self"])
def test_loops_end_and_are_told(birds, target):
    (birds / "emu" / "self").symlink_to(target)
    (birds / "emu" / "deep").mkdir()
    (birds / "emu" / "deep" / "up").symlink_to("..")
    found = search_images(["birds/emu"])
    assert len(found.files) == 4
    assert "birds/emu/deep/up" in found.loops and "birds/emu/self" in (*found.loops, *found.dangling)
    assert "links to a folder that they lie in are not followed: " in found.notes()[-1]


def test_links_that_lead_nowhere_are_named(birds):
    (birds / "emu" / "camera").symlink_to("unmounted")
    (birds / "auk").symlink_to("unmounted")
    source = folder(birds)
    assert source.class_names == ("emu", "wren")
    assert source.notes == (f"links that lead nowhere are left out: {birds / 'auk'}, {birds / 'emu' / 'camera'}",)
    (birds / "emu" / "photo.jpg").symlink_to("unmounted.jpg")
    with pytest.raises(ValueError, match=r"1 of 9 images cannot be decoded; .*\n.*photo\.jpg: no such file"):
        folder(birds)


def test_predict_and_export_say_what_they_leave_out(birds, tmp_path, capsys):
    model = zoo.create_model("se_resnet8", classes=2, input_shape=(8, 8, 3))
    model.preprocessing = zoo.Preprocessing(image_size=(8, 8))
    model.save(tmp_path / "model.keras")
    (birds / "emu" / "a.heic").touch()
    write_run(birds / "runs")
    assert main(["predict", str(tmp_path / "model.keras"), "birds", "--json"]) == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["images"]) == 8
    for note in ("are left out: 1 .heic", "keras-apa wrote itself is left out: birds/runs"):
        assert note in captured.err
    from training.cli.export import _read_representative

    assert _read_representative(model, ["birds"]).shape == (8, 8, 8, 3)
    assert "keras-apa: --images: files without the ending" in capsys.readouterr().err


def test_long_lists_say_that_they_are_not_checked_and_skip_in_the_training(birds, tmp_path, monkeypatch):
    lines = [f"{name}/{number}.png {label}\n" for label, name in enumerate(("emu", "wren")) for number in range(4)]
    (tmp_path / "list.txt").write_text("".join(lines))
    (birds / "emu" / "1.png").write_bytes(b"")
    lists = dict.fromkeys(("train_list", "test_list"), str(tmp_path / "list.txt"))
    options = DataOptions(name="list", path=str(birds), on_corrupt="skip", **lists)
    checked = load_source(options)
    assert list(checked.class_counts) == [3, 4] and len(checked.test) == 7
    assert "1 of 8 images cannot be decoded and were skipped:\n" in checked.notes[0]
    monkeypatch.setattr("training.data.classification.registry._SHORT", 0)
    source = load_source(options)
    assert list(source.class_counts) == [4, 4]
    assert (
        "not checked before the training; one that cannot be decoded is named and is replaced by another"
        in source.notes[0]
    )
    assert np.asarray(source.train.load(1)).shape == (7, 9, 3) and list(source.failed) == [str(birds / "emu" / "1.png")]

"""Image files of every kind, written here and read back: pixels, sizes, crops, errors, and how files are found."""

import io
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from training.image_files import find_images
from training.images import read_image
from zoo import Preprocessing

# The runs of the suite on the other two backends leave these tests out.
pytestmark = pytest.mark.any_backend  # needs no backend

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def preparation(height, width, channels=3, **options):
    """Resizing only; mean and standard deviation play no part in reading."""
    return Preprocessing(
        image_size=(height, width), channels=channels, mean=(0,) * channels, std=(1,) * channels, **options
    )


def saved(path, image, **options):
    image.save(path, **options)
    return path


def as_it_is(path, channels=3):
    """The pixels of a file without any resizing."""
    with Image.open(path) as image:
        width, height = image.size
    return read_image(path, preparation(height, width, channels))


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), "uint8")


# Size and crop


def resampling_matrix(size, resized, kernel):
    """Weights `(resized, size)` of resampling with antialiasing: the kernel is as wide as an output pixel, at least."""
    scale = size / resized
    stretch = max(scale, 1.0)
    centers = (np.arange(resized) + 0.5) * scale
    weights = kernel((np.arange(size) + 0.5 - centers[:, None]) / stretch)
    return weights / weights.sum(axis=1, keepdims=True)


def triangle(x):
    return np.maximum(1 - abs(x), 0)


def cubic(x, a=-0.5):
    x = abs(x)
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def resized(pixels, height, width, interpolation):
    """Rows first, then columns; Pillow keeps only what fits in a byte after each."""
    kernel = {"bilinear": triangle, "bicubic": cubic}[interpolation]
    rows = np.einsum("Xx,yxc->yXc", resampling_matrix(pixels.shape[1], width, kernel), pixels).clip(0, 255)
    return np.einsum("Yy,yxc->Yxc", resampling_matrix(pixels.shape[0], height, kernel), rows).clip(0, 255)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    # The two last lie on both sides of the ratio from which only the crop's part of the image is resized.
    ("height", "width"),
    [(40, 57), (57, 40), (9, 9), (33, 24), (24, 31), (100, 24), (12, 192), (11, 192)],
)
def test_resize_and_crop_are_torchvisions(tmp_path, height, width, interpolation):
    pixels = noise(height, width)
    path = saved(tmp_path / "a.png", Image.fromarray(pixels))
    got = read_image(path, preparation(20, 21, resize_size=24, interpolation=interpolation))
    # torchvision.transforms.functional: _compute_resized_output_size and center_crop
    short, long = sorted((height, width))
    new_short, new_long = 24, int(24 * long / short)
    new_height, new_width = (new_short, new_long) if height <= width else (new_long, new_short)
    top, left = round((new_height - 20) / 2.0), round((new_width - 21) / 2.0)
    expected = resized(pixels, new_height, new_width, interpolation)[top : top + 20, left : left + 21]
    # Each of the two passes rounds to whole levels; bicubic weights, negative ones too, amplify the first by up to 1.3.
    assert got.shape == (20, 21, 3) and got.dtype == np.uint8
    assert abs(got - expected).max() <= 0.5 * (1 + 1.3) + 0.1


def test_crop_offset_of_a_half_goes_to_the_even_side(tmp_path):
    pixels = np.repeat(np.arange(24, dtype="uint8")[:, None, None], 24, axis=1).repeat(3, axis=2)
    path = saved(tmp_path / "a.png", Image.fromarray(pixels))
    # (24 - 21) / 2 = 1.5 and (24 - 23) / 2 = 0.5: Python's round, so 2 and 0
    assert read_image(path, preparation(21, 21, resize_size=24))[0, 0, 0] == 2
    assert read_image(path, preparation(23, 23, resize_size=24))[0, 0, 0] == 0


def test_without_resize_size_the_whole_image_is_stretched(tmp_path):
    pixels = noise(30, 50)
    path = saved(tmp_path / "a.png", Image.fromarray(pixels))
    got = read_image(path, preparation(16, 12))
    assert abs(got - resized(pixels, 16, 12, "bilinear")).max() <= 1.1


def test_an_image_of_the_right_size_is_not_touched(tmp_path):
    pixels = noise(16, 16)
    path = saved(tmp_path / "a.png", Image.fromarray(pixels))
    for resize_size in (None, 16):
        np.testing.assert_array_equal(read_image(path, preparation(16, 16, resize_size=resize_size)), pixels)


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1), (2, 3), (20000, 1)])
@pytest.mark.parametrize("resize_size", [None, 256])
def test_tiny_and_thin_images_work_in_little_memory(tmp_path, size, resize_size):
    path = saved(tmp_path / "a.png", Image.new("RGB", size, GREEN))
    tracemalloc.start()
    got = read_image(path, preparation(224, 200, resize_size=resize_size))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got.shape == (224, 200, 3) and (got == GREEN).all()
    assert peak < 20e6


# Colours


def test_grey_becomes_three_equal_channels_and_colours_their_luminance(tmp_path):
    grey = saved(tmp_path / "grey.png", Image.new("L", (4, 3), 77))
    assert (as_it_is(grey) == 77).all() and as_it_is(grey).shape == (3, 4, 3)
    assert (as_it_is(grey, channels=1) == 77).all() and as_it_is(grey, channels=1).shape == (3, 4, 1)
    pixels = noise(5, 6)
    path = saved(tmp_path / "colours.png", Image.fromarray(pixels))
    luminance = pixels @ [0.299, 0.587, 0.114]
    assert abs(as_it_is(path, channels=1)[..., 0] - luminance).max() <= 0.51


def test_one_bit_is_black_and_white(tmp_path):
    bits = np.array([[True, False, True]])
    path = saved(tmp_path / "a.png", Image.fromarray(bits))
    np.testing.assert_array_equal(as_it_is(path)[0], [WHITE, (0, 0, 0), WHITE])


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    values = np.array([[0, 128, 129, 255, 256, 257, 32896, 65406, 65407, 65535]], "uint16")
    path = saved(tmp_path / "a.png", Image.fromarray(values))
    for channels in (1, 3):
        np.testing.assert_array_equal(as_it_is(path, channels)[0, :, 0], [0, 0, 1, 1, 1, 1, 128, 254, 255, 255])


def png(width, height, bits, kind, rows=b""):
    """A PNG file of any header; rows begin with their filter byte."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bit_colours_and_alpha_are_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 65535, 32896, 0)))
    np.testing.assert_array_equal(as_it_is(path)[0, 0], (255, 128, 0))
    path.write_bytes(png(2, 1, 16, 4, b"\0" + struct.pack(">4H", 32896, 65535, 32896, 0)))
    np.testing.assert_array_equal(as_it_is(path)[0], [(128, 128, 128), WHITE])


def test_transparent_parts_become_white(tmp_path):
    for name, mode, colours in [
        ("rgba.png", "RGBA", [(*RED, 255), (*RED, 0), (*RED, 128)]),
        ("rgba.webp", "RGBA", [(*RED, 255), (*RED, 0), (*RED, 128)]),
        ("la.png", "LA", [(0, 255), (0, 0), (0, 128)]),
    ]:
        image = Image.new(mode, (3, 1))
        image.putdata(colours)
        path = saved(tmp_path / name, image, **({"lossless": True, "exact": True} if "webp" in name else {}))
        solid, clear, half = as_it_is(path)[0].tolist()
        first = [255, 0, 0] if mode == "RGBA" else [0, 0, 0]
        assert solid == first and clear == [255, 255, 255]
        # 128/255 of the colour and 127/255 of white
        assert half == [max(value, 127) for value in first]
    assert as_it_is(tmp_path / "rgba.png", channels=1)[0, 1, 0] == 255


def test_transparent_entries_of_a_palette_become_white(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    np.testing.assert_array_equal(as_it_is(saved(tmp_path / "a.png", image))[0], [RED, GREEN, BLUE])
    np.testing.assert_array_equal(as_it_is(saved(tmp_path / "a.gif", image))[0], [RED, GREEN, BLUE])
    np.testing.assert_array_equal(as_it_is(saved(tmp_path / "one.png", image, transparency=1))[0], [RED, WHITE, BLUE])
    np.testing.assert_array_equal(as_it_is(saved(tmp_path / "one.gif", image, transparency=1))[0], [RED, WHITE, BLUE])
    half = as_it_is(saved(tmp_path / "each.png", image, transparency=bytes([255, 0, 128])))[0]
    np.testing.assert_array_equal(half, [RED, WHITE, (127, 127, 255)])


@pytest.mark.parametrize(("mode", "colour"), [("L", 9), ("RGB", RED), ("I;16", 1000)])
def test_a_transparent_colour_of_a_png_becomes_white(tmp_path, mode, colour):
    image = Image.new(mode, (2, 1))
    image.putpixel((1, 0), colour)
    path = saved(tmp_path / "a.png", image, transparency=colour)
    np.testing.assert_array_equal(as_it_is(path)[0], [(0, 0, 0), WHITE])


def test_cmyk_jpeg_has_the_colours_of_the_picture(tmp_path):
    for colour in (RED, GREEN, BLUE, WHITE, (0, 0, 0), (90, 140, 200)):
        path = saved(tmp_path / "a.jpg", Image.new("RGB", (16, 16), colour).convert("CMYK"), quality=95)
        with Image.open(path) as image:
            assert image.mode == "CMYK"
        assert abs(as_it_is(path).astype(int) - colour).max() <= 3  # JPEG's quantisation


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "gif"])
def test_every_format_is_read(tmp_path, ending):
    path = saved(tmp_path / f"a.{ending}", Image.new("RGB", (16, 16), BLUE))
    assert abs(as_it_is(path).astype(int) - BLUE).max() <= 3


def test_the_first_picture_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    for ending, options in [("gif", {}), ("webp", {"lossless": True}), ("png", {})]:
        path = saved(tmp_path / f"a.{ending}", frames[0], save_all=True, append_images=frames[1:], **options)
        assert (as_it_is(path) == RED).all()


# Rotation

LETTER = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0]], "uint8") * 255
# How a camera stores an upright picture when it writes this orientation.
STORED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).T,
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_rotation_is_undone(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    big = np.kron(LETTER, np.ones((16, 16), "uint8"))
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](big)))
    for ending, options in [("jpg", {"quality": 95}), ("png", {}), ("webp", {"lossless": True})]:
        path = saved(tmp_path / f"a.{ending}", stored, exif=exif, **options)
        got = read_image(path, preparation(64, 48, channels=1))[..., 0]
        assert abs(got.astype(int) - big).max() <= 3


def test_exif_that_cannot_be_read_rotates_nothing(tmp_path):
    pixels = noise(8, 8)
    plain = as_it_is(saved(tmp_path / "plain.jpg", Image.fromarray(pixels)))
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02"):
        path = saved(tmp_path / "a.jpg", Image.fromarray(pixels), exif=exif)
        np.testing.assert_array_equal(read_image(path, preparation(8, 8)), plain)
    exif = Image.Exif()
    exif[0x0112] = 99
    path = saved(tmp_path / "b.jpg", Image.fromarray(pixels), exif=exif)
    np.testing.assert_array_equal(read_image(path, preparation(8, 8)), plain)


# What cannot be read


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "gif"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_a_truncated_file_is_an_error_with_its_name(tmp_path, ending, part):
    stream = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(stream, {"jpg": "jpeg"}.get(ending, ending))
    path = tmp_path / f"cut.{ending}"
    path.write_bytes(stream.getvalue()[: int(part * len(stream.getvalue()))])
    with pytest.raises(ValueError, match=rf"cut\.{ending}: ") as error:
        read_image(path, preparation(16, 16))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"not an image", "not an image.*JPEG, PNG, WEBP, BMP, DIB, GIF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "not an image|cannot be read"),
        (png(1, 1, 16, 2, b"\0\0"), "cannot be read"),
    ],
)
def test_a_broken_file_is_an_error_with_its_name(tmp_path, content, reason):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"broken\.png: ({reason})"):
        read_image(path, preparation(16, 16))


def test_a_missing_file_and_a_folder_are_errors_with_their_names(tmp_path):
    with pytest.raises(ValueError, match=r"none\.png: no such file"):
        read_image(tmp_path / "none.png", preparation(16, 16))
    with pytest.raises(ValueError, match=rf"{tmp_path.name}: is a directory"):
        read_image(tmp_path, preparation(16, 16))


# One is above the number of pixels from which Pillow warns, the other above that from which it refuses.
@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_an_error_before_it_is_decoded(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, 8, 2))
    with pytest.raises(ValueError, match=rf"bomb\.png: more pixels than the {Image.MAX_IMAGE_PIXELS}"):
        read_image(path, preparation(16, 16))


# Finding files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("b.png", "a.JPG", "notes.txt", "sub/d.webp", "sub/c.gif", ".hidden.png", ".cache/e.png", "[x].png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)


def test_a_folder_stands_for_the_images_below_it(folder):
    expected = ["photos/[x].png", "photos/a.JPG", "photos/b.png", "photos/sub/c.gif", "photos/sub/d.webp"]
    assert find_images(["photos"]) == (expected, {})


def test_a_file_is_taken_whatever_its_ending_and_only_once(folder):
    names = ["photos/notes.txt", "photos/b.png", "photos/[x].png", "photos/.hidden.png"]
    assert find_images([*names, *names]) == (names, {})


def test_patterns_are_expanded_in_sorted_order(folder):
    assert find_images(["photos/*.png"]) == (["photos/[x].png", "photos/b.png"], {})
    assert find_images(["photos/**/*.gif", "photos/s*"]) == (["photos/sub/c.gif", "photos/sub/d.webp"], {})


def test_what_matches_nothing_is_reported_with_its_reason(folder):
    found, missing = find_images(["nothing.png", "photos/b.png", "photos/*.bmp", "empty"])
    assert found == ["photos/b.png"]
    assert list(missing) == ["nothing.png", "photos/*.bmp", "empty"]
    assert missing["nothing.png"] == missing["photos/*.bmp"] == "no such file, folder or pattern"
    assert "no image below it" in missing["empty"] and ".webp" in missing["empty"]


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="no regular file"):
        read_image(tmp_path / "pipe.png", Preprocessing(image_size=(8, 8)))

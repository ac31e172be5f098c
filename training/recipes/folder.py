"""Your own images: a folder with one folder of images for each class; the classes may differ in size.

This recipe trains a network with APA* gates and AGLU, with Balanced Softmax. It chooses the network and the settings by
your training images, prints its choice and keeps it in the run folder. It never changes an option that you give:

    images    shorter side, median    network        pixels    batch    epochs    learning rate
    < 5,000   up to 64                se_resnet20    32        64       200       0.1
    >= 5,000  up to 64                se_resnet32    32        128      200       0.1
    < 5,000   above 64                se_resnet18    128       32       120       0.05
    >= 5,000  above 64                se_resnet50    224       32       90        0.05

A batch is at most a quarter of an epoch. With `--start.weights`, the recipe takes the network of the weights if they
name it (published weights, a run folder), and trains for 30 epochs with the learning rate 0.01. A fifth of each class
is kept for testing, unless the folder has `train` and `test` (or `val`) folders. Names such as `Training`, `seg_test`
and `VALID` count, too.
Images are JPEG, PNG, WebP, BMP, GIF, TIFF (the first picture), PPM, JPEG 2000 or AVIF. Links are followed. The command
tells you what it leaves out: other files, unlabelled images, and its own output, such as `runs`.
Cost: 10,000 images in 224 pixels take about a million forward and backward passes, so you need a GPU.

    keras-apa train folder --data.path DIR
    keras-apa train folder --data.path DIR --dry-run      # counts, memory, steps
    keras-apa train folder --data.path DIR --start.weights se_resnet50/imagenet
"""

from training.config.classification import AugmentOptions, DataOptions, LossOptions, ModelOptions, Recipe
from training.config.experiment import OptimizerOptions

# The values of the table's last line; `training/classification/own_images.py` has the others.
recipe = Recipe(
    name="folder",
    title="APA* + AGLU, Balanced Softmax",
    published="your own images",
    data=DataOptions(name="folder", image_size=224),
    augment=AugmentOptions(crop="resized", flip=True),
    model=ModelOptions(name="se_resnet50", activation="aglu", gate="apa"),
    loss=LossOptions(name="BalancedSoftmaxCrossentropy"),
    optimizer=OptimizerOptions(learning_rate=0.05, weight_decay=1e-4, warmup_epochs=0.5, clip_norm=5.0),
    epochs=90,
    batch_size=32,
)

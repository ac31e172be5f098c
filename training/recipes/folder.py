"""Your own images: a folder with a folder of images for each class, however many of each.

What is trained: SE-ResNet-50 with APA* gates and AGLU, from scratch, with Balanced Softmax, on images of 224 pixels.
For a few hundred images of simple things take `--model.name se_resnet20 --data.image-size 32`; with a network that has
seen ImageNet, `--start.weights se_resnet50/imagenet --optimizer.learning-rate 0.01`. A fifth of each class is kept for
testing, unless the folder has `train` and `test` (or `val`) folders.
Cost: 90 epochs; 10,000 images take about a million forward and backward passes, which want a GPU at this size.

    keras-apa train folder --data.path DIR
    keras-apa train folder --data.path DIR --dry-run      # counts, memory, steps
"""

from training.recipe import AugmentOptions, DataOptions, LossOptions, ModelOptions, OptimizerOptions, Recipe

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

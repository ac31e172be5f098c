"""SE-ResNet-32 with APA* and AGLU on CIFAR-10-LT, imbalance 100; PC-softmax at inference.

The authors' code supports this data set, but the paper has no number for it. The settings are those of `cifar100_lt`.
Cost: 500 epochs of 25 steps at batch 512. Not run here: the data set cannot be fetched.

    keras-apa train cifar10_lt --data.imbalance-factor 10
"""

from training.recipes import cifar100_lt

recipe = cifar100_lt.recipe.replace(name="cifar10_lt", published="no published number", data={"name": "cifar10_lt"})

"""ResNets for small images: three stages of basic blocks, 16, 32 and 64 channels, shortcut without parameters.

`resnet8` to `resnet56`, plain and with a gate in every block (`se_`, `cb_`, `sp_`), built by `zoo/resnet.py`.
"""

from keras_apa.layers.attention import KAIMING_NORMAL
from zoo.resnet import Architecture, with_attentions

DEPTHS = (8, 14, 20, 32, 44, 56)

CIFAR_RESNETS = with_attentions(
    {
        f"resnet{depth}": Architecture(
            bottleneck=False,
            depths=((depth - 2) // 6,) * 3,
            filters=(16, 32, 64),
            stem="cifar",
            shortcut="pad",
            reduction_ratio=4,
            classes=100,
            image_size=32,
            initializer=KAIMING_NORMAL,
            dense_initializer=KAIMING_NORMAL,
        )
        for depth in DEPTHS
    }
)

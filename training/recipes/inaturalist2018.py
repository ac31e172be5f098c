"""SE-ResNet-50 with APA* and AGLU on iNaturalist 2018 (8142 classes).

Paper: Adaptive Parametric Activation, Table 3a: 74.8 % top-1 (SE baseline 71.3, APA* 72.3).
Cost: 500 epochs on four V100, 4 x 256 images; hours not stated. Not run here. The authors' sampler repeats each image
four times. So one of their epochs is a quarter of the data, which four GPUs see in four augmentations; here the four
copies are in one batch. The README asks for a prior correction at inference but does not say which. The authors'
command trains and evaluates without one, and so does this recipe. To add one: `keras-apa evaluate RUN
--evaluation.prior-correction raw`. The training crop is 192, as in the README's command (first code: 176).

    keras-apa train inaturalist2018 --data.path FOLDER --data.train-list train2018.json --data.test-list val2018.json
"""

from training.config.classification import AugmentOptions, DataOptions, EvaluationOptions, ModelOptions, Recipe
from training.config.experiment import OptimizerOptions

recipe = Recipe(
    name="inaturalist2018",
    title="APA* + AGLU",
    published="APA Table 3a: 74.8",
    data=DataOptions(
        name="inaturalist2018",
        image_size=192,
        test_image_size=224,
        resize_size=232,
        relabel_by_count=True,
        sampler="repeated",
        repeats=4,
    ),
    augment=AugmentOptions(
        crop="resized",
        flip=True,
        policy="randaugment",
        policy_interpolation="bilinear",
        erase_probability=0.1,
        mixup_alpha=0.2,
        cutmix_alpha=1.0,
        label_smoothing=0.1,
    ),
    model=ModelOptions(name="se_resnet50", activation="aglu", gate="apa", classifier="cosine", lambda_gradient="paper"),
    optimizer=OptimizerOptions(
        learning_rate=0.5,
        momentum=0.9,
        weight_decay=1e-4,
        decay_norms=False,
        schedule="epoch_cosine",
        warmup_epochs=5,
    ),
    evaluation=EvaluationOptions(batch_size=100),
    epochs=500,
    batch_size=1024,
)

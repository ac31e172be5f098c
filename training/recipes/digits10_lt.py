"""SE-ResNet-8 on the embedded single digits (10 classes, 16x16 pixels), imbalance 100: to try things out.

As in `digits100_lt`, `recipe` has APA* gates, AGLU and Balanced Softmax; `baseline` is the plain network with
cross entropy. A training takes seconds; three of the ten classes are few-shot.
"""

from training.recipes import digits100_lt

baseline = digits100_lt.baseline.replace(name="digits10_lt_baseline", data={"name": "digits10_lt"})
recipe = digits100_lt.recipe.replace(name="digits10_lt", data={"name": "digits10_lt"})

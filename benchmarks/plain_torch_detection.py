"""Mask R-CNN ResNet-50-FPN in plain PyTorch, without Keras and torchvision: what `zoo.MaskRCNN` is timed against.

The keys of the state dict, the numbers and the losses are those of torchvision's `maskrcnn_resnet50_fpn`, so that the
weights of a detector of the zoo go into it:

    network = MaskRCNN(classes=91)
    load_arrays(network, zoo.detection.to_torchvision(detector))

It is written as one would write it for speed without compiled operators: ROIAlign is `grid_sample` on four points a
bin, suppression a table of overlaps that is walked through once.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ANCHOR_SIZES, ANCHOR_RATIOS = (32, 64, 128, 256, 512), (0.5, 1.0, 2.0)
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
UNIT_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
MAX_LOG_SCALE = math.log(1000 / 16)
BETA = 1 / 9
STRIDES = (4, 8, 16, 32)


class FrozenBatchNorm(nn.Module):
    """Batch normalisation whose four vectors never change."""

    def __init__(self, channels, epsilon=1e-5):
        super().__init__()
        self.epsilon = epsilon
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(channels))

    def forward(self, x):
        scale = self.weight * (self.running_var + self.epsilon).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1 to four times the width."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = FrozenBatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = FrozenBatchNorm(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = FrozenBatchNorm(4 * width)
        self.downsample = None
        if stride != 1 or channels != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False), FrozenBatchNorm(4 * width)
            )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu_(self.bn1(self.conv1(x)))
        x = F.relu_(self.bn2(self.conv2(x)))
        return F.relu_(self.bn3(self.conv3(x)) + shortcut)


class ResNet50(nn.Module):
    """The four stages of a ResNet-50; stem and first stage are not trained."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = FrozenBatchNorm(64)
        channels = 64
        for stage, (width, depth) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True), start=1):
            blocks = []
            for block in range(depth):
                blocks.append(Bottleneck(channels, width, 2 if stage > 1 and block == 0 else 1))
                channels = 4 * width
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        for part in (self.conv1, self.layer1):
            part.requires_grad_(False)

    def forward(self, x):
        x = F.max_pool2d(F.relu_(self.bn1(self.conv1(x))), 3, 2, padding=1)
        stages = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            stages.append(x)
        return stages


class Backbone(nn.Module):
    """ResNet-50 with a feature pyramid."""

    def __init__(self):
        super().__init__()
        self.body = ResNet50()
        self.fpn = nn.Module()
        self.fpn.inner_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(256 * 2**i, 256, 1)) for i in range(4))
        self.fpn.layer_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(256, 256, 3, padding=1)) for _ in range(4))

    def forward(self, images):
        merged = [block(x) for block, x in zip(self.fpn.inner_blocks, self.body(images), strict=True)]
        for level in (2, 1, 0):
            merged[level] = merged[level] + F.interpolate(merged[level + 1], size=merged[level].shape[-2:])
        maps = [block(x) for block, x in zip(self.fpn.layer_blocks, merged, strict=True)]
        return [*maps, F.max_pool2d(maps[-1], 1, 2)]


class ProposalHead(nn.Module):
    """Objectness and deltas of every anchor, in the order level, y, x, ratio."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Sequential(nn.Conv2d(256, 256, 3, padding=1)))
        self.cls_logits = nn.Conv2d(256, len(ANCHOR_RATIOS), 1)
        self.bbox_pred = nn.Conv2d(256, 4 * len(ANCHOR_RATIOS), 1)

    def forward(self, maps):
        logits, deltas = [], []
        for x in maps:
            x = F.relu_(self.conv(x))
            logits.append(self.cls_logits(x).permute(0, 2, 3, 1).reshape(len(x), -1))
            deltas.append(self.bbox_pred(x).permute(0, 2, 3, 1).reshape(len(x), -1, 4))
        return logits, deltas


class RegionHeads(nn.Module):
    """Class and box of a region, and its mask."""

    def __init__(self, classes):
        super().__init__()
        self.box_head = nn.Module()
        self.box_head.fc6, self.box_head.fc7 = nn.Linear(256 * 49, 1024), nn.Linear(1024, 1024)
        self.box_predictor = nn.Module()
        self.box_predictor.cls_score = nn.Linear(1024, classes)
        self.box_predictor.bbox_pred = nn.Linear(1024, 4 * classes)
        self.mask_head = nn.Sequential(*(nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()) for _ in range(4)))
        self.mask_predictor = nn.Module()
        self.mask_predictor.conv5_mask = nn.ConvTranspose2d(256, 256, 2, 2)
        self.mask_predictor.mask_fcn_logits = nn.Conv2d(256, classes, 1)

    def boxes(self, features):
        """Class logits and deltas of regions `(N, 256, 7, 7)`."""
        x = F.relu_(self.box_head.fc7(F.relu_(self.box_head.fc6(features.flatten(1)))))
        return self.box_predictor.cls_score(x), self.box_predictor.bbox_pred(x)

    def masks(self, features):
        """The maps of all classes of regions `(N, 256, 14, 14)`."""
        x = F.relu_(self.mask_predictor.conv5_mask(self.mask_head(features)))
        return self.mask_predictor.mask_fcn_logits(x)


class MaskRCNN(nn.Module):
    """Mask R-CNN ResNet-50-FPN: images to detections, or with targets to losses.

    Args:
        classes: Number of classes, the background (0) included.
        permutation: How `n` candidates are shuffled before the first of them are sampled.
    """

    def __init__(self, classes=91, permutation=torch.randperm):
        super().__init__()
        self.permutation = permutation
        self.backbone = Backbone()
        self.rpn = nn.Module()
        self.rpn.head = ProposalHead()
        self.roi_heads = RegionHeads(classes)

    def forward(self, images, targets=None):
        """Losses by name, or detections.

        Args:
            images: Pixels 0 to 255, `(batch, 3, height, width)`.
            targets: A list with a dict an image: `boxes` `(n, 4)`, `labels` `(n,)` from 1 and `masks`
                `(n, height, width)`.
        """
        size = images.shape[-2:]
        x = self._normalize(images)
        maps = self.backbone(x)
        logits, deltas = self.rpn.head(maps)
        anchors = make_anchors(x.shape[-2:], [m.shape[-2:] for m in maps])
        number = 2000 if targets is not None else 1000
        with torch.no_grad():
            proposals = [
                select_proposals([v[i] for v in logits], [v[i] for v in deltas], anchors, size, number)
                for i in range(len(images))
            ]
        if targets is None:
            return [self._detect([m[i : i + 1] for m in maps], boxes, size) for i, boxes in enumerate(proposals)]
        return {
            **self._proposal_losses(torch.cat(logits, 1), torch.cat(deltas, 1), torch.cat(anchors), targets),
            **self._region_losses(maps, proposals, targets),
        }

    @staticmethod
    def _normalize(images):
        mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
        x = (images.float() / 255 - mean) / std
        height, width = x.shape[-2:]
        return F.pad(x, (0, -width % 32, 0, -height % 32))

    def _proposal_losses(self, logits, deltas, anchors, targets):
        sampled, positives, wanted = [], [], []
        for i, target in enumerate(targets):
            matches = match(iou(target["boxes"], anchors), 0.7, 0.3, low_quality=True)
            positive, negative = self._sample(matches, 256, 0.5)
            sampled.append(torch.cat([positive, negative]) + i * len(anchors))
            positives.append(positive + i * len(anchors))
            wanted.append(encode(target["boxes"][matches[positive]], anchors[positive]))
        sampled, positives = torch.cat(sampled), torch.cat(positives)
        truth = torch.zeros(logits.numel())
        truth[positives] = 1.0
        boxes = F.smooth_l1_loss(deltas.reshape(-1, 4)[positives], torch.cat(wanted), beta=BETA, reduction="sum")
        return {
            "loss_objectness": F.binary_cross_entropy_with_logits(logits.reshape(-1)[sampled], truth[sampled]),
            "loss_rpn_box_reg": boxes / len(sampled),
        }

    def _region_losses(self, maps, proposals, targets):
        regions, labels, objects, positives = [], [], [], []
        for boxes, target in zip(proposals, targets, strict=True):
            boxes = torch.cat([boxes, target["boxes"]])
            matches = match(iou(target["boxes"], boxes), 0.5, 0.5)
            positive, negative = self._sample(matches, 512, 0.25)
            chosen = torch.cat([positive, negative])
            regions.append(boxes[chosen])
            objects.append(matches[chosen].clamp(min=0))
            labels.append(torch.where(matches[chosen] >= 0, target["labels"][objects[-1]], 0))
            positives.append(len(positive))
        logits, deltas = self.roi_heads.boxes(region_features(maps, regions, 7))
        all_labels = torch.cat(labels)
        foreground = torch.where(all_labels > 0)[0]
        wanted = torch.cat(
            [
                encode(target["boxes"][index[:n]], boxes[:n], BOX_WEIGHTS)
                for target, index, boxes, n in zip(targets, objects, regions, positives, strict=True)
            ]
        )
        chosen = deltas.reshape(len(deltas), -1, 4)[foreground, all_labels[foreground]]
        with torch.no_grad():
            masks = torch.cat(
                [
                    crop_masks(target["masks"], index[:n], boxes[:n])
                    for target, index, boxes, n in zip(targets, objects, regions, positives, strict=True)
                ]
            )
        maps_of = self.roi_heads.masks(
            region_features(maps, [boxes[:n] for boxes, n in zip(regions, positives, strict=True)], 14)
        )
        own = maps_of[torch.arange(len(masks)), all_labels[foreground]]
        return {
            "loss_classifier": F.cross_entropy(logits, all_labels),
            "loss_box_reg": F.smooth_l1_loss(chosen, wanted, beta=BETA, reduction="sum") / len(all_labels),
            "loss_mask": F.binary_cross_entropy_with_logits(own, masks) if len(masks) else maps_of.sum() * 0,
        }

    def _sample(self, matches, number, fraction):
        positive, negative = torch.where(matches >= 0)[0], torch.where(matches == -1)[0]
        positive = positive[self.permutation(len(positive))[: int(number * fraction)]]
        negative = negative[self.permutation(len(negative))[: number - len(positive)]]
        return positive, negative

    def _detect(self, maps, proposals, size):
        logits, deltas = self.roi_heads.boxes(region_features(maps, [proposals], 7))
        scores = logits.softmax(-1)[:, 1:]
        boxes = decode(deltas.reshape(len(proposals), -1, 4)[:, 1:], proposals[:, None], BOX_WEIGHTS)
        boxes = clip(boxes, size).reshape(-1, 4)
        labels = torch.arange(1, scores.shape[1] + 1).expand_as(scores).reshape(-1)
        scores = scores.reshape(-1)
        kept = torch.where((scores > 0.05) & large_enough(boxes, 1e-2))[0]
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        kept = torch.zeros(len(boxes), dtype=torch.bool)
        for label in labels.unique():
            own = torch.where(labels == label)[0]
            kept[own[suppress(boxes[own], scores[own], 0.5)]] = True
        kept = torch.where(kept)[0]
        kept = kept[scores[kept].sort(descending=True, stable=True).indices[:100]]
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        maps_of = self.roi_heads.masks(region_features(maps, [boxes], 14))
        masks = maps_of[torch.arange(len(boxes)), labels].sigmoid()
        return {"boxes": boxes, "scores": scores, "labels": labels, "masks": masks}


def make_anchors(size, grids):
    """The anchors of every level, `(height * width * ratios, 4)`."""
    levels = []
    for side, (height, width) in zip(ANCHOR_SIZES, grids, strict=True):
        root = torch.tensor(ANCHOR_RATIOS).sqrt()
        w, h = side / root, side * root
        cell = (torch.stack([-w, -h, w, h], 1) / 2).round()
        y = torch.arange(height, dtype=torch.float32) * (size[0] // height)
        x = torch.arange(width, dtype=torch.float32) * (size[1] // width)
        y, x = torch.meshgrid(y, x, indexing="ij")
        levels.append((torch.stack([x, y, x, y], -1).reshape(-1, 1, 4) + cell).reshape(-1, 4))
    return levels


def select_proposals(logits, deltas, anchors, size, number):
    """The best boxes of one image: `number` a level before suppression, and as many of all levels after it."""
    all_boxes, all_scores = [], []
    for level_logits, level_deltas, level_anchors in zip(logits, deltas, anchors, strict=True):
        top, index = level_logits.topk(min(number, len(level_logits)))
        boxes = clip(decode(level_deltas[index], level_anchors[index]), size)
        fine = torch.where(large_enough(boxes, 1e-3))[0]
        boxes, scores = boxes[fine], top[fine].sigmoid()
        kept = suppress(boxes, scores, 0.7)
        all_boxes.append(boxes[kept])
        all_scores.append(scores[kept])
    boxes, scores = torch.cat(all_boxes), torch.cat(all_scores)
    return boxes[scores.sort(descending=True, stable=True).indices[:number]]


def suppress(boxes, scores, threshold):
    """Indices of the boxes that greedy suppression keeps, best first."""
    order = scores.sort(descending=True, stable=True).indices
    boxes = boxes[order]
    overlap = (iou(boxes, boxes) > threshold).numpy()
    kept = np.ones(len(boxes), bool)
    for i in range(len(boxes)):
        if kept[i]:
            kept[i + 1 :] &= ~overlap[i, i + 1 :]
    return order[torch.from_numpy(kept)]


def match(quality, high, low, low_quality=False):
    """For every candidate its object, -1 for background, -2 for neither."""
    if not len(quality):
        return torch.full(quality.shape[1:], -1)
    best, owner = quality.max(0)
    matches = owner.clone()
    matches[best < high] = -2
    matches[best < low] = -1
    if low_quality:
        claimed = torch.where(quality == quality.max(1, keepdim=True).values)[1]
        matches[claimed] = owner[claimed]
    return matches


def iou(a, b):
    """Intersection over union of every pair, `(len(a), len(b))`."""
    corner = torch.max(a[:, None, :2], b[:, :2])
    sides = (torch.min(a[:, None, 2:], b[:, 2:]) - corner).clamp(min=0)
    inter = sides[..., 0] * sides[..., 1]
    areas = [(x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, b)]
    return inter / (areas[0][:, None] + areas[1] - inter)


def encode(boxes, references, weights=UNIT_WEIGHTS):
    """Deltas from references to boxes."""
    w, h = references[:, 2] - references[:, 0], references[:, 3] - references[:, 1]
    x, y = references[:, 0] + 0.5 * w, references[:, 1] + 0.5 * h
    own_w, own_h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    own_x, own_y = boxes[:, 0] + 0.5 * own_w, boxes[:, 1] + 0.5 * own_h
    parts = (own_x - x) / w, (own_y - y) / h, (own_w / w).log(), (own_h / h).log()
    return torch.stack(parts, 1) * torch.tensor(weights)


def decode(deltas, references, weights=UNIT_WEIGHTS):
    """Boxes from deltas."""
    w, h = references[..., 2] - references[..., 0], references[..., 3] - references[..., 1]
    x, y = references[..., 0] + 0.5 * w, references[..., 1] + 0.5 * h
    dx, dy, dw, dh = (deltas / torch.tensor(weights)).unbind(-1)
    x, y = dx * w + x, dy * h + y
    half_w, half_h = 0.5 * dw.clamp(max=MAX_LOG_SCALE).exp() * w, 0.5 * dh.clamp(max=MAX_LOG_SCALE).exp() * h
    return torch.stack([x - half_w, y - half_h, x + half_w, y + half_h], -1)


def clip(boxes, size):
    """Boxes cut off at the border of the image."""
    height, width = size
    return torch.stack([boxes[..., i].clamp(0, (width, height)[i % 2]) for i in range(4)], -1)


def large_enough(boxes, size):
    """Whether both sides have at least `size` pixels."""
    return (boxes[:, 2] - boxes[:, 0] >= size) & (boxes[:, 3] - boxes[:, 1] >= size)


def region_features(maps, boxes, size):
    """ROIAlign of the boxes of each image on the level of their size, `(all boxes, 256, size, size)`."""
    features = maps[0].new_zeros(sum(map(len, boxes)), maps[0].shape[1], size, size)
    image = torch.cat([torch.full((len(b),), i) for i, b in enumerate(boxes)])
    boxes = torch.cat(boxes)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    level = (4 + torch.log2(area.sqrt() / 224) + 1e-6).floor().clamp(2, 5) - 2
    for i, stride in enumerate(STRIDES):
        for n in range(len(maps[i])):
            own = torch.where((level == i) & (image == n))[0]
            if len(own):
                features = features.index_put((own,), align(maps[i][n], boxes[own] / stride, size))
    return features


def align(features, boxes, size):
    """ROIAlign with two samples a bin on each axis, of boxes in pixels of the map `(channels, height, width)`."""
    x = _samples(boxes[:, 0], boxes[:, 2], 2 * size)
    y = _samples(boxes[:, 1], boxes[:, 3], 2 * size)
    points = F.avg_pool2d(_interpolate(features[None], y, x), 2)
    return points[0].unflatten(1, (len(boxes), size)).transpose(0, 1)


def _interpolate(features, y, x):
    """Values at every pair of positions `(n, rows)` and `(n, columns)`, `(1, channels, n * rows, columns)`.

    All boxes of the image in one call: their samples stand below each other.
    """
    height, width = features.shape[-2:]
    rows, columns = y.shape[1], x.shape[1]
    grid_x = (2 * x / (width - 1) - 1)[:, None, :].expand(-1, rows, -1)
    grid_y = (2 * y / (height - 1) - 1)[:, :, None].expand(-1, -1, columns)
    grid = torch.stack([grid_x, grid_y], -1).reshape(1, -1, columns, 2)
    points = F.grid_sample(features, grid, padding_mode="border", align_corners=True)
    # Up to a pixel beyond the border it is the border's value, further away nothing.
    inside = (y <= height)[:, :, None] & (x <= width)[:, None, :]
    return points if inside.all() else points * inside.reshape(1, 1, -1, columns)


def _samples(low, high, number):
    """Positions of `number` samples, evenly spread over regions of at least one pixel."""
    side = (high - low).clamp(min=1.0)
    return low[:, None] + (torch.arange(number) + 0.5) * (side / number)[:, None]


def crop_masks(masks, index, boxes):
    """The mask of each box's object, resampled to 28 x 28: ROIAlign with at least one sample a pixel."""
    cropped = torch.zeros(len(boxes), 28, 28)
    for i, (which, box) in enumerate(zip(index, boxes, strict=True)):
        mask = masks[which].to(box.dtype)[None, None]
        x1, y1, x2, y2 = box.tolist()
        counts = [math.ceil(max(side, 1.0) / 28) for side in (y2 - y1, x2 - x1)]
        y = _samples(box[1:2], box[3:4], 28 * counts[0])
        x = _samples(box[0:1], box[2:3], 28 * counts[1])
        points = _interpolate(mask, y, x)
        cropped[i] = F.avg_pool2d(points, counts)[0, 0]
    return cropped


def load_arrays(network, arrays):
    """Load a state dict of numpy arrays, every key of it and no other."""
    network.load_state_dict({key: torch.from_numpy(np.ascontiguousarray(x)) for key, x in arrays.items()}, strict=True)

"""Labelled images: sources, input pipeline, samplers and augmentation."""

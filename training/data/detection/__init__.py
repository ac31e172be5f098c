"""Images with annotated objects: sources, input pipeline, masks and samplers."""

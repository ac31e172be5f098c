"""Models written for servers and devices; `zoo.export` and `zoo.detection.export` choose what is written."""

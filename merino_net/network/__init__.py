"""The network itself: modules, configuration, counts, scores, pretrained weights."""

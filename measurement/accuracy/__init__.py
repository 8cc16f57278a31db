"""Accuracy of backbones and exits: supernet, exit training, evaluation."""

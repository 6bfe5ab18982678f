"""ConSE: a classifier's picture in the space of a sentence encoder, without training.

Norouzi et al. 2014, "Zero-Shot Learning by Convex Combination of Semantic Embeddings": the average of the sentence
vectors of the ten likeliest classes, weighted by their probabilities. Good on photographs of what ImageNet names,
poor on drawings, plots and screenshots.
"""

from __future__ import annotations

import functools

import numpy as np

from stages.encoders import efficientnet
from stages.encoders.availability import conse_hash
from stages.encoders.protocol import Encoder, Floats, Tower

NAME = "conse"
TOP = 10  # the paper's T
# Its own, so that the classes' vectors do not change with the spec's.
BATCH_SIZE = 50
TEMPLATE = "a photo of a {}"


def class_names() -> list[str]:
    """The 1,000 ImageNet classes in the order of the network's outputs, in open_clip's curated English."""
    from open_clip import IMAGENET_CLASSNAMES

    return list(IMAGENET_CLASSNAMES)


@functools.cache
def class_vectors(sentences: Encoder) -> Floats:
    """Sentence vectors of the classes, (1000, dimension)."""
    return sentences.encode([TEMPLATE.format(name) for name in class_names()])


def image_encoder(tower: Tower, sentences: Encoder) -> Encoder:
    """Pictures into the space of `sentences`."""
    last = efficientnet.classifier()

    def project(features: Floats) -> Floats:
        logits = features @ last.weight.T + last.bias
        # Ties by class number: a stable sort of the negated logits.
        top = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
        likely = np.exp(np.take_along_axis(logits, top, axis=1) - logits.max(axis=1, keepdims=True))
        found: Floats = np.einsum("nt,ntd->nd", likely, class_vectors(sentences)[top])
        return found

    return Encoder(NAME, sentences.dimension, "image", tower, conse_hash(tower.weights, sentences.weights), project)

"""Distances between images by loops over pairs and pixels, in float64."""

import math


def distance(a: list[float], b: list[float]) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def mean_pairwise_distance(images: list[list[float]]) -> float:
    pairs = [(i, j) for i in range(len(images)) for j in range(len(images)) if i != j]
    return sum(distance(images[i], images[j]) for i, j in pairs) / len(pairs)


def diversity_ratio(
    generated: list[list[float]], generated_labels: list[int], real: list[list[float]], real_labels: list[int]
) -> float:
    classes = sorted(set(generated_labels))
    averages = []
    for images, labels in ((generated, generated_labels), (real, real_labels)):
        per_class = [
            mean_pairwise_distance([image for image, label in zip(images, labels, strict=True) if label == c])
            for c in classes
        ]
        averages.append(sum(per_class) / len(classes))
    return averages[0] / averages[1]


def novelty_ratio(generated: list[list[float]], training: list[list[float]], held_out: list[list[float]]) -> float:
    def mean_nearest(images: list[list[float]]) -> float:
        return sum(min(distance(image, other) for other in training) for image in images) / len(images)

    return mean_nearest(generated) / mean_nearest(held_out)


def leave_one_out_novelty_ratio(generated: list[list[float]], training: list[list[float]]) -> float:
    nearest_other = [
        min(distance(image, other) for j, other in enumerate(training) if j != i) for i, image in enumerate(training)
    ]
    baseline = sum(nearest_other) / len(nearest_other)
    return sum(min(distance(image, other) for other in training) for image in generated) / len(generated) / baseline

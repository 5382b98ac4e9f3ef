"""Losses as the papers write them: one sample at a time, in float64 Python numbers."""


def hinge_discriminator_loss(real: list[float], fake: list[float], margin: float) -> float:
    on_real = sum(max(0.0, margin - value) for value in real) / len(real)
    on_fake = sum(max(0.0, margin + value) for value in fake) / len(fake)
    return on_real + on_fake


def hinge_generator_loss(fake: list[float]) -> float:
    return -sum(fake) / len(fake)

"""recipes.studies.latents with a preset whose steps take milliseconds; also run as a command of its own, to be killed.

The worker processes import this module again and so have the preset too. TINY_DATA names the images.
"""

import os

from recipes import biggan_deep
from recipes.studies import latents


def tiny() -> biggan_deep.Config:
    return biggan_deep.Config(
        data=f"npz:{os.environ['TINY_DATA']}",
        resolution=16,
        num_classes=3,
        channels=8,
        latent_dim=6,
        embedding_dim=5,
        generator_widths=(1, 1, 1),
        discriminator_widths=(1, 1, 1),
        batch_size=8,
        standing_batches=2,
        ema_start=2,
    )


if __name__ in ("__main__", "__mp_main__"):
    biggan_deep.PRESETS["tiny"] = tiny

if __name__ == "__main__":
    raise SystemExit(latents.main())

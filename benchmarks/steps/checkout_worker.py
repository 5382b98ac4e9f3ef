"""The process of ``benchmarks.steps.checkouts``: trains with whatever checkout is first in its path.

It is run as a file and imports nothing beside that checkout and torch. Of each line that it reads, a number of steps,
it prints the seconds of each as JSON. It knows the engine's places today and those before it was part of the library.
"""

import importlib
import json
import sys
import time
from typing import Any

import torch

NOW = {
    "BatchSource": "gan_blocks.engine.recipe.batches",
    "PixelLayout": "gan_blocks.engine.data.pixels",
    "ImageSet": "gan_blocks.engine.data.image_set",
    "RunOptions": "gan_blocks.engine.recipe.options",
    "build_state": "gan_blocks.engine.recipe.build",
}
BEFORE = {
    "BatchSource": "recipes._engine.batches",
    "PixelLayout": "recipes._engine.image_files",
    "ImageSet": "recipes._engine.image_set",
    "RunOptions": "recipes._engine.options",
    "build_state": "recipes._engine.state",
}


def main() -> None:
    """Take steps until there are no more lines."""
    recipe_name, preset, words = sys.argv[1:]
    module = importlib.import_module(f"recipes.{recipe_name}")
    config = module.PRESETS[preset]()
    if hasattr(module, "RECIPE"):
        places, recipe = NOW, module.RECIPE
    else:
        places, recipe = BEFORE, importlib.import_module("recipes._engine.recipe").load_recipe(recipe_name)
    engine: dict[str, Any] = {name: getattr(importlib.import_module(place), name) for name, place in places.items()}
    options = engine["RunOptions"](**json.loads(words))
    layout = engine["PixelLayout"](config.resolution, config.image_channels)
    pixels = torch.randint(256, (64, *layout.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64) % config.num_classes
    names = tuple(f"noise {number}" for number in range(config.num_classes))
    images = engine["ImageSet"](lambda indices: pixels[indices], labels, names, layout, ())
    state = engine["build_state"](recipe, config, options)
    source = engine["BatchSource"](images, recipe.build_prior(config), config, options)
    step = 0
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            step += 1
            began = time.perf_counter()
            recipe.train_step(state, source.step(step), config)
            seconds.append(time.perf_counter() - began)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()

"""What networks are made of and what a step costs, without computing anything."""

from gan_blocks.engine.inspection.dry_run import WithoutInitialization

__all__ = [
    "WithoutInitialization",
]

"""Features of images: which network sees them, how images are prepared for it, where its answers are kept."""

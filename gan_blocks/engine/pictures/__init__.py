"""Pictures of tensors: sheets, captions, films, figures."""

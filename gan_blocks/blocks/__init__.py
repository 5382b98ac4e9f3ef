"""One resolution step of a network each; layers are injected as factories."""

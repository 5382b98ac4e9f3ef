"""Networks, layers and training steps that several systems share."""

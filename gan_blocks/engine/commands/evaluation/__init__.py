"""What ``gan-blocks evaluate`` consists of: its options, the images that it compares, its tables."""

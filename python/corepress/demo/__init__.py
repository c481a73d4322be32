"""`corepress demo`: a small diffusion UNet, and a network that reads digits, compressed in seven ways each."""

"""`corepress demo`: a small diffusion UNet, compressed in seven ways, with a table and a plot."""

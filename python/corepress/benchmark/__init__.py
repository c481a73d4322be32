"""How fast the kernels are on weights of diffusion models: shared by `corepress bench` and the scripts of ``bench``."""

"""What the weights of a model see when it runs: statistics for compressing them with little error of its outputs."""

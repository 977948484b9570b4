"""Networks: the valid U-Net, the setups (what goes in, what comes out), checkpoints, device and precision."""

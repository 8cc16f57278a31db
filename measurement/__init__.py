"""What is true: accuracy of trained networks, cost on devices real or simulated."""

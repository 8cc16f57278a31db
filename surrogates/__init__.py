"""What is predicted: backbone accuracy, exit fractions, stage latency and energy under clocks."""

"""What runs on a Jetson: discovery, clocks, sensors and workloads, for Python 3.6 and its standard library."""

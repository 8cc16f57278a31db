"""What is known: images, measurement records, the store, device logs."""

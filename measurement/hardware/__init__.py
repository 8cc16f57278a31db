"""Cost on devices: the ``Device`` protocol and its back-ends."""

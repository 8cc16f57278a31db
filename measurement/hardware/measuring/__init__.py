"""The measuring protocol: the same for every rig, from blocks and power readings to rows that can be believed."""

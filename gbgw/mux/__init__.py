"""AccessUnit -> Chunk, and back to a program stream; the only layer that imports PyAV."""

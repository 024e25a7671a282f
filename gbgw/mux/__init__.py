"""AccessUnit -> Chunk, and back to a program stream; the only layer besides serve.webrtc that imports PyAV."""

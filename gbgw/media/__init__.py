"""What a stream is: tracks, parameter sets, one time line, one fork. Sans-IO; time is an argument."""

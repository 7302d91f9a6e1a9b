"""The command line: talks to people; holds no music and no tensors."""

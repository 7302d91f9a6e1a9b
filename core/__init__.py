"""Music and learning, cut by stage. Prints nothing and never exits."""

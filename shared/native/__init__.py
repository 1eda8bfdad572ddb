"""C++ code, compiled on the machine that runs it."""

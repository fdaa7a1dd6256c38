"""The engine: streams in, stages carried out, a model out. It never knows a method's name."""

"""Sockets in: everything that touches the network on the cameras' side."""

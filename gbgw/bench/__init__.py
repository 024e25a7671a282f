"""`gbgw bench`: load on loopback, and what it costs the gateway, with the conditions printed beside the figures."""

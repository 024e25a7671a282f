"""The simulated camera: a sans-IO device role, vendor quirks, an impaired RTP sender, and the shell of many of them."""

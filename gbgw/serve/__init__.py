"""Sinks out: HTTP-FLV, HLS, HTTP-TS, HTTP-fMP4, WHEP, the control API, metrics and the console's files."""

"""RFC 3261 for GB/T 28181 devices, sans-IO: messages, transactions, dialogs, digest, and the one UserAgent that owns
them.
"""

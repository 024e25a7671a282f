"""GB/T 28181 on top of SIP, sans-IO: identities, MANSCDP, SDP, registrar, catalog, live invitations and device
commands."""

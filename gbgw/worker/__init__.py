"""The narrow interface between control and media: what a session needs of the place where its media lives."""

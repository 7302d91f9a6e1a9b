"""Beat maps: from heard rhythm to a playable, valid Beat Saber level."""

"""From a source to a chip store: fetched once, verified, decoded, staged, assembled."""

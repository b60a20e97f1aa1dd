"""A cooperative over Flower."""

"""Labels: how often they switch, which modes are one mode under other names, and all about them in one place."""

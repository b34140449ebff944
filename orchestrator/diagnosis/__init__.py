"""What every host of the site has of its machines, compared, and what is wrong with it: `viaduct doctor`."""

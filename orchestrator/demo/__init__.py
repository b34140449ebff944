"""`viaduct demo`: a site of two hosts in a temporary folder, a machine that works, and a migration of it."""

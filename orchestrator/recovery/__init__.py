"""`viaduct recover`: everybody goes on now; and what an operator's word can settle when a host is off for good."""

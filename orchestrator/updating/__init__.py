"""Machines go on in other processes of their hosts: attempts whose destination is the machine's own host."""

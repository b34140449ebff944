"""The store in etcd, which several orchestrators on several hosts share, and the lease by which one of them leads."""

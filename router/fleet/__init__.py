"""This daemon among the replicas of a fleet: its leases, and what concerns all of them."""

"""Middle floor: questions about parcels, answered from the published generations."""

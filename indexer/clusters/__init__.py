"""Groups of a collection's parcels that are stored, named by experts, and survive regrouping."""

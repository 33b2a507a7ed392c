"""What each kind of asset computes, without Dagster."""

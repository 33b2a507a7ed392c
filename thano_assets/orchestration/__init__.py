"""Assets, runs, schedules and sensors as Dagster has them; the other packages do not know Dagster."""

"""A study's plan: runs, schedules, schema and forecast. Never imports torch or pandas."""

"""Tables made of tables, verdicts and figures. Never imports torch."""

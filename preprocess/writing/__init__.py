"""Writing of a planned store: estimate, tasks, marks, manifest."""

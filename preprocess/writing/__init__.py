"""From a plan to a store: estimate, tasks, marks, manifest."""

"""The contract between the stages: the layout of a store, its manifest, its bytes and their reader."""

"""The library of the stages: import from here, run what lies in the root. It knows no setting."""

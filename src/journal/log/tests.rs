//! Retention, space and packing, step by step.

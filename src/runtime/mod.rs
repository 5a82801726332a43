//! What threads stand on: clocks and the slab of transaction bytes.

pub mod clock;

pub mod slab;

//! What threads stand on: clocks, cores, and the slab of transaction bytes.

pub mod clock;

pub mod affinity;

pub mod slab;

pub mod address_range;

pub mod bus_fault;

pub mod file;

pub mod socket;

//! What threads stand on: clocks, cores, limits, and the slab of transaction bytes.

pub mod clock;

pub mod affinity;

pub mod process;

pub mod slab;

pub mod address_range;

pub mod bus_fault;

pub mod file;

pub mod pages;

pub mod event_fd;

pub mod listener;

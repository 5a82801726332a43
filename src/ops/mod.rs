//! What an operator sees of the process from outside: metrics and health over HTTP, on a port and a thread of their own.
//!
//! [`health`] judges, [`collect`] gathers what a scrape shows, [`server`] speaks HTTP. The thread is none of the others: an end that hangs, an
//! execution client that does not answer or a long derivation must not keep the probes from saying so, and a scraper must not keep them waiting.
//! It runs from before the files are read, so that a long start is seen as one.

pub mod collect;
pub mod health;
pub mod server;

//! What an operator does to a running process: halt and resume, stop and start building and posting, drop, change limits and the log's level.
//!
//! ```text
//!  EMERGENCY_HALT ────────────────────────┐
//!  a file in the data directory ─► main ──┼─► cells ─► builder core, shards
//!  admin port ─► admin thread ────────────┘    │
//!                     └── jobs ◄──────────────── answers
//! ```
//!
//! Owner: the `admin` thread serves the port; the cells are written by it, by the main thread (the file) and by the start (the setting), each its own
//! bits. Nothing here decides what is built: the builder core reads the cells once a turn and says when it has obeyed.

pub mod cells;

pub mod halt;

pub mod limits;

pub mod token;

pub mod rpc;

pub mod server;

//! The Engine API client: our sealed blocks in, an execution client's verdicts out.
//!
//! ```text
//!  chain database ─► payload ─► transport ─► execution client
//!                                   │ answers
//!  heads ◄─ checked ◄── session ◄───┘
//! ```
//!
//! Runs on: the control thread, the only one with tokio. Invariants: a block is told to the execution client after it is in the chain
//! database, and it becomes `latest` after the client said VALID and its head stands on it. [`session`] decides and knows no socket,
//! [`transport`] carries and decides nothing, [`driver`] joins them. Beside it [`forwarding`] decides what to pull from the
//! client's pool; `ingress/forwarder.rs` carries it. Deliberately absent: TLS (a proxy ends it), building by the client.

pub mod types;

pub mod payload;

pub mod jwt;

pub mod status;

pub mod session;

pub mod files;

pub mod transport;

pub mod driver;

pub mod blocking;

pub mod forwarding;

pub mod envelope;

pub mod build;

pub mod builder_thread;

pub mod accounts;

pub mod adoption;

pub mod archive;

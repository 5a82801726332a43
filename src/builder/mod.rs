//! The builder core: admits, orders, executes, closes.

pub mod core;

pub mod block;

pub mod rewinds;

pub mod world;

pub mod execution;

pub mod filler;

pub mod block_execution;

pub mod sealing;

pub mod assembly;

pub mod clock;

pub mod conditions;

pub mod journal_outbox;

pub mod driver;

pub mod replay;

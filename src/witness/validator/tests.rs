//! The blocks of a real go-ethereum, whole and with one thing changed.

mod partial;

mod vectors;

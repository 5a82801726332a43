#![allow(unsafe_code, reason = "entries of an io_uring name memory and descriptors that must outlive them")]
//! The sockets of one shard through one io_uring: who connected, what arrived, who has room again, and sleep.
//!
//! Owner: the shard's thread, which made it; the kernel refuses every other one (`SINGLE_ISSUER`). Completions are made only while the thread
//! is in [`Transport::enter`] (`DEFER_TASKRUN`), so nothing interrupts it while it recovers signatures.
//! Invariants: the only memory that the kernel writes later is that of [`Buffers`], which lives until the kernel has ended every entry; the
//! number of a closed socket is not free for another file before every entry that names it was given to the kernel.
//! Absent on purpose: writes (a `send` that does not wait costs the same, measured before the design, and needs no buffer to live longer),
//! protocol, limits, clocks.

mod buffers;

use std::collections::VecDeque;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

pub use buffers::Filled;
use buffers::{BUFFER_BYTES, BUFFER_COUNT, Buffers};

use crate::rpc::ConnectionKey;
use crate::runtime::event_fd::EventFd;

/// Entries given to the kernel in one call; more take another.
const SUBMISSION_SLOTS: u32 = 256;
/// Completions that wait; the kernel keeps what does not fit.
const COMPLETION_SLOTS: u32 = 4_096;
const BUFFER_GROUP: u16 = 0;
/// How often the end asks the kernel for what is still under way, 10 ms each.
const QUIET_TRIES_MAX: u32 = 100;
/// From `<poll.h>`.
const POLLIN: u32 = 1;
const POLLOUT: u32 = 4;
/// From `<linux/io_uring.h>`: do not try before the socket has said that it has bytes.
const RECV_POLL_FIRST: u16 = 1;
/// `SOCK_NONBLOCK | SOCK_CLOEXEC`.
const ACCEPT_FLAGS: i32 = 0o2_004_000;
/// Linux error numbers.
const EPERM: i32 = 1;
const EINTR: i32 = 4;
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EBUSY: i32 = 16;
const EINVAL: i32 = 22;
const ENOSYS: i32 = 38;
const ETIME: i32 = 62;
const ENOBUFS: i32 = 105;

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// `is_over`: nobody is accepted any more until [`Transport::accept`].
    Accepted { outcome: io::Result<TcpStream>, is_over: bool },
    /// The one receive of this connection is over.
    Received { key: ConnectionKey, outcome: Received },
    /// A connection that [`Transport::watch_room`] was called for can be written to, or is gone.
    Room { key: ConnectionKey },
    /// The [`EventFd`] was signalled.
    Rung,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// `has_more`: the socket had more bytes than the buffer took. To be given back.
    Bytes { filled: Filled, has_more: bool },
    /// The peer has sent its last byte.
    End,
    /// Every buffer was filled: ask again once some were given back.
    NoBuffer,
    /// The connection is gone, or the receive was cancelled.
    Lost,
}

/// How long [`Transport::enter`] waits for the first event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    None,
    Ns(u64),
    Endless,
}

/// See the module's text.
pub struct Transport {
    ring: IoUring,
    /// `None` only in `drop`.
    buffers: Option<Buffers>,
    bell: Arc<EventFd>,
    /// Entries that the ring had no slot for, oldest first.
    waiting: VecDeque<squeue::Entry>,
    /// Entries whose last completion has not come.
    in_flight_count: u64,
    /// Sockets closed since the last time that the kernel had every entry.
    closing: Vec<TcpStream>,
    is_ending: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Accept,
    Bell,
    Receive,
    Room,
    Cancel,
}

impl Transport {
    /// Makes the ring of the calling thread.
    ///
    /// # Errors
    /// What is missing, and what to do about it.
    pub fn new(bell: Arc<EventFd>) -> Result<Self, String> {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_cqsize(COMPLETION_SLOTS).setup_submit_all();
        builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        let ring = builder.build(SUBMISSION_SLOTS).map_err(|error| setup_error(&error))?;
        let buffers = Buffers::new();
        // SAFETY: the ring of entries lives as long as `buffers`, which `drop` ends only after the kernel has ended every entry.
        let registered = unsafe {
            ring.submitter().register_buf_ring_with_flags(buffers.ring_address(), BUFFER_COUNT, BUFFER_GROUP, 0)
        };
        registered.map_err(|error| setup_error(&error))?;
        let mut transport = Self {
            ring,
            buffers: Some(buffers),
            bell,
            waiting: VecDeque::new(),
            in_flight_count: 0,
            closing: Vec::new(),
            is_ending: false,
        };
        transport.watch_bell();
        Ok(transport)
    }

    /// Accepts whoever connects to `listener`, which must stay open as long as this lives.
    pub fn accept(&mut self, listener: &TcpListener) {
        let entry = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd())).flags(ACCEPT_FLAGS).build();
        self.push(entry.user_data(tag(Kind::Accept, None)));
    }

    /// Asks for the connection's next bytes, once; one receive at a time. `is_ready`: the socket probably has some.
    pub fn receive(&mut self, socket: &TcpStream, key: ConnectionKey, is_ready: bool) {
        let entry = opcode::Recv::new(types::Fd(socket.as_raw_fd()), std::ptr::null_mut(), BUFFER_BYTES as u32);
        let entry = entry.buf_group(BUFFER_GROUP).ioprio(if is_ready { 0 } else { RECV_POLL_FIRST }).build();
        self.push(entry.flags(squeue::Flags::BUFFER_SELECT).user_data(tag(Kind::Receive, Some(key))));
    }

    /// Asks to be told, once, when the socket takes more bytes.
    pub fn watch_room(&mut self, socket: &TcpStream, key: ConnectionKey) {
        let entry = opcode::PollAdd::new(types::Fd(socket.as_raw_fd()), POLLOUT).build();
        self.push(entry.user_data(tag(Kind::Room, Some(key))));
    }

    /// Closes a socket when the kernel has ended what was asked of it.
    pub fn close(&mut self, socket: TcpStream, key: ConnectionKey, is_receiving: bool, is_watched: bool) {
        for (kind, is_asked) in [(Kind::Receive, is_receiving), (Kind::Room, is_watched)] {
            if is_asked {
                let entry = opcode::AsyncCancel::new(tag(kind, Some(key))).build();
                self.push(entry.user_data(tag(Kind::Cancel, None)));
            }
        }
        self.closing.push(socket);
    }

    /// The bytes of a buffer.
    pub fn bytes<'a>(&'a mut self, filled: &'a mut Filled) -> &'a mut [u8] {
        self.buffers.as_mut().expect("taken only in `drop`").bytes(filled)
    }

    /// Makes a buffer free for the next receive.
    pub fn give_back(&mut self, filled: Filled) {
        if let Some(buffers) = &mut self.buffers {
            buffers.give_back(filled);
        }
    }

    /// The next thing that happened before the last [`Transport::enter`] returned.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let completion = self.ring.completion().next()?;
            let is_over = !cqueue::more(completion.flags());
            if is_over {
                self.in_flight_count -= 1;
            }
            let Some((kind, key)) = untag(completion.user_data()) else { continue };
            match kind {
                Kind::Accept => {
                    let outcome = accepted(completion.result());
                    return Some(Event::Accepted { outcome, is_over });
                }
                Kind::Bell => {
                    if is_over && !self.is_ending {
                        self.watch_bell();
                    }
                    return Some(Event::Rung);
                }
                Kind::Receive => return Some(Event::Received { key, outcome: self.received(&completion) }),
                Kind::Room => return Some(Event::Room { key }),
                Kind::Cancel => {}
            }
        }
    }

    /// Whether [`Transport::next_event`] has something, or would have after an `enter` that does not wait.
    pub fn has_events(&mut self) -> bool {
        !self.ring.completion().is_empty() || self.ring.submission().taskrun()
    }

    /// Gives the kernel what was asked since the last time, and waits for something to happen.
    ///
    /// # Errors
    /// The kernel's: the ring cannot be used any more.
    pub fn enter(&mut self, patience: Patience) -> io::Result<()> {
        while self.fill_slots() {
            settle(self.ring.submit())?;
            if self.ring.submission().is_full() {
                // The kernel wants its completions to be taken first.
                return Ok(());
            }
        }
        if !self.closing.is_empty() {
            // A peer must not wait for the end of its connection as long as we sleep.
            settle(self.ring.submit())?;
            if self.ring.submission().is_empty() {
                self.closing.clear();
            }
        }
        let submission = self.ring.submission();
        let is_quiet = submission.is_empty() && !submission.taskrun() && !submission.cq_overflow();
        drop(submission);
        let entered = match patience {
            Patience::None if is_quiet => Ok(0),
            Patience::None => self.ring.submit(),
            Patience::Ns(ns) => {
                let time = types::Timespec::new().sec(ns / 1_000_000_000).nsec((ns % 1_000_000_000) as u32);
                self.ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&time))
            }
            Patience::Endless => self.ring.submit_and_wait(1),
        };
        settle(entered)
    }

    /// Moves entries into free slots of the ring. Answers whether some are left.
    fn fill_slots(&mut self) -> bool {
        while let Some(entry) = self.waiting.front() {
            // SAFETY: as in `push`.
            if unsafe { self.ring.submission().push(entry) }.is_err() {
                return true;
            }
            self.waiting.pop_front();
        }
        false
    }

    fn push(&mut self, entry: squeue::Entry) {
        self.in_flight_count += 1;
        // SAFETY: no entry names memory: receives take a registered buffer, which lives until the kernel has ended every entry. The
        // descriptors are open: those of sockets are dropped only when the kernel has every entry, the bell lives as long as `self`.
        let is_pushed = self.waiting.is_empty() && unsafe { self.ring.submission().push(&entry) }.is_ok();
        if !is_pushed {
            self.waiting.push_back(entry);
        }
    }

    fn watch_bell(&mut self) {
        let entry = opcode::PollAdd::new(types::Fd(self.bell.as_raw_fd()), POLLIN).multi(true).build();
        self.push(entry.user_data(tag(Kind::Bell, None)));
    }

    fn received(&self, completion: &cqueue::Entry) -> Received {
        let (result, flags) = (completion.result(), completion.flags());
        match (u32::try_from(result), cqueue::buffer_select(flags), &self.buffers) {
            (Ok(bytes), Some(id), Some(buffers)) => {
                // SAFETY: this completion hands the buffer over, and it is looked at once.
                let filled = unsafe { buffers.take(id, bytes as usize) };
                Received::Bytes { filled, has_more: cqueue::sock_nonempty(flags) }
            }
            (Ok(_), ..) => Received::End,
            (Err(_), ..) if result == -ENOBUFS => Received::NoBuffer,
            (Err(_), ..) => Received::Lost,
        }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.is_ending = true;
        let everything = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
        self.push(everything.user_data(tag(Kind::Cancel, None)));
        for _ in 0..QUIET_TRIES_MAX {
            // Sockets that were accepted meanwhile are closed here.
            while self.next_event().is_some() {}
            if self.in_flight_count == 0 || self.enter(Patience::Ns(10_000_000)).is_err() {
                break;
            }
        }
        if self.in_flight_count > 0 {
            // The kernel may still write into the buffers: they stay.
            std::mem::forget(self.buffers.take());
        }
    }
}

/// Forgives what says only that nothing was waited for.
fn settle(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(EINTR | EAGAIN | EBUSY | ETIME)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn accepted(result: i32) -> io::Result<TcpStream> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: the kernel has just made this descriptor for us, and its completion is looked at once.
    Ok(TcpStream::from(unsafe { OwnedFd::from_raw_fd(result) }))
}

/// Why there is no ring, and what to do.
fn setup_error(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(EINVAL) => format!(
            "this Linux is too old for io_uring as it is needed here: 6.1 or newer ({error} for a ring of one thread, deferred)"
        ),
        Some(ENOSYS) => {
            "this kernel has no io_uring: Linux 6.1 or newer with CONFIG_IO_URING; in a container allow io_uring"
                .to_owned()
        }
        Some(EPERM) => {
            "io_uring is switched off: allow it by `sysctl kernel.io_uring_disabled=0`; in a container allow \
                        io_uring_setup, io_uring_enter and io_uring_register"
                .to_owned()
        }
        Some(ENOMEM) => {
            format!(
                "io_uring could not be set up: {error} (raise the memory that this process may use or lock: `ulimit -l`)"
            )
        }
        _ => format!("io_uring could not be set up: {error}"),
    }
}

/// Names an entry: 4 bits of kind, 28 of place, 32 of generation.
fn tag(kind: Kind, key: Option<ConnectionKey>) -> u64 {
    let ConnectionKey { connection, generation } = key.unwrap_or(ConnectionKey { connection: 0, generation: 0 });
    // `http.connections-max` is at most a million.
    assert!(connection < 1 << 28, "a shard has fewer connections: {connection}");
    u64::from(generation) << 32 | u64::from(connection) << 4 | kind as u64
}

fn untag(tag: u64) -> Option<(Kind, ConnectionKey)> {
    let kind = match tag & 15 {
        0 => Kind::Accept,
        1 => Kind::Bell,
        2 => Kind::Receive,
        3 => Kind::Room,
        4 => Kind::Cancel,
        _ => return None,
    };
    // 28 bits, then 32.
    Some((kind, ConnectionKey { connection: (tag as u32) >> 4, generation: (tag >> 32) as u32 }))
}

#[cfg(test)]
mod tests;

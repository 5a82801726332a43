//! The shard's thread: glommio sockets, timers and the doorbell around [`super::shard`], no protocol of its own.
//!
//! Tasks: one that accepts, one for each connection that watches its socket, one for the turns. A connection that sent something is
//! "hot": the turns look for more of it themselves (`sweep`) until nothing came for a while or the shard is about to sleep, because a
//! watched socket interrupts the thread for every request while it recovers signatures.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crossbeam::channel::Sender;
use crossbeam::queue::ArrayQueue;
use futures_lite::future::poll_fn;
use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::Timer;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

use crate::config::{HttpConfig, Wait};
use crate::ingress::connection::Phase;
use crate::ingress::shard::ShardCore;
use crate::limits::SPIN_NS;
use crate::messages::{BuilderReply, IngressMessage, QueryJob, QueryReply};
use crate::primitives::ShardId;
use crate::ring::{Consumer, Doorbell, Producer};
use crate::rpc::limits::EVENT_PORTIONS_PER_TURN_MAX;
use crate::rpc::{ConnectionKey, Progress};
use crate::runtime::clock;
use crate::runtime::slab::{Slab, TxHandle};
use crate::runtime::socket::receive;
use crate::topology::Shared;

/// glommio 0.9 probes for operations of Linux 5.8 and ends the process without them.
const KERNEL_MIN: (u32, u32) = (5, 8);
/// The executor's registered memory is for files, of which a shard has none: the least it takes.
const IO_MEMORY_BYTES: usize = 64 << 10;
/// Only polls of sockets go through the ring; RUNTIME.md measured no loss at 128.
const RING_SLOTS: usize = 128;
/// How long tasks may run before the executor looks at the ring again.
const PREEMPT_AFTER: Duration = Duration::from_millis(1);
/// One read takes two batches of 100 transfers.
const READ_BUFFER_BYTES: usize = 128 << 10;
/// Full reads of one connection before the others get their turn.
const READS_PER_POLL_MAX: usize = 8;
/// Time-outs of connections are seconds; they may be late by this.
const CHECK_PERIOD_NS: u64 = 500_000_000;
/// What is left to write when the process closes gets this long.
const CLOSE_NS_MAX: u64 = 500_000_000;
/// Sweeps that pass a connection over while it waits for replies.
const SWEEP_SKIPS_MAX: u8 = 4;
/// Sweeps without input after which a connection is watched again.
const SWEEP_MISSES_MAX: u8 = 8;
/// Connections of one address, or of one IPv6 network of 64 bits, per shard. On full: `Reject`. One peer then cannot use up the places of
/// all, and a proxy before the node has enough.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 1_024;
/// Unsent bytes of a WebSocket at which a turn announces no more: half of what a subscriber may have unsent.
const BEHIND_BYTES: usize = 512 << 10;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Type: text/plain\r\nContent-Length: 21\r\n\r\ntoo many connections\n";
const TOO_MANY_OF_ADDRESS: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nRetry-After: 1\r\nContent-Type: text/plain\r\nContent-Length: 39\r\n\r\ntoo many connections from this address\n";

/// What a shard knows of the process from the start.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    pub http: HttpConfig,
    pub chain_id: u64,
    pub wait: Wait,
    /// Core to be pinned to; `None`: the scheduler decides.
    pub core: Option<usize>,
    /// Time of one heavy read, from its hand-over to the query pool.
    pub query_timeout_ns: u64,
    /// Chunks of the slab that may be out at once, from allocation until their handle is back: the slots of `freed`.
    pub chunks_max: usize,
    /// What the RPC methods know of the process.
    pub rpc: crate::rpc::view::Settings,
}

/// Everything that one shard owns, and its ends of everything shared.
pub struct ShardSeat {
    pub id: ShardId,
    pub settings: ShardSettings,
    pub slab: Slab,
    /// On full: `Reject` with −32005; the shard counts what is in flight (`limits::IN_FLIGHT_PER_SHARD_MAX`).
    pub to_builder: Producer<IngressMessage>,
    pub from_builder: Consumer<BuilderReply>,
    pub freed: Consumer<TxHandle>,
    /// On full: `Reject` with −32005.
    pub to_query: Sender<QueryJob>,
    /// As many slots as the shard may have queries in flight (`limits::QUERIES_PER_SHARD_MAX`).
    pub from_query: Arc<ArrayQueue<QueryReply>>,
    /// Rung by builder and query threads.
    pub doorbell: Arc<Doorbell>,
    pub shared: Arc<Shared>,
    /// Says once whether the listener is bound, and where.
    pub bound: SyncSender<Result<SocketAddr, String>>,
}

/// Runs the shard until `Shared::is_closed`.
///
/// # Errors
/// What the executor could not be given: the process must stop.
pub fn run(seat: ShardSeat) -> Result<(), String> {
    let executor = match check_kernel().and_then(|()| make_executor(&seat.settings)) {
        Ok(executor) => executor,
        Err(what) => {
            // The receiver may have given up already; either way the process learns it from the thread's result.
            let _ = seat.bound.send(Err(what.clone()));
            return Err(what);
        }
    };
    executor.run(serve(seat))
}

/// Refuses kernels on which the executor would end the process without a useful word.
fn check_kernel() -> Result<(), String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease");
    let mut numbers = release.split(['.', '-']).map_while(|part| part.trim().parse::<u32>().ok());
    if let (Some(major), Some(minor)) = (numbers.next(), numbers.next())
        && (major, minor) < KERNEL_MIN
    {
        return Err(format!("Linux {} is too old for io_uring as it is needed here: 5.8 or newer", release.trim()));
    }
    if read("/proc/sys/kernel/io_uring_disabled").trim() == "2" {
        return Err("io_uring is switched off: allow it by `sysctl kernel.io_uring_disabled=0`".to_owned());
    }
    Ok(())
}

fn make_executor(settings: &ShardSettings) -> Result<LocalExecutor, String> {
    let placement = settings.core.map_or(Placement::Unbound, Placement::Fixed);
    let mut builder = LocalExecutorBuilder::new(placement)
        .name("ingress")
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_SLOTS)
        .preempt_timer(PREEMPT_AFTER);
    if settings.wait == Wait::Spin {
        builder = builder.spin_before_park(Duration::from_nanos(SPIN_NS));
    }
    builder.make().map_err(|error| {
        format!("io_uring could not be set up: {error} (locked memory must be at least 512 KiB: `ulimit -l`; in a container allow io_uring)")
    })
}

/// The socket of one connection.
struct Socket {
    key: ConnectionKey,
    stream: TcpStream,
    /// `None`: the peer was gone before it could be asked.
    network: Option<IpAddr>,
    /// Of the connection's task, once it has run.
    waker: Option<Waker>,
    /// The task does not watch for input: replies must leave first.
    is_paused: bool,
    /// The sending side was shut down.
    is_shut: bool,
    /// The task shall watch the socket instead of leaving it to the turns' sweeps.
    must_watch: bool,
    is_hot: bool,
    /// Sweeps in a row that found nothing, and that passed it over.
    miss_count: u8,
    skip_count: u8,
}

/// What a read brought.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Received {
    Something,
    Nothing,
    /// Nothing may be read now: replies must leave first.
    Paused,
    /// This turn's transactions must be recovered first.
    TurnFull,
    Lost,
}

/// What the tasks of a shard share. Borrowed only between awaits.
struct Inner {
    core: ShardCore,
    sockets: Vec<Option<Socket>>,
    /// Lent to one read at a time, so that idle connections hold none.
    buffer: Vec<u8>,
    dirty: Vec<ConnectionKey>,
    /// Connections that sent something lately: while the shard is busy it looks for more itself instead of having them watched.
    hot: Vec<ConnectionKey>,
    /// Of the turn's task.
    turn_waker: Option<Waker>,
    is_turn_due: bool,
    timer: Option<(u64, Timer)>,
    /// Connections by network of the peer.
    networks: HashMap<IpAddr, usize, foldhash::fast::RandomState>,
    next_check_ns: u64,
    closing_since_ns: Option<u64>,
}

async fn serve(seat: ShardSeat) -> Result<(), String> {
    let (core, doorbell, bound) = ShardCore::new(seat);
    let wanted = core.settings().http.address;
    let listener = match TcpListener::bind(wanted).and_then(|listener| Ok((listener.local_addr()?, listener))) {
        Ok((address, listener)) => {
            // As in `run`.
            let _ = bound.send(Ok(address));
            listener
        }
        Err(error) => {
            let what = listen_error(&error);
            let _ = bound.send(Err(what.clone()));
            return Err(what);
        }
    };
    let inner = Rc::new(RefCell::new(Inner {
        core,
        sockets: Vec::new(),
        buffer: vec![0; READ_BUFFER_BYTES],
        dirty: Vec::new(),
        hot: Vec::new(),
        turn_waker: None,
        is_turn_due: false,
        timer: None,
        networks: HashMap::default(),
        next_check_ns: 0,
        closing_since_ns: None,
    }));
    let acceptor = glommio::spawn_local(accept(listener, Rc::clone(&inner)));
    poll_fn(|cx| poll_turn(&inner, &doorbell, cx)).await;
    acceptor.cancel().await;
    // The bell outlives this executor, so it must not keep a waker of it.
    let _ = doorbell.poll(Waker::noop(), || true);
    close_all(&mut inner.borrow_mut());
    // The tasks of the connections see that their sockets are gone, and end.
    for _ in 0..2 {
        futures_lite::future::yield_now().await;
    }
    Ok(())
}

fn listen_error(error: &glommio::GlommioError<()>) -> String {
    match error {
        glommio::GlommioError::IoError(error) => error.to_string(),
        error => error.to_string(),
    }
}

async fn accept(listener: TcpListener, inner: Rc<RefCell<Inner>>) {
    loop {
        match listener.accept().await {
            Ok(stream) => {
                let key = inner.borrow_mut().admit(stream, clock::monotonic_ns());
                if let Some(key) = key {
                    let inner = Rc::clone(&inner);
                    glommio::spawn_local(poll_fn(move |cx| inner.borrow_mut().poll_connection(key, cx))).detach();
                }
                // Connections that are there already get their turn between two arrivals.
                futures_lite::future::yield_now().await;
            }
            // Usually no file descriptor is left: some connection must close first.
            Err(_) => {
                Timer::new(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Inner {
    /// Gives a new socket its place, or refuses it by the limit of connections.
    fn admit(&mut self, mut stream: TcpStream, now_ns: u64) -> Option<ConnectionKey> {
        let connection_count = &self.core.shared().connection_count;
        // ORDERING: Relaxed; the count alone matters.
        let count = connection_count.fetch_add(1, Ordering::Relaxed);
        let network = stream.peer_addr().ok().map(|peer| network_of(peer.ip()));
        let of_network = network.and_then(|network| self.networks.get(&network)).copied().unwrap_or(0);
        let refusal = if count >= self.core.settings().http.connections_max as u64 {
            Some(TOO_MANY_CONNECTIONS)
        } else {
            (of_network >= CONNECTIONS_PER_ADDRESS_MAX).then_some(TOO_MANY_OF_ADDRESS)
        };
        if let Some(text) = refusal {
            connection_count.fetch_sub(1, Ordering::Relaxed);
            // Best effort: the kernel takes so few bytes at once, and nobody waits for them.
            let _ = Pin::new(&mut stream).poll_write(&mut Context::from_waker(Waker::noop()), text);
            return None;
        }
        if let Some(network) = network {
            self.networks.insert(network, of_network + 1);
        }
        // Without it a reply waits for the acknowledgement of the one before; a socket that refuses works all the same.
        let _ = stream.set_nodelay(true);
        let key = self.core.open(now_ns);
        let index = key.connection as usize;
        if self.sockets.len() <= index {
            self.sockets.resize_with(index + 1, || None);
        }
        self.sockets[index] = Some(Socket {
            key,
            stream,
            network,
            waker: None,
            is_paused: false,
            is_shut: false,
            must_watch: true,
            is_hot: false,
            miss_count: 0,
            skip_count: 0,
        });
        if self.core.connection_count() == 1 {
            // Nobody's deadlines were looked after until now.
            self.next_check_ns = now_ns + CHECK_PERIOD_NS;
            self.request_turn();
        }
        Some(key)
    }

    /// The connection's task: reads what its socket has, or watches it. Ready when the connection is gone.
    fn poll_connection(&mut self, key: ConnectionKey, cx: &mut Context<'_>) -> Poll<()> {
        let Self { core, sockets, buffer, hot, .. } = self;
        let Some(socket) = socket_of(sockets, key) else { return Poll::Ready(()) };
        if socket.waker.is_none() {
            socket.waker = Some(cx.waker().clone());
        }
        let now_ns = clock::monotonic_ns();
        let watches = socket.must_watch;
        let received = if watches {
            read(core, socket, now_ns, buffer, |stream, buffer| match Pin::new(stream).poll_read(cx, buffer) {
                Poll::Ready(outcome) => outcome,
                // Watched from now on.
                Poll::Pending => Err(ErrorKind::WouldBlock.into()),
            })
        } else {
            read(core, socket, now_ns, buffer, |stream, buffer| receive(stream, buffer))
        };
        socket.must_watch = false;
        match received {
            Received::Something if !watches => {
                (socket.miss_count, socket.skip_count) = (0, 0);
                if !std::mem::replace(&mut socket.is_hot, true) {
                    hot.push(key);
                }
            }
            // Woken for another reason than input: the watch may be used up.
            Received::Nothing if !watches => {
                socket.must_watch = true;
                cx.waker().wake_by_ref();
            }
            // It may have stopped before the socket was empty, and then nobody watches.
            Received::Something | Received::TurnFull => {
                socket.must_watch = true;
                cx.waker().wake_by_ref();
            }
            Received::Nothing | Received::Paused => {}
            Received::Lost => self.remove(key),
        }
        if self.core.connection(key).is_some_and(|connection| !connection.output().is_empty()) {
            self.core.touch(key);
        }
        self.request_turn();
        Poll::Pending
    }

    /// Reads from the connections that sent something lately. Answers whether something came.
    fn sweep(&mut self, now_ns: u64) -> bool {
        let mut has_input = false;
        let mut index = 0;
        while index < self.hot.len() {
            let key = self.hot[index];
            let Self { core, sockets, buffer, .. } = self;
            let received = match socket_of(sockets, key) {
                None => Received::Lost,
                Some(socket) if socket.must_watch => Received::Paused,
                Some(socket) => sweep_one(core, socket, now_ns, buffer),
            };
            has_input |= received == Received::Something;
            match received {
                Received::Something | Received::Nothing => index += 1,
                Received::TurnFull => {
                    // Those that were not looked at come first next time.
                    self.hot.rotate_left(index);
                    return has_input;
                }
                Received::Paused | Received::Lost => {
                    self.hot.swap_remove(index);
                    if let Some(socket) = socket_of(&mut self.sockets, key) {
                        socket.is_hot = false;
                    }
                    if received == Received::Lost {
                        self.remove(key);
                    }
                }
            }
        }
        has_input
    }

    /// Has the connections watched that sent something lately: the shard is about to sleep.
    fn watch_hot(&mut self) {
        for key in self.hot.drain(..) {
            if let Some(socket) = socket_of(&mut self.sockets, key) {
                socket.is_hot = false;
                watch(socket);
            }
        }
    }

    fn request_turn(&mut self) {
        if !std::mem::replace(&mut self.is_turn_due, true)
            && let Some(waker) = &self.turn_waker
        {
            waker.wake_by_ref();
        }
    }

    /// One turn of the shard: answers, writes, then the transactions that arrived.
    fn turn(&mut self, now_ns: u64) {
        self.is_turn_due = false;
        if now_ns >= self.next_check_ns {
            self.next_check_ns = now_ns + CHECK_PERIOD_NS;
            self.core.check_connections(now_ns);
        }
        self.core.turn(now_ns);
        self.flush_dirty(now_ns);
        self.announce(now_ns);
        self.sweep(now_ns);
        self.core.submit();
    }

    /// News for subscribers in small portions, each followed by a write, so that only who does not read has much unsent.
    fn announce(&mut self, now_ns: u64) {
        for _ in 0..EVENT_PORTIONS_PER_TURN_MAX {
            let progress = self.core.announce();
            // The rest waits for the next turn when someone's socket is full.
            if self.flush_dirty(now_ns) > BEHIND_BYTES || progress == Progress::Done {
                return;
            }
        }
    }

    /// Writes every connection's new output. Answers the most that a subscriber has unsent.
    fn flush_dirty(&mut self, now_ns: u64) -> usize {
        let mut dirty = std::mem::take(&mut self.dirty);
        self.core.take_dirty(&mut dirty);
        let mut unsent_bytes_max = 0;
        for &key in &dirty {
            self.flush(key, now_ns);
            let connection = self.core.connection(key).filter(|connection| connection.is_websocket());
            unsent_bytes_max = unsent_bytes_max.max(connection.map_or(0, |connection| connection.output().len()));
        }
        self.dirty = dirty;
        unsent_bytes_max
    }

    /// Writes a connection's output once and does what its phase asks for.
    fn flush(&mut self, key: ConnectionKey, now_ns: u64) {
        let Self { core, sockets, .. } = self;
        let Some(socket) = sockets.get_mut(key.connection as usize).and_then(Option::as_mut) else { return };
        let Some(connection) = core.connection(key) else { return };
        let Some(waker) = socket.waker.clone() else { return };
        while !connection.output().is_empty() {
            match Pin::new(&mut socket.stream).poll_write(&mut Context::from_waker(&waker), connection.output()) {
                Poll::Ready(Ok(bytes)) => connection.output_written(bytes, now_ns),
                Poll::Ready(Err(_)) => return self.remove(key),
                Poll::Pending => {
                    // The connection's task is woken when there is room.
                    connection.output_written(0, now_ns);
                    break;
                }
            }
        }
        if connection.phase() == Phase::Lingering {
            // Starts the time of lingering when the last byte had left before.
            connection.output_written(0, now_ns);
        }
        if connection.wants_resume() {
            core.input(key, &mut [], now_ns);
        }
        core.start_queries(key, now_ns);
        let Some(connection) = core.connection(key) else { return };
        match connection.phase() {
            Phase::Closed => return self.remove(key),
            Phase::Lingering if !socket.is_shut => {
                socket.is_shut = true;
                let mut cx = Context::from_waker(Waker::noop());
                // A peer that is gone already needs no end of our side.
                let _ = Pin::new(&mut socket.stream).poll_close(&mut cx);
            }
            Phase::Open | Phase::Finishing | Phase::Lingering => {}
        }
        if socket.is_paused && connection.wants_read() {
            socket.must_watch = true;
            waker.wake();
        }
    }

    /// Closes a connection's socket and forgets it; its task ends when it runs next.
    fn remove(&mut self, key: ConnectionKey) {
        self.core.close(key);
        let Some(place) = self.sockets.get_mut(key.connection as usize) else { return };
        if place.as_ref().is_none_or(|socket| socket.key != key) {
            return;
        }
        if let Some(Socket { waker, network, .. }) = place.take() {
            if let Some(waker) = waker {
                waker.wake();
            }
            if let Some(Entry::Occupied(mut count)) = network.map(|network| self.networks.entry(network)) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
        self.core.shared().connection_count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sets the timer to the next moment at which the shard must run without being asked.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let check_ns = if self.core.connection_count() > 0 { self.next_check_ns } else { u64::MAX };
        let closing_ns = self.closing_since_ns.map_or(u64::MAX, |since| since + CLOSE_NS_MAX);
        let due_ns = check_ns.min(self.core.next_deadline_ns()).min(closing_ns);
        if due_ns == u64::MAX {
            self.timer = None;
            return Poll::Pending;
        }
        let now_ns = clock::monotonic_ns();
        if self.timer.as_ref().is_none_or(|(at, _)| *at > due_ns || *at <= now_ns) {
            self.timer = Some((due_ns, Timer::new(Duration::from_nanos(due_ns.saturating_sub(now_ns)))));
        }
        match &mut self.timer {
            Some((_, timer)) => Pin::new(timer).poll(cx).map(|_| ()),
            None => Poll::Pending,
        }
    }

    /// Whether a closing shard has nothing left to write, or no time left for it.
    fn is_finished(&mut self, since_ns: u64, now_ns: u64) -> bool {
        now_ns >= since_ns + CLOSE_NS_MAX || !self.has_output()
    }

    fn has_output(&mut self) -> bool {
        let Self { core, sockets, .. } = self;
        sockets.iter().flatten().any(|socket| {
            core.connection(socket.key).is_some_and(|connection| {
                matches!(connection.phase(), Phase::Open | Phase::Finishing) && !connection.output().is_empty()
            })
        })
    }
}

fn poll_turn(inner: &Rc<RefCell<Inner>>, doorbell: &Doorbell, cx: &mut Context<'_>) -> Poll<()> {
    let mut shard = inner.borrow_mut();
    if shard.turn_waker.is_none() {
        shard.turn_waker = Some(cx.waker().clone());
    }
    let now_ns = clock::monotonic_ns();
    if shard.closing_since_ns.is_none() && shard.core.shared().is_closed() {
        shard.announce(now_ns);
        shard.core.stop(now_ns);
        shard.closing_since_ns = Some(now_ns);
    }
    shard.turn(now_ns);
    if let Some(since_ns) = shard.closing_since_ns
        && shard.is_finished(since_ns, now_ns)
    {
        return Poll::Ready(());
    }
    let is_timer_due = shard.poll_timer(cx).is_ready();
    let has_work = || shard.core.has_work() || (shard.closing_since_ns.is_none() && shard.core.shared().is_closed());
    shard.core.await_gate();
    let is_busy = is_timer_due || doorbell.poll(cx.waker(), has_work).is_ready();
    // What arrived while signatures were recovered is there now.
    if is_busy || shard.sweep(now_ns) {
        // Behind the connections that became readable meanwhile.
        cx.waker().wake_by_ref();
    } else {
        shard.watch_hot();
    }
    Poll::Pending
}

/// What connections are counted by: an address, or the network that one IPv6 subscriber has.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
    }
}

fn socket_of(sockets: &mut [Option<Socket>], key: ConnectionKey) -> Option<&mut Socket> {
    sockets.get_mut(key.connection as usize)?.as_mut().filter(|socket| socket.key == key)
}

/// Reads from a socket by `receive` until it has nothing more, up to a bound.
fn read(
    core: &mut ShardCore,
    socket: &mut Socket,
    now_ns: u64,
    buffer: &mut [u8],
    mut receive: impl FnMut(&mut TcpStream, &mut [u8]) -> std::io::Result<usize>,
) -> Received {
    let mut received = Received::Nothing;
    for _ in 0..READS_PER_POLL_MAX {
        let Some(connection) = core.connection(socket.key) else { return Received::Lost };
        socket.is_paused = !connection.wants_read();
        if socket.is_paused {
            return Received::Paused;
        }
        if core.is_turn_full() {
            return Received::TurnFull;
        }
        match receive(&mut socket.stream, buffer) {
            Ok(0) => {
                core.end_of_input(socket.key);
                socket.is_paused = true;
                return Received::Paused;
            }
            Ok(bytes) => {
                core.input(socket.key, &mut buffer[..bytes], now_ns);
                received = Received::Something;
                if bytes < buffer.len() {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return Received::Lost,
        }
    }
    received
}

/// Reads from one connection in a sweep. One that still waits for replies seldom sends more, so it is passed over now and then.
fn sweep_one(core: &mut ShardCore, socket: &mut Socket, now_ns: u64, buffer: &mut [u8]) -> Received {
    let is_answered =
        core.connection(socket.key).is_none_or(|connection| connection.replies().outstanding_count() == 0);
    if !is_answered && socket.skip_count < SWEEP_SKIPS_MAX {
        socket.skip_count += 1;
        return Received::Nothing;
    }
    socket.skip_count = 0;
    let received = read(core, socket, now_ns, buffer, |stream, buffer| receive(stream, buffer));
    match received {
        Received::Something => socket.miss_count = 0,
        Received::Nothing if socket.miss_count >= SWEEP_MISSES_MAX => {
            watch(socket);
            return Received::Paused;
        }
        Received::Nothing => socket.miss_count += 1,
        Received::Paused | Received::TurnFull | Received::Lost => {}
    }
    received
}

/// Lets the connection's task watch its socket.
fn watch(socket: &mut Socket) {
    socket.must_watch = true;
    if let Some(waker) = &socket.waker {
        waker.wake_by_ref();
    }
}

/// Drops every socket; their tasks find that out when they run.
fn close_all(shard: &mut Inner) {
    let keys: Vec<ConnectionKey> = shard.sockets.iter().flatten().map(|socket| socket.key).collect();
    for key in keys {
        shard.remove(key);
    }
    shard.timer = None;
    shard.turn_waker = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, network: &str) {
        let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(network_of(parse(address)), parse(network));
    }

    #[test]
    fn connections_are_counted_by_address_or_ipv6_network() {
        check("192.0.2.7", "192.0.2.7");
        check("::ffff:192.0.2.7", "192.0.2.7");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
        check("::1", "::");
    }

    #[test]
    fn refusals_announce_the_length_of_their_text() {
        for response in [TOO_MANY_CONNECTIONS, TOO_MANY_OF_ADDRESS] {
            let text = std::str::from_utf8(response).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
        }
    }
}

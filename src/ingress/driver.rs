//! The shard's thread: sockets, timers and the doorbell around [`super::shard`], no protocol of its own.
//!
//! One turn of the loop: what happened on the sockets, answers and news, one write a connection, one recovery, then the kernel is given all
//! that is asked of it in one call, which waits when nothing is left to do. The sockets go through [`super::transport`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::task::Waker;

use crossbeam::channel::Sender;
use crossbeam::queue::ArrayQueue;
use socket2::{Domain, Protocol, Socket, Type};

use crate::admin::limits::Limit;
use crate::config::{HttpConfig, Wait};
use crate::ingress::connection::Phase;
use crate::ingress::shard::ShardCore;
use crate::ingress::transport::{Event, Patience, Received, Transport};
use crate::limits::SPIN_NS;
use crate::messages::{BuilderReply, IngressMessage, QueryJob, QueryReply, ShardMessage};
use crate::primitives::ShardId;
use crate::ring::{Consumer, Doorbell, Mailbox, Producer};
use crate::rpc::limits::EVENT_PORTIONS_PER_TURN_MAX;
use crate::rpc::{ConnectionKey, Progress};
use crate::runtime::clock;
use crate::runtime::event_fd::EventFd;
use crate::runtime::slab::{Slab, TxHandle};
use crate::topology::Shared;

/// Connections that the kernel has set up and nobody has taken yet; `net.core.somaxconn` may lower it. On full: `Reject`, the peer tries
/// again.
const BACKLOG: i32 = 4_096;
/// Events of one turn before replies and news get theirs.
const EVENTS_PER_TURN_MAX: usize = 1_024;
/// Time-outs of connections are seconds; they may be late by this.
const CHECK_PERIOD_NS: u64 = 500_000_000;
/// What is left to write when the process closes gets this long.
const CLOSE_NS_MAX: u64 = 500_000_000;
/// Connections of one address, or of one IPv6 network of 64 bits, per shard. On full: `Reject`. One peer then cannot use up the places of
/// all, and a proxy before the node has enough.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 1_024;
/// Unsent bytes of a WebSocket at which a turn announces no more: half of what a subscriber may have unsent.
const BEHIND_BYTES: usize = 512 << 10;
/// After an accept that failed: usually no descriptor is left, so some connection must close first.
const ACCEPT_PAUSE_NS: u64 = 50_000_000;
const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Type: text/plain\r\nContent-Length: 21\r\n\r\ntoo many connections\n";
const TOO_MANY_OF_ADDRESS: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nRetry-After: 1\r\nContent-Type: text/plain\r\nContent-Length: 39\r\n\r\ntoo many connections from this address\n";

/// What a shard knows of the process from the start.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    pub http: HttpConfig,
    pub chain_id: u64,
    pub wait: Wait,
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
    /// Of every shard, in the order of their numbers (`limits::NEIGHBOUR_SLOTS_PER_SHARD` for each that writes).
    pub mailboxes: Arc<[Mailbox<ShardMessage>]>,
    /// Rung by builder, query threads and other shards.
    pub doorbell: Arc<Doorbell>,
    pub shared: Arc<Shared>,
    /// Says once whether the listener is bound, and where.
    pub bound: SyncSender<Result<SocketAddr, String>>,
}

/// Runs the shard until `Shared::is_closed`.
///
/// # Errors
/// What the thread could not be given: the process must stop.
pub fn run(seat: ShardSeat) -> Result<(), String> {
    let (core, doorbell, bound) = ShardCore::new(seat);
    let opened = open(core);
    // The receiver may have given up already; either way the process learns it from the thread's result.
    let _ = bound.send(opened.as_ref().map(|(_, address)| *address).map_err(Clone::clone));
    let (mut shard, _) = opened?;
    shard.serve(&doorbell)
}

fn open(core: ShardCore) -> Result<(Shard, SocketAddr), String> {
    let bell = Arc::new(EventFd::new().map_err(|error| format!("no descriptor for the shard's bell: {error}"))?);
    let waker = Waker::from(Arc::clone(&bell));
    let mut transport = Transport::new(bell)?;
    let listener = listen(core.settings().http.address).map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    transport.accept(&listener);
    let shard = Shard {
        core,
        transport,
        listener,
        waker,
        sockets: Vec::new(),
        dirty: Vec::new(),
        networks: HashMap::default(),
        next_check_ns: 0,
        accept_again_ns: None,
        closing_since_ns: None,
    };
    Ok((shard, address))
}

/// A listener that the shards share. SO_REUSEADDR: connections of the process before this one may still be in TIME_WAIT.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The socket of one connection.
struct Peer {
    key: ConnectionKey,
    stream: TcpStream,
    /// `None`: the peer was gone before it could be asked.
    network: Option<IpAddr>,
    /// A receive is under way.
    is_receiving: bool,
    /// The next receive probably finds something at once.
    is_ready: bool,
    /// The socket was full, and is watched until it is not.
    is_watched: bool,
    /// The sending side was shut down.
    is_shut: bool,
}

struct Shard {
    core: ShardCore,
    /// Before the listener: its end takes what the kernel still holds of it.
    transport: Transport,
    listener: TcpListener,
    /// Of the doorbell: signals the transport's bell.
    waker: Waker,
    sockets: Vec<Option<Peer>>,
    dirty: Vec<ConnectionKey>,
    /// Connections by network of the peer.
    networks: HashMap<IpAddr, usize, foldhash::fast::RandomState>,
    next_check_ns: u64,
    accept_again_ns: Option<u64>,
    closing_since_ns: Option<u64>,
}

impl Shard {
    fn serve(&mut self, doorbell: &Doorbell) -> Result<(), String> {
        loop {
            let now_ns = clock::monotonic_ns();
            if self.closing_since_ns.is_none() && self.core.shared().is_closed() {
                self.announce(now_ns);
                self.core.stop(now_ns);
                self.closing_since_ns = Some(now_ns);
            }
            self.turn(now_ns);
            if let Some(since_ns) = self.closing_since_ns
                && self.is_finished(since_ns, now_ns)
            {
                break;
            }
            self.rest(doorbell).map_err(|error| format!("io_uring failed: {error}"))?;
        }
        let keys: Vec<ConnectionKey> = self.sockets.iter().flatten().map(|peer| peer.key).collect();
        for key in keys {
            self.remove(key);
        }
        Ok(())
    }

    /// One turn of the shard: what arrived, answers, writes, then the transactions.
    fn turn(&mut self, now_ns: u64) {
        if self.accept_again_ns.is_some_and(|at| now_ns >= at) {
            self.accept_again_ns = None;
            self.transport.accept(&self.listener);
        }
        if now_ns >= self.next_check_ns {
            self.next_check_ns = now_ns + CHECK_PERIOD_NS;
            self.core.check_connections(now_ns);
        }
        self.take_events(now_ns);
        self.core.turn(now_ns);
        self.flush_dirty(now_ns);
        self.announce(now_ns);
        self.core.form(now_ns, clock::monotonic_ns);
    }

    /// Gives the kernel what was asked, and sleeps unless there is something to do.
    fn rest(&mut self, doorbell: &Doorbell) -> std::io::Result<()> {
        if self.has_work() || self.transport.has_events() {
            return self.transport.enter(Patience::None);
        }
        if self.core.settings().wait == Wait::Spin && self.spin()? {
            return Ok(());
        }
        let now_ns = clock::monotonic_ns();
        let due_ns = self.due_ns();
        self.core.await_gate();
        if due_ns <= now_ns || doorbell.poll(&self.waker, || self.has_work()).is_ready() {
            return self.transport.enter(Patience::None);
        }
        let patience = if due_ns == u64::MAX { Patience::Endless } else { Patience::Ns(due_ns - now_ns) };
        let entered = self.transport.enter(patience);
        // Whoever has something from now on need not wake us: it is looked for before the next sleep.
        doorbell.lower();
        entered
    }

    /// Looks for something to do for a while. Answers whether there is.
    fn spin(&mut self) -> std::io::Result<bool> {
        self.transport.enter(Patience::None)?;
        let until_ns = (clock::monotonic_ns() + SPIN_NS).min(self.due_ns());
        while clock::monotonic_ns() < until_ns {
            if self.transport.has_events() || self.has_work() {
                self.transport.enter(Patience::None)?;
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        Ok(false)
    }

    fn has_work(&self) -> bool {
        self.core.has_work() || (self.closing_since_ns.is_none() && self.core.shared().is_closed())
    }

    /// The next moment at which the shard must run without being asked.
    fn due_ns(&self) -> u64 {
        let check_ns = if self.core.connection_count() > 0 { self.next_check_ns } else { u64::MAX };
        let closing_ns = self.closing_since_ns.map_or(u64::MAX, |since| since + CLOSE_NS_MAX);
        let accept_ns = self.accept_again_ns.unwrap_or(u64::MAX);
        check_ns.min(closing_ns).min(accept_ns).min(self.core.next_deadline_ns())
    }

    /// Takes what happened on the sockets, until the turn has enough to recover; the rest stays where it is.
    fn take_events(&mut self, now_ns: u64) {
        for _ in 0..EVENTS_PER_TURN_MAX {
            if self.core.is_turn_full() {
                return;
            }
            match self.transport.next_event() {
                None => return,
                Some(Event::Rung) => {}
                Some(Event::Accepted { outcome, is_over }) => self.on_accepted(outcome, is_over, now_ns),
                Some(Event::Received { key, outcome }) => self.on_received(key, outcome, now_ns),
                Some(Event::Room { key }) => {
                    if let Some(peer) = peer_of(&mut self.sockets, key) {
                        peer.is_watched = false;
                        self.core.touch(key);
                    }
                }
            }
        }
    }

    fn on_accepted(&mut self, outcome: std::io::Result<TcpStream>, is_over: bool, now_ns: u64) {
        let has_failed = outcome.is_err();
        if let Ok(stream) = outcome {
            self.admit(stream, now_ns);
        }
        if is_over && has_failed {
            self.accept_again_ns = Some(now_ns + ACCEPT_PAUSE_NS);
        } else if is_over {
            self.transport.accept(&self.listener);
        }
    }

    /// Gives a new socket its place, or refuses it by the limit of connections.
    fn admit(&mut self, mut stream: TcpStream, now_ns: u64) {
        let connection_count = &self.core.shared().connection_count;
        // ORDERING: Relaxed; the count alone matters.
        let count = connection_count.fetch_add(1, Ordering::Relaxed);
        let network = stream.peer_addr().ok().map(|peer| network_of(peer.ip()));
        let of_network = network.and_then(|network| self.networks.get(&network)).copied().unwrap_or(0);
        let refusal = if count >= self.core.shared().limits.get(Limit::Connections) {
            Some(TOO_MANY_CONNECTIONS)
        } else {
            (of_network >= CONNECTIONS_PER_ADDRESS_MAX).then_some(TOO_MANY_OF_ADDRESS)
        };
        if let Some(text) = refusal {
            connection_count.fetch_sub(1, Ordering::Relaxed);
            // Best effort: the kernel takes so few bytes at once, and nobody waits for them.
            let _ = stream.write(text);
            return;
        }
        if let Some(network) = network {
            self.networks.insert(network, of_network + 1);
        }
        // Without it a reply waits for the acknowledgement of the one before; a socket that refuses works all the same.
        let _ = stream.set_nodelay(true);
        let key = self.core.open_from(network, now_ns);
        let index = key.connection as usize;
        if self.sockets.len() <= index {
            self.sockets.resize_with(index + 1, || None);
        }
        // Most peers connect because they have something to say.
        self.transport.receive(&stream, key, true);
        self.sockets[index] =
            Some(Peer { key, stream, network, is_receiving: true, is_ready: false, is_watched: false, is_shut: false });
        if self.core.connection_count() == 1 {
            // Nobody's deadlines were looked after until now.
            self.next_check_ns = now_ns + CHECK_PERIOD_NS;
        }
    }

    fn on_received(&mut self, key: ConnectionKey, outcome: Received, now_ns: u64) {
        let peer = peer_of(&mut self.sockets, key);
        if let Some(peer) = peer {
            peer.is_receiving = false;
            peer.is_ready = !matches!(outcome, Received::Bytes { has_more: false, .. });
        }
        match outcome {
            Received::Bytes { mut filled, .. } => {
                // Of a connection that is gone: nobody takes them.
                self.core.input(key, self.transport.bytes(&mut filled), now_ns);
                self.transport.give_back(filled);
            }
            Received::End => self.core.end_of_input(key),
            // Asked again when its turn writes: by then buffers are back.
            Received::NoBuffer => self.core.touch(key),
            Received::Lost => self.remove(key),
        }
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

    /// Writes a connection's output once, does what its phase asks for, and reads on.
    fn flush(&mut self, key: ConnectionKey, now_ns: u64) {
        let Self { core, sockets, transport, .. } = self;
        let Some(peer) = peer_of(sockets, key) else { return };
        let Some(connection) = core.connection(key) else { return };
        while !connection.output().is_empty() {
            match peer.stream.write(connection.output()) {
                Ok(bytes) => connection.output_written(bytes, now_ns),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    connection.output_written(0, now_ns);
                    if !std::mem::replace(&mut peer.is_watched, true) {
                        transport.watch_room(&peer.stream, key);
                    }
                    break;
                }
                Err(_) => return self.remove(key),
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
            Phase::Lingering if !peer.is_shut => {
                peer.is_shut = true;
                // A peer that is gone already needs no end of our side.
                let _ = peer.stream.shutdown(Shutdown::Write);
            }
            Phase::Open | Phase::Finishing | Phase::Lingering => {}
        }
        if !peer.is_receiving && connection.wants_read() {
            peer.is_receiving = true;
            transport.receive(&peer.stream, key, peer.is_ready);
        }
    }

    /// Closes a connection's socket and forgets it.
    fn remove(&mut self, key: ConnectionKey) {
        self.core.close(key);
        let Some(place) = self.sockets.get_mut(key.connection as usize) else { return };
        if place.as_ref().is_none_or(|peer| peer.key != key) {
            return;
        }
        if let Some(Peer { stream, network, is_receiving, is_watched, .. }) = place.take() {
            self.transport.close(stream, key, is_receiving, is_watched);
            if let Some(Entry::Occupied(mut count)) = network.map(|network| self.networks.entry(network)) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
        self.core.shared().connection_count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether a closing shard has nothing left to write, or no time left for it.
    fn is_finished(&mut self, since_ns: u64, now_ns: u64) -> bool {
        now_ns >= since_ns + CLOSE_NS_MAX || !self.has_output()
    }

    fn has_output(&mut self) -> bool {
        let Self { core, sockets, .. } = self;
        sockets.iter().flatten().any(|peer| {
            core.connection(peer.key).is_some_and(|connection| {
                matches!(connection.phase(), Phase::Open | Phase::Finishing) && !connection.output().is_empty()
            })
        })
    }
}

/// What connections are counted by: an address, or the network that one IPv6 subscriber has.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
    }
}

fn peer_of(sockets: &mut [Option<Peer>], key: ConnectionKey) -> Option<&mut Peer> {
    sockets.get_mut(key.connection as usize)?.as_mut().filter(|peer| peer.key == key)
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
    fn a_port_whose_connections_are_in_time_wait_is_free_and_one_that_is_listened_at_is_not() {
        use std::io::Read;
        let first = listen(([127, 0, 0, 1], 0).into()).expect("loopback");
        let address = first.local_addr().expect("bound");
        let far = TcpStream::connect(address).expect("it listens");
        first.set_nonblocking(false).expect("a socket");
        let (near, _) = first.accept().expect("connected");
        // Shards share the port; whoever asks for it alone is refused.
        let second = listen(address).expect("shared");
        assert!(TcpListener::bind(address).is_err());
        // Whoever closes first waits.
        drop(near);
        assert_eq!((&far).read(&mut [0]).expect("the end"), 0);
        drop((far, first, second));
        TcpListener::bind(address).expect("free at once");
        listen(address).expect("free at once");
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

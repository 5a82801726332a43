use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use super::*;

fn key(connection: u32, generation: u32) -> ConnectionKey {
    ConnectionKey { connection, generation }
}

struct Rig {
    transport: Transport,
    listener: TcpListener,
    bell: Arc<EventFd>,
}

impl Rig {
    fn new() -> Self {
        let bell = Arc::new(EventFd::new().expect("a descriptor"));
        let mut transport = Transport::new(Arc::clone(&bell)).expect("io_uring");
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
        transport.accept(&listener);
        Self { transport, listener, bell }
    }

    /// The next event; fails after 10 s.
    #[track_caller]
    fn event(&mut self) -> Event {
        for _ in 0..1_000 {
            if let Some(event) = self.transport.next_event() {
                return event;
            }
            self.transport.enter(Patience::Ns(10_000_000)).expect("the ring works");
        }
        panic!("nothing happened");
    }

    #[track_caller]
    fn connect(&mut self) -> (TcpStream, TcpStream) {
        let far = TcpStream::connect(self.listener.local_addr().expect("bound")).expect("it listens");
        far.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        match self.event() {
            Event::Accepted { outcome: Ok(near), is_over: false } => (near, far),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn bytes(&mut self, wanted: ConnectionKey) -> Vec<u8> {
        match self.event() {
            Event::Received { key, outcome: Received::Bytes { mut filled, .. } } if key == wanted => {
                let bytes = self.transport.bytes(&mut filled).to_vec();
                self.transport.give_back(filled);
                bytes
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn tags_come_back_as_they_were() {
    for kind in [Kind::Accept, Kind::Bell, Kind::Receive, Kind::Room, Kind::Cancel] {
        for key in [key(0, 0), key((1 << 28) - 1, u32::MAX), key(7, 1 << 31)] {
            assert!(untag(tag(kind, Some(key))) == Some((kind, key)));
        }
    }
    assert!(untag(5).is_none());
}

#[test]
fn bytes_arrive_in_order_in_pieces_of_a_buffer_and_then_the_end() {
    let mut rig = Rig::new();
    let (near, mut far) = rig.connect();
    let sent: Vec<u8> = (0..300_000_u32).map(|index| (index % 251) as u8).collect();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || {
        far.write_all(&copy).expect("taken");
        far.shutdown(Shutdown::Write).expect("open");
        far
    });
    let mut received = Vec::new();
    loop {
        rig.transport.receive(&near, key(3, 9), false);
        match rig.event() {
            Event::Received { key: of, outcome: Received::Bytes { mut filled, .. } } => {
                assert_eq!(of, key(3, 9));
                received.extend_from_slice(rig.transport.bytes(&mut filled));
                rig.transport.give_back(filled);
            }
            Event::Received { outcome: Received::End, .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(received == sent);
    drop(writer.join().expect("written"));
}

#[test]
fn a_closed_socket_is_closed_for_its_peer_though_a_receive_was_under_way() {
    let mut rig = Rig::new();
    let (near, mut far) = rig.connect();
    rig.transport.receive(&near, key(1, 1), false);
    rig.transport.enter(Patience::None).expect("submitted");
    rig.transport.close(near, key(1, 1), true, false);
    match rig.event() {
        Event::Received { key: of, outcome: Received::Lost } => assert_eq!(of, key(1, 1)),
        other => panic!("{other:?}"),
    }
    assert_eq!(far.read(&mut [0]).expect("closed in order"), 0);
}

#[test]
fn a_peer_hears_of_the_end_while_the_shard_sleeps() {
    let mut rig = Rig::new();
    let (near, mut far) = rig.connect();
    let bell = Arc::clone(&rig.bell);
    let reader = std::thread::spawn(move || {
        assert_eq!(far.read(&mut [0]).expect("closed in order"), 0);
        bell.signal();
    });
    rig.transport.close(near, key(1, 1), false, false);
    // Nothing but the signal ends this sleep early.
    rig.transport.enter(Patience::Ns(5_000_000_000)).expect("slept");
    assert!(matches!(rig.transport.next_event(), Some(Event::Rung)));
    reader.join().expect("heard of it");
}

#[test]
fn a_socket_closed_before_its_receive_reached_the_kernel_takes_nothing_from_the_next_one() {
    let mut rig = Rig::new();
    let (near, _far) = rig.connect();
    rig.transport.receive(&near, key(1, 1), false);
    rig.transport.close(near, key(1, 1), true, false);
    // Its number would be the next one's if it were free already.
    let (next, mut far) = rig.connect_quietly();
    rig.transport.receive(&next, key(1, 2), false);
    far.write_all(b"mine").expect("taken");
    loop {
        match rig.event() {
            Event::Received { key: of, outcome: Received::Lost } => assert_eq!(of, key(1, 1)),
            Event::Received { key: of, outcome: Received::Bytes { mut filled, .. } } => {
                assert_eq!(of, key(1, 2));
                assert_eq!(rig.transport.bytes(&mut filled), b"mine");
                return;
            }
            other => panic!("{other:?}"),
        }
    }
}

impl Rig {
    /// As `connect`, past the end of another connection's receive.
    #[track_caller]
    fn connect_quietly(&mut self) -> (TcpStream, TcpStream) {
        let far = TcpStream::connect(self.listener.local_addr().expect("bound")).expect("it listens");
        loop {
            match self.event() {
                Event::Accepted { outcome: Ok(near), .. } => return (near, far),
                Event::Received { outcome: Received::Lost, .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn without_a_buffer_a_receive_ends_and_works_again_later() {
    let mut rig = Rig::new();
    let (near, mut far) = rig.connect();
    let mut held = Vec::new();
    for _ in 0..BUFFER_COUNT {
        far.write_all(b"x").expect("taken");
        rig.transport.receive(&near, key(1, 1), true);
        match rig.event() {
            Event::Received { outcome: Received::Bytes { filled, .. }, .. } => held.push(filled),
            other => panic!("{other:?}"),
        }
    }
    far.write_all(b"last").expect("taken");
    rig.transport.receive(&near, key(1, 1), true);
    assert!(matches!(rig.event(), Event::Received { outcome: Received::NoBuffer, .. }));
    rig.transport.give_back(held.pop().expect("all of them"));
    rig.transport.receive(&near, key(1, 1), true);
    assert_eq!(rig.bytes(key(1, 1)), b"last");
}

#[test]
fn a_full_socket_is_reported_when_it_takes_more() {
    let mut rig = Rig::new();
    let (mut near, mut far) = rig.connect();
    let block = vec![7; 1 << 20];
    let mut written = 0;
    while let Ok(bytes) = near.write(&block) {
        written += bytes;
    }
    rig.transport.watch_room(&near, key(5, 2));
    rig.transport.enter(Patience::Ns(1_000_000)).expect("waited");
    assert!(rig.transport.next_event().is_none());
    let mut sink = vec![0; written];
    far.read_exact(&mut sink).expect("all of it");
    assert!(matches!(rig.event(), Event::Room { key: of } if of == key(5, 2)));
}

#[test]
fn a_signal_of_another_thread_ends_an_endless_wait() {
    let mut rig = Rig::new();
    for _ in 0..3 {
        let bell = Arc::clone(&rig.bell);
        let ringer = std::thread::spawn(move || bell.signal());
        while rig.transport.next_event().is_none() {
            rig.transport.enter(Patience::Endless).expect("the ring works");
        }
        ringer.join().expect("rung");
    }
}

#[test]
fn more_entries_than_the_ring_has_slots_all_reach_the_kernel() {
    let mut rig = Rig::new();
    let pairs: Vec<_> = (0..5).map(|_| rig.connect()).collect();
    for index in 0..2 * SUBMISSION_SLOTS {
        let (near, _) = &pairs[index as usize % pairs.len()];
        rig.transport.watch_room(near, key(index, 0));
    }
    let mut seen = vec![false; 2 * SUBMISSION_SLOTS as usize];
    while seen.contains(&false) {
        match rig.event() {
            Event::Room { key } => seen[key.connection as usize] = true,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_end_gives_the_port_back_at_once_and_closes_what_was_not_taken() {
    let Rig { mut transport, listener, .. } = Rig::new();
    let address = listener.local_addr().expect("bound");
    let mut far = TcpStream::connect(address).expect("it listens");
    far.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    transport.enter(Patience::Ns(1_000_000_000)).expect("somebody connected");
    drop(transport);
    drop(listener);
    assert_eq!(far.read(&mut [0]).expect("closed in order"), 0);
    TcpListener::bind(address).expect("nobody listens there");
}

#[test]
fn errors_at_the_start_say_what_to_do() {
    for (number, words) in
        [(EINVAL, "6.1 or newer"), (ENOSYS, "6.1 or newer"), (EPERM, "sysctl"), (ENOMEM, "ulimit -l")]
    {
        let text = setup_error(&io::Error::from_raw_os_error(number));
        assert!(text.contains(words), "{text}");
    }
}

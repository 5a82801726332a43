//! One sending thread: its connections and the schedule → requests out, replies in, by one epoll loop.

use std::num::NonZero;
use std::sync::atomic::Ordering;
use std::time::Instant;

use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};
use rustix::time::ClockId;

use super::Shared;
use super::connection::{Broken, Connection};
use super::queue::Record;
use super::replies::{ErrorClasses, Outcome, read_reply};
use crate::limits::LATENCY_NS_MAX;

/// Longest sleep, so that deadlines are seen in time.
const SLEEP_NS_MAX: u64 = 20_000_000;

/// How often the progress bar gets a fresh p99.
const PUBLISH_NS: u64 = 500_000_000;

/// Events taken per wake-up.
const EVENTS: usize = 256;

/// What one sending thread needs beside its connections.
#[derive(Debug, Clone)]
pub struct SenderConfig {
    pub start: Instant,
    /// Nothing new is sent after this.
    pub stop_sending_ns: u64,
    /// How long replies are waited for: in an open loop from the last intended time, in a closed loop from the last reply.
    pub drain_ns: u64,
    pub pin_core: Option<usize>,
    pub shared: Shared,
}

/// What one sending thread saw.
#[derive(Debug)]
pub struct SenderResult {
    /// First transaction, count and history of each request.
    pub requests: Vec<(u32, u32, Record)>,
    pub rejections: ErrorClasses,
    pub transport_errors: ErrorClasses,
    /// Transactions that were not sent because their connection was given up.
    pub given_up: u64,
    /// How late the generator noticed that a request was due (open loop).
    pub lag: Histogram<u64>,
    pub cpu_ns: u64,
    pub loop_turns: u64,
}

#[derive(Debug)]
pub struct Sender {
    config: SenderConfig,
    connections: Vec<Connection>,
    /// Connections of the open loop's requests in the order of their intended times, with those times.
    schedule: Vec<(u64, u32)>,
    next: usize,
    epoll: rustix::fd::OwnedFd,
    wants_write: Vec<bool>,
    latency: Histogram<u64>,
    published_ns: u64,
    /// Time of the last reply.
    progress_ns: u64,
    result: SenderResult,
}

pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are constants that hdrhistogram takes")
}

impl Sender {
    pub fn new(config: SenderConfig, connections: Vec<Connection>, schedule: Vec<(u64, u32)>) -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let sender = Self {
            wants_write: vec![false; connections.len()],
            connections,
            schedule,
            next: 0,
            epoll,
            latency: latency_histogram(),
            published_ns: 0,
            progress_ns: 0,
            result: SenderResult {
                requests: Vec::new(),
                rejections: ErrorClasses::default(),
                transport_errors: ErrorClasses::default(),
                given_up: 0,
                lag: latency_histogram(),
                cpu_ns: 0,
                loop_turns: 0,
            },
            config,
        };
        for index in 0..sender.connections.len() {
            sender.register(index)?;
        }
        Ok(sender)
    }

    /// Runs until everything is answered, or the drain time is over.
    pub fn run(mut self) -> std::io::Result<SenderResult> {
        if let Some(core) = self.config.pin_core {
            let mut set = rustix::thread::CpuSet::new();
            set.set(core);
            rustix::thread::sched_setaffinity(None, &set)?;
        }
        // The default slack of 50 µs would make every sleep late by as much.
        rustix::thread::set_current_timer_slack(NonZero::new(1))?;
        while self.now_ns() == 0 {
            std::thread::sleep(self.config.start.saturating_duration_since(Instant::now()));
        }
        let cpu_before_ns = thread_cpu_ns();
        let closed_loop = self.schedule.is_empty();
        if closed_loop {
            for index in 0..self.connections.len() {
                self.flush(index)?;
            }
        }
        self.turn_until_done(closed_loop)?;
        self.result.cpu_ns = thread_cpu_ns() - cpu_before_ns;
        for connection in self.connections {
            let requests = &connection.load.requests;
            let records = connection.queue.into_records();
            self.result.requests.extend(requests.iter().zip(records).map(|(r, record)| (r.first, r.count, record)));
        }
        Ok(self.result)
    }

    fn turn_until_done(&mut self, closed_loop: bool) -> std::io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let mut all_due_ns = None;
        loop {
            let now_ns = self.now_ns();
            self.send_due(now_ns)?;
            let stopped = now_ns >= self.config.stop_sending_ns;
            if stopped {
                self.next = self.schedule.len();
                self.connections.iter_mut().for_each(|c| c.queue.stop());
            }
            if stopped || closed_loop || self.next == self.schedule.len() {
                // An open loop drains from its last intended time, a closed loop from its last sign of life.
                let drain_from_ns = if closed_loop { self.progress_ns } else { *all_due_ns.get_or_insert(now_ns) };
                let idle = self.connections.iter().all(|c| c.queue.is_idle() || c.stream().is_none());
                if idle || now_ns.saturating_sub(drain_from_ns) >= self.config.drain_ns {
                    return Ok(());
                }
            }
            let due_ns = self.schedule.get(self.next).map_or(u64::MAX, |&(intended_ns, _)| intended_ns);
            let sleep_ns = due_ns.min(self.config.stop_sending_ns).saturating_sub(self.now_ns()).min(SLEEP_NS_MAX);
            self.wait(&mut events, if stopped { SLEEP_NS_MAX } else { sleep_ns })?;
            self.result.loop_turns += 1;
        }
    }

    /// Releases and sends what is due.
    fn send_due(&mut self, now_ns: u64) -> std::io::Result<()> {
        let from = self.next;
        while let Some(&(intended_ns, connection)) = self.schedule.get(self.next)
            && intended_ns <= now_ns
        {
            self.connections[connection as usize].queue.make_due();
            self.result.lag.saturating_record((now_ns - intended_ns).max(1));
            self.next += 1;
        }
        for at in from..self.next {
            let connection = self.schedule[at].1 as usize;
            if !self.wants_write[connection] && !self.connections[connection].queue.sendable().is_empty() {
                self.flush(connection)?;
            }
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Vec<epoll::Event>, sleep_ns: u64) -> std::io::Result<()> {
        events.clear();
        let timeout = Timespec { tv_sec: 0, tv_nsec: sleep_ns as _ };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.iter() {
            // The data is the connection's index, set in `interest`.
            let index = event.data.u64() as usize;
            // Copied, because the kernel's structure is packed.
            let flags = event.flags;
            if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                self.receive(index)?;
            }
            self.flush(index)?;
        }
        if !events.is_empty() {
            self.publish();
        }
        Ok(())
    }

    fn receive(&mut self, index: usize) -> std::io::Result<()> {
        let connection = &mut self.connections[index];
        match connection.receive() {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(broken) => return self.restart(index, &broken),
        }
        let now_ns = nanoseconds_since(self.config.start);
        self.progress_ns = now_ns;
        let (result, latency, shared) = (&mut self.result, &mut self.latency, &self.config.shared);
        let (mut accepted, mut failed) = (0, 0);
        let taken = connection.take_replies(now_ns, |load, index, record, status, body| {
            let request = load.requests[index];
            let errors = if status == 200 { &mut result.rejections } else { &mut result.transport_errors };
            read_reply(status, body, request, &shared.hashes, errors, |tx, outcome| {
                shared.outcomes.set(tx, outcome);
                if outcome == Outcome::Accepted { accepted += 1 } else { failed += 1 }
            });
            latency.saturating_record(record.latency_ns().unwrap_or(1).max(1));
        });
        self.config.shared.live.accepted.fetch_add(accepted, Ordering::Relaxed);
        self.config.shared.live.failed.fetch_add(failed, Ordering::Relaxed);
        match taken {
            Ok(()) => Ok(()),
            Err(broken) => self.restart(index, &broken),
        }
    }

    fn flush(&mut self, index: usize) -> std::io::Result<()> {
        let connection = &mut self.connections[index];
        let sent_before = connection.queue.sent();
        let flushed = connection.flush(nanoseconds_since(self.config.start));
        let newly_sent = &connection.load.requests[sent_before..connection.queue.sent()];
        let count: u64 = newly_sent.iter().map(|request| u64::from(request.count)).sum();
        if count > 0 {
            self.config.shared.live.sent.fetch_add(count, Ordering::Relaxed);
        }
        match flushed {
            Ok(complete) if complete == self.wants_write[index] => {
                self.wants_write[index] = !complete;
                self.interest(index, false)
            }
            Ok(_) => Ok(()),
            Err(broken) => self.restart(index, &broken),
        }
    }

    /// Counts what a broken connection lost and opens it again.
    fn restart(&mut self, index: usize, broken: &Broken) -> std::io::Result<()> {
        let connection = &mut self.connections[index];
        // Closing the old socket takes it out of the epoll set.
        let mut lost = 0;
        for request in connection.queue.fail_outstanding() {
            let request = connection.load.requests[request];
            lost += u64::from(request.count);
            let indexes = request.first..request.first + request.count;
            indexes.for_each(|tx| self.config.shared.outcomes.set(tx, Outcome::TransportError));
        }
        if lost > 0 {
            self.result.transport_errors.add(broken.class(), lost);
            self.config.shared.live.failed.fetch_add(lost, Ordering::Relaxed);
        }
        connection.reopen();
        self.wants_write[index] = false;
        if connection.stream().is_none() {
            let unsent = &connection.load.requests[connection.queue.sent()..];
            self.result.given_up += unsent.iter().map(|request| u64::from(request.count)).sum::<u64>();
            self.result.transport_errors.add("a connection was given up".into(), 1);
            connection.queue.stop();
            return Ok(());
        }
        self.register(index)?;
        // What is due meanwhile goes out when the loop comes back here; epoll reports the fresh socket as writable.
        self.wants_write[index] = true;
        self.interest(index, false)
    }

    fn register(&self, index: usize) -> std::io::Result<()> {
        self.interest(index, true)
    }

    fn interest(&self, index: usize, new: bool) -> std::io::Result<()> {
        let Some(stream) = self.connections[index].stream() else { return Ok(()) };
        let mut flags = epoll::EventFlags::IN;
        flags.set(epoll::EventFlags::OUT, self.wants_write[index]);
        let data = epoll::EventData::new_u64(index as u64);
        if new {
            epoll::add(&self.epoll, stream, data, flags)?
        } else {
            epoll::modify(&self.epoll, stream, data, flags)?
        }
        Ok(())
    }

    fn publish(&mut self) {
        let now_ns = self.now_ns();
        if now_ns - self.published_ns >= PUBLISH_NS {
            self.published_ns = now_ns;
            self.config.shared.live.p99_ns.store(self.latency.value_at_quantile(0.99), Ordering::Relaxed);
        }
    }

    fn now_ns(&self) -> u64 {
        nanoseconds_since(self.config.start)
    }
}

/// Nanoseconds since `start`; 0 before it.
pub fn nanoseconds_since(start: Instant) -> u64 {
    // 2^64 ns are 584 years.
    Instant::now().saturating_duration_since(start).as_nanos() as u64
}

fn thread_cpu_ns() -> u64 {
    cpu_ns(ClockId::ThreadCPUTime)
}

/// CPU time of the whole process so far.
pub fn process_cpu_ns() -> u64 {
    cpu_ns(ClockId::ProcessCPUTime)
}

fn cpu_ns(clock: ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    // CPU time is never negative.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

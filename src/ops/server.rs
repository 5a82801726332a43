//! The HTTP server of metrics and health: `/` and `/metrics`, `/livez`, `/readyz`, `/healthz`. Reads only, and nothing that a request holds but its
//! path and Host.
//!
//! Owner: the `ops` thread, one current-thread runtime. Bounds: [`CONNECTIONS_MAX`], [`CONNECTIONS_PER_ADDRESS_MAX`], [`HEAD_BYTES_MAX`], times for
//! a head and for a connection. A page is made at most every [`PAGE_NS`], however many ask.

use std::cell::RefCell;
use std::net::{IpAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_lite::future::or;
use http_body_util::Full;
use hyper::body::{Bytes as Body, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

use super::collect::{self, Known};
use super::health::{self, Facts, Probe};
use crate::codec::http::host_is_allowed;
use crate::limits;
use crate::metrics::exposition::CONTENT_TYPE as PAGE_TYPE;
use crate::runtime::clock;
use crate::topology::Shared;

/// Open connections. On full: the oldest of who has the most of them is closed for the newcomer, so that nobody is kept out. A scraper or two, a load balancer's probes, and whoever looks by hand.
pub const CONNECTIONS_MAX: usize = 64;
/// Of one address, or of one IPv6 network of 64 bits. On full: its oldest is closed.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 16;
/// Of a request's head; nothing here needs more than a path and a host.
const HEAD_BYTES_MAX: usize = 16 * 1_024;
/// A head that takes longer ends its connection, an idle one too.
const HEAD_LIMIT: Duration = Duration::from_secs(15);
/// A connection ends after this long whatever it does: one whose peer does not read is ended by it.
const CONNECTION_LIMIT: Duration = Duration::from_secs(120);
/// How old a page may be that is shown.
const PAGE_NS: u64 = 100_000_000;
/// How often it is looked whether the process has closed.
const CLOSE_POLL: Duration = Duration::from_nanos(limits::PARK_NS_MAX);
/// Pause after an accept that failed: the process has no descriptors left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What the thread owns.
pub struct OpsSeat {
    /// One that does not block.
    pub listener: StdListener,
    /// Host names that are answered to beside localhost and addresses (`http.vhosts`).
    pub vhosts: Vec<String>,
    pub known: Known,
    /// Set when the process has its threads.
    pub shared: Arc<OnceLock<Arc<Shared>>>,
    /// The start has failed.
    pub is_over: Arc<AtomicBool>,
}

struct Server {
    vhosts: Vec<String>,
    known: Known,
    shared: Arc<OnceLock<Arc<Shared>>>,
    /// Monotonic time and text of the newest page.
    page: RefCell<(u64, Body)>,
    connections: Connections,
}

/// Open connections, oldest first.
#[derive(Default)]
struct Connections(RefCell<Vec<Open>>);

struct Open {
    network: IpAddr,
    end: Rc<Notify>,
}

/// Serves until the process closes.
///
/// # Errors
/// What the thread could not be given.
pub fn run(seat: OpsSeat) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| format!("the runtime could not be started: {error}"))?;
    LocalSet::new().block_on(&runtime, serve(seat))
}

async fn serve(seat: OpsSeat) -> Result<(), String> {
    let OpsSeat { listener, vhosts, known, shared, is_over } = seat;
    let listener = TcpListener::from_std(listener).map_err(|error| error.to_string())?;
    let server = Rc::new(Server {
        vhosts,
        known,
        shared: Arc::clone(&shared),
        page: RefCell::new((0, Body::new())),
        connections: Connections::default(),
    });
    let closed = async {
        while !is_over.load(Ordering::Relaxed) && !shared.get().is_some_and(|shared| shared.is_closed()) {
            tokio::time::sleep(CLOSE_POLL).await;
        }
    };
    or(closed, accept(server, listener)).await;
    Ok(())
}

async fn accept(server: Rc<Server>, listener: TcpListener) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok((stream, peer)) => (stream, peer.ip()),
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let end = server.connections.take(peer);
        let server = Rc::clone(&server);
        spawn_local(async move {
            // Its end is all that matters: nothing is kept for it.
            let served = async {
                let _ = tokio::time::timeout(CONNECTION_LIMIT, connection(&server, stream)).await;
            };
            or(end.notified(), served).await;
            server.connections.gone(&end);
        });
        // Who came is read from before the next one may take its place.
        tokio::task::yield_now().await;
    }
}

async fn connection(server: &Rc<Server>, stream: TcpStream) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = server.respond(&request);
        async move { Ok::<_, std::convert::Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).max_buf_size(HEAD_BYTES_MAX);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection ended");
    }
}

impl Connections {
    /// Takes a connection; answers what tells it that its place is another's.
    fn take(&self, peer: IpAddr) -> Rc<Notify> {
        let (mut open, network) = (self.0.borrow_mut(), network(peer));
        let of = |open: &[Open], network: IpAddr| open.iter().filter(|other| other.network == network).count();
        let evicted = if of(&open, network) >= CONNECTIONS_PER_ADDRESS_MAX {
            open.iter().position(|other| other.network == network)
        } else if open.len() >= CONNECTIONS_MAX {
            // Of equals the first: who opens many pays for the newcomer, and not who has one.
            (0..open.len()).max_by_key(|index| (of(&open, open[*index].network), std::cmp::Reverse(*index)))
        } else {
            None
        };
        if let Some(index) = evicted {
            open.remove(index).end.notify_one();
        }
        let end = Rc::new(Notify::new());
        open.push(Open { network, end: Rc::clone(&end) });
        end
    }

    fn gone(&self, end: &Rc<Notify>) {
        self.0.borrow_mut().retain(|other| !Rc::ptr_eq(&other.end, end));
    }
}

/// What counts as one peer: an IPv4 address, or an IPv6 network of 64 bits.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::from((u128::from(address) >> 64 << 64).to_be_bytes()),
        address => address,
    }
}

impl Server {
    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Body>> {
        if !self.is_host_allowed(request) {
            return plain(StatusCode::FORBIDDEN, "invalid host specified\n");
        }
        let path = request.uri().path();
        let probe = Probe::of_path(path);
        if probe.is_none() && !matches!(path, "/" | "/metrics") {
            return plain(StatusCode::NOT_FOUND, "not found: /metrics, /livez, /readyz and /healthz are here\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let now_ns = clock::monotonic_ns();
        match probe {
            Some(probe) => self.answer(probe, now_ns),
            None => typed(StatusCode::OK, PAGE_TYPE, self.page(now_ns)),
        }
    }

    /// As on every port: a page of another site that points its own name here names itself in Host. HTTP/1.0 may leave Host out; browsers never do.
    fn is_host_allowed(&self, request: &Request<Incoming>) -> bool {
        let mut hosts = request.headers().get_all(HOST).iter();
        let is_single = |host: &HeaderValue| host_is_allowed(host.as_bytes(), &self.vhosts);
        let host_fits = match (hosts.next(), hosts.next()) {
            (Some(host), None) => is_single(host),
            (None, _) => request.version() == Version::HTTP_10,
            (Some(_), Some(_)) => false,
        };
        let of_target = request.uri().authority();
        host_fits && of_target.is_none_or(|name| host_is_allowed(name.as_str().as_bytes(), &self.vhosts))
    }

    fn answer(&self, probe: Probe, now_ns: u64) -> Response<Full<Body>> {
        let facts = self.shared.get().map_or_else(Facts::starting, |shared| Facts::of(shared, now_ns));
        let reasons = health::judge(&facts);
        let status = StatusCode::from_u16(health::level(&reasons, probe).status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        typed(status, "application/json", Body::from(health::body(&reasons, probe)))
    }

    fn page(&self, now_ns: u64) -> Body {
        let mut page = self.page.borrow_mut();
        if page.1.is_empty() || now_ns - page.0 >= PAGE_NS {
            *page = (now_ns, Body::from(collect::page(&self.known, self.shared.get().map(AsRef::as_ref), now_ns)));
        }
        page.1.clone()
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Body>> {
    typed(status, "text/plain; charset=utf-8", Body::from_static(text.as_bytes()))
}

fn typed(status: StatusCode, content_type: &'static str, body: Body) -> Response<Full<Body>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes connections of one network; those that were told to go by then.
    fn evicted(ends: &[Rc<Notify>]) -> usize {
        let is_told = |end: &&Rc<Notify>| {
            futures_lite::future::block_on(futures_lite::future::poll_once(end.notified())).is_some()
        };
        ends.iter().filter(is_told).count()
    }

    #[test]
    fn nobody_keeps_others_out_and_who_has_most_gives_way() {
        let server = Connections::default();
        let peer = |last: u8| IpAddr::from([10, 0, 0, last]);
        let scraper = [server.take(peer(200))];
        let many: Vec<_> = (0..2 * CONNECTIONS_MAX).map(|_| server.take(peer(1))).collect();
        assert_eq!(evicted(&many[..2 * CONNECTIONS_MAX - CONNECTIONS_PER_ADDRESS_MAX]), 2 * CONNECTIONS_MAX - 16);
        assert_eq!(
            evicted(&many[2 * CONNECTIONS_MAX - CONNECTIONS_PER_ADDRESS_MAX..]),
            0,
            "the newest have their places"
        );
        // Several addresses fill all places: the newcomer has one, and so has who was there first with one alone.
        let others: Vec<_> =
            (2..=4).flat_map(|last| (0..16).map(move |_| last)).map(|last| server.take(peer(last))).collect();
        assert_eq!(server.0.borrow().len(), CONNECTIONS_MAX);
        let newcomers: Vec<_> = (100..150).map(|last| server.take(peer(last))).collect();
        assert_eq!(server.0.borrow().len(), CONNECTIONS_MAX);
        assert_eq!((evicted(&scraper), evicted(&newcomers)), (0, 0));
        assert!(evicted(&others) > 30);
        server.gone(&newcomers[0]);
        assert_eq!(server.0.borrow().len(), CONNECTIONS_MAX - 1);
    }

    #[test]
    fn an_ipv6_network_is_one_peer() {
        let of = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}

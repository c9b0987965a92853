//! Opens connections as fast as it can, or one after the other, and measures: the load of scripts/bench. Plain TCP; it knows
//! nothing of enotun.
//!
//!     load serve PORT [THREADS]                       answers each connection's first byte with one, then closes
//!     load run ADDRESS PORT THREADS SECONDS           THREADS clients open one connection after the other
//!     load count ADDRESS PORT THREADS NUMBER          the same, until NUMBER connections were made in all
//!     load echo PORT                                  sends each byte back, on connections that stay
//!     load rtt ADDRESS PORT NUMBER                    one connection, NUMBER times a byte there and back
//!     load hold PORT                                  as serve, but keeps each connection open
//!     load idle ADDRESS PORT NUMBER                   opens NUMBER connections, says `open`, keeps them until stdin ends
//!
//! A connection of `run` and `count` is: connect, a byte there, a byte back, the server's end of file. They print one line of
//! JSON: connections, seconds, errors, and the times in microseconds from the start of connect to its end and to the
//! byte that came back, as median and 99th percentile. `rtt` prints round trips per second, and their times likewise.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What one client saw: times until connected and until answered.
#[derive(Default)]
struct Seen {
    times: Vec<(Duration, Duration)>,
    errors: u64,
    last: String,
}

/// What a server does with a connection.
#[derive(Clone, Copy)]
enum Service {
    /// One byte, and closed.
    Answer,
    /// One byte, and kept.
    Hold,
    /// Every byte.
    Echo,
}

fn serve(port: u16, threads: usize, service: Service) -> io::Result<()> {
    if matches!(service, Service::Hold) {
        lift_descriptor_limit()?;
    }
    // IPv4 as well: Linux's default.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut held = Vec::new();
                for stream in listener.incoming() {
                    // A client that went away is its own affair.
                    match (service, stream.and_then(answer)) {
                        (Service::Hold, Ok(stream)) => held.push(stream),
                        (Service::Echo, Ok(mut stream)) => {
                            let _ = stream.set_read_timeout(None);
                            let mut byte = [0];
                            while stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte)).is_ok() {}
                        }
                        _ => {}
                    }
                }
            });
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<TcpStream> {
    let mut byte = [0];
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.read_exact(&mut byte)?;
    stream.write_all(&byte)?;
    Ok(stream)
}

/// Descriptors for the connections of `hold` and `idle`: as many as are allowed.
fn lift_descriptor_limit() -> io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// Opens connections and keeps them.
fn idle(to: SocketAddr, number: u64) -> io::Result<()> {
    const THREADS: u64 = 8;
    lift_descriptor_limit()?;
    let open = |share: u64| -> io::Result<Vec<TcpStream>> {
        let mut held = Vec::new();
        for _ in 0..share {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(30))?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            stream.write_all(b"x")?;
            stream.read_exact(&mut [0])?;
            held.push(stream);
        }
        Ok(held)
    };
    let open = &open;
    let held: io::Result<Vec<_>> = std::thread::scope(|scope| {
        let share = |thread| number / THREADS + u64::from(thread < number % THREADS);
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || open(share(thread)))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("panicked")))).collect()
    });
    let held = held?;
    println!("open");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    drop(held);
    Ok(())
}

/// A byte there and back, over and over.
fn rtt(to: SocketAddr, number: u64) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut byte = *b"x";
    let mut times = Vec::new();
    let start = Instant::now();
    for _ in 0..number {
        let begin = Instant::now();
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        times.push(begin.elapsed());
    }
    let per_second = number as f64 / start.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |part: usize| {
        let time = times.get(times.len() * part / 100).copied().unwrap_or_default();
        time.as_nanos() as f64 / 1e3
    };
    println!("{{\"per_second\":{per_second:.0},\"rtt_us\":{{\"median\":{:.1},\"p99\":{:.1}}}}}", at(50), at(99));
    Ok(())
}

fn one(to: SocketAddr) -> io::Result<(Duration, Duration)> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
    let connected = begin.elapsed();
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"x")?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    let answered = begin.elapsed();
    match stream.read(&mut byte)? {
        0 => Ok((connected, answered)),
        _ => Err(io::Error::other("more than one byte came back")),
    }
}

/// Runs clients until `until` or until `number` connections were begun.
fn run(to: SocketAddr, threads: usize, until: Option<Duration>, number: u64) -> (Duration, Vec<Seen>) {
    let begun = AtomicU64::new(0);
    let start = Instant::now();
    let client = || {
        let mut seen = Seen::default();
        while until.is_none_or(|until| start.elapsed() < until) && begun.fetch_add(1, Ordering::Relaxed) < number {
            match one(to) {
                Ok(times) => seen.times.push(times),
                Err(error) => {
                    seen.errors += 1;
                    seen.last = error.to_string();
                }
            }
        }
        seen
    };
    let seen = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..threads).map(|_| scope.spawn(client)).collect();
        clients.into_iter().filter_map(|client| client.join().ok()).collect()
    });
    (start.elapsed(), seen)
}

fn report(took: Duration, seen: Vec<Seen>) -> bool {
    let errors: u64 = seen.iter().map(|seen| seen.errors).sum();
    if let Some(seen) = seen.iter().find(|seen| seen.errors > 0) {
        eprintln!("load: {errors} errors, one of them: {}", seen.last);
    }
    let all: Vec<(Duration, Duration)> = seen.into_iter().flat_map(|seen| seen.times).collect();
    let quantiles = |which: fn(&(Duration, Duration)) -> Duration| {
        let mut times: Vec<u128> = all.iter().map(|times| which(times).as_micros()).collect();
        times.sort_unstable();
        let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or(0);
        format!("{{\"median\":{},\"p99\":{}}}", at(50), at(99))
    };
    println!(
        "{{\"connections\":{},\"seconds\":{:.3},\"errors\":{errors},\"connect_us\":{},\"answer_us\":{}}}",
        all.len(),
        took.as_secs_f64(),
        quantiles(|times| times.0),
        quantiles(|times| times.1)
    );
    !all.is_empty()
}

fn done(result: io::Result<()>) -> bool {
    result.map_err(|error| eprintln!("load: {error}")).is_ok()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().ok();
    let target = |address: &str, port: &str| Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, port.parse().ok()?));
    let good = match arguments[..] {
        [mode @ ("serve" | "echo" | "hold"), port, ref rest @ ..] => {
            let threads = rest.first().and_then(|text| number(text)).unwrap_or(8);
            let service = match mode {
                "serve" => Service::Answer,
                "echo" => Service::Echo,
                _ => Service::Hold,
            };
            port.parse().ok().map(|port| done(serve(port, threads as usize, service)))
        }
        ["rtt", address, port, times] => {
            target(address, port).zip(number(times)).map(|(to, times)| done(rtt(to, times)))
        }
        ["idle", address, port, many] => target(address, port).zip(number(many)).map(|(to, many)| done(idle(to, many))),
        [mode @ ("run" | "count"), address, port, threads, limit] => {
            target(address, port).zip(number(threads).zip(number(limit))).map(|(to, (threads, limit))| {
                let (until, most) =
                    if mode == "run" { (Some(Duration::from_secs(limit)), u64::MAX) } else { (None, limit) };
                let (took, seen) = run(to, threads as usize, until, most);
                report(took, seen)
            })
        }
        _ => None,
    };
    match good {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => {
            eprintln!(
                "usage: load serve|echo|hold PORT [THREADS] | run ADDRESS PORT THREADS SECONDS | count ADDRESS PORT THREADS NUMBER | rtt ADDRESS PORT NUMBER | idle ADDRESS PORT NUMBER"
            );
            ExitCode::from(2)
        }
    }
}

//! Opens connections as fast as it can, or one after the other, and measures: the load of scripts/bench. Plain TCP; it knows
//! nothing of enotun.
//!
//!     load serve PORT [THREADS]                       answers each connection's first byte with one, then closes
//!     load run ADDRESS PORT THREADS SECONDS           THREADS clients open one connection after the other
//!     load count ADDRESS PORT THREADS NUMBER          the same, until NUMBER connections were made in all
//!
//! A connection is: connect, a byte there, a byte back, the server's end of file. `run` and `count` print one line of
//! JSON: connections, seconds, errors, and the times in microseconds from the start of connect to its end and to the
//! byte that came back, as median and 99th percentile.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What one client saw: times until connected and until answered.
#[derive(Default)]
struct Seen {
    times: Vec<(Duration, Duration)>,
    errors: u64,
    last: String,
}

fn serve(port: u16, threads: usize) -> io::Result<()> {
    // IPv4 as well: Linux's default.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for stream in listener.incoming() {
                    // A client that went away is its own affair.
                    let _ = stream.and_then(answer);
                }
            });
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut byte = [0];
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.read_exact(&mut byte)?;
    stream.write_all(&byte)
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

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().ok();
    let target = |address: &str, port: &str| Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, port.parse().ok()?));
    let good = match arguments[..] {
        ["serve", port, ref rest @ ..] => {
            let threads = rest.first().and_then(|text| number(text)).unwrap_or(8);
            port.parse()
                .ok()
                .map(|port| serve(port, threads as usize).map_err(|error| eprintln!("load: {error}")).is_ok())
        }
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
                "usage: load serve PORT [THREADS] | run ADDRESS PORT THREADS SECONDS | count ADDRESS PORT THREADS NUMBER"
            );
            ExitCode::from(2)
        }
    }
}

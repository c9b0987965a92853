//! Addresses with ports, in the forms in which people have them: from `enotun flows`, ss(8), netstat(8).

use std::net::{IpAddr, SocketAddr};

use crate::daemon::config::check_interface;

/// The file with service names.
const SERVICES: &str = "/etc/services";

/// Parses one end of a connection: `10.0.0.1:443`, `[2001:db8::1]:443`; an IPv4 address in an IPv6 socket
/// (`[::ffff:10.0.0.1]:443`); with the interface that ss appends (`[2001:db8::1]%eth0:443`, `10.0.0.1%eth0:443`),
/// which does not distinguish connections here; with a service for the port (`10.0.0.1:https`), as ss prints without
/// `-n`.
pub(super) fn end(text: &str) -> Result<SocketAddr, String> {
    parse(text, |name| std::fs::read_to_string(SERVICES).ok().and_then(|services| port_of(&services, name)))
}

/// Parses an address without a port, in the same forms.
pub(super) fn host(text: &str) -> Option<IpAddr> {
    // `[...]`, `[...%eth0]` and `[...]%eth0`: an interface may be in one place only.
    let (text, scope) = match text.strip_prefix('[') {
        None => text.split_once('%').map_or((text, None), |(address, scope)| (address, Some(scope))),
        Some(rest) => {
            let (inside, behind) = rest.split_once(']')?;
            match (inside.split_once('%'), behind.strip_prefix('%')) {
                (Some((address, scope)), None) if behind.is_empty() => (address, Some(scope)),
                (None, scope) if behind.is_empty() || scope.is_some() => (inside, scope),
                _ => return None,
            }
        }
    };
    if scope.is_some_and(|scope| check_interface(scope).is_err()) {
        return None;
    }
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn parse(text: &str, service: impl Fn(&str) -> Option<u16>) -> Result<SocketAddr, String> {
    let shape = || {
        format!("`{text}` is not an address with a port; write it as ss(8) does, 10.0.0.1:40000 or [2001:db8::1]:40000")
    };
    let (address, port) = text.trim().rsplit_once(':').ok_or_else(shape)?;
    let bracketed = address.starts_with('[');
    // Without brackets, the end of an IPv6 address is recognisable only if it ends in an IPv4 address, or has an
    // interface.
    if address.contains(':') && !bracketed && !address.contains(['.', '%']) {
        return Err(format!("`{text}`: an IPv6 address with a port must be in brackets, as in [2001:db8::1]:40000"));
    }
    let ip = host(address).ok_or_else(shape)?;
    let port = match port.parse::<u16>() {
        Ok(port) => port,
        Err(_) if port.bytes().any(|byte| byte.is_ascii_alphabetic()) => service(port)
            .ok_or_else(|| format!("`{text}`: {SERVICES} has no TCP service `{port}`; write its number"))?,
        Err(_) => return Err(shape()),
    };
    Ok(SocketAddr::new(ip, port))
}

/// The port of a TCP service in services(5).
fn port_of(services: &str, name: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (first, place) = (words.next()?, words.next()?);
        let port = place.strip_suffix("/tcp")?.parse().ok()?;
        (first == name || words.any(|alias| alias == name)).then_some(port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<String> {
        let services = "# comment\nssh 22/tcp\ndomain 53/udp\nhttps\t443/tcp\t\twww-ssl # and more\n";
        parse(text, |name| port_of(services, name)).ok().map(|end| end.to_string())
    }

    #[test]
    fn ends_are_taken_as_ss_prints_them() {
        for (text, means) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
            ("::ffff:10.0.0.1:80", "10.0.0.1:80"),
            ("10.0.0.1%eth0:80", "10.0.0.1:80"),
            ("[2001:db8::1]%eth0.7:80", "[2001:db8::1]:80"),
            ("[fe80::1%eth0]:80", "[fe80::1]:80"),
            ("fe80::1%eth0:80", "[fe80::1]:80"),
            ("[fe80::1]%2:80", "[fe80::1]:80"),
            ("10.0.0.1:ssh", "10.0.0.1:22"),
            ("[::ffff:10.0.0.1]:www-ssl", "10.0.0.1:443"),
        ] {
            assert_eq!(parsed(text).as_deref(), Some(means), "{text}");
        }
    }

    #[test]
    fn what_is_no_end_of_a_connection_is_refused() {
        for text in [
            "",
            "10.0.0.1",
            "here:1",
            "10.0.0.1:",
            "10.0.0.1:70000",
            "10.0.0.1:-1",
            "10.0.0.1:domain",
            "10.0.0.1:nothing",
            "2001:db8::1:443",
            "[2001:db8::1]",
            "[2001:db8::1]443",
            "*:80",
            "10.0.0.1%:80",
            "10.0.0.1%a b:80",
            "[10.0.0.1:80",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn hosts_have_the_same_forms() {
        for text in ["10.0.0.1", "::ffff:10.0.0.1", "[::ffff:10.0.0.1]", "10.0.0.1%eth0"] {
            assert_eq!(host(text), Some(IpAddr::from([10, 0, 0, 1])), "{text}");
        }
        for text in ["", "10.0.0.1:80", "db.example", "[10.0.0.1"] {
            assert_eq!(host(text), None, "{text}");
        }
    }
}

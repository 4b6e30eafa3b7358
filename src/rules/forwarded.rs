//! Whom a request comes from, where proxies stand before the gate: what `Forwarded` (RFC 7239), or failing that
//! `X-Forwarded-For`, says of it, as far as it was written by somebody trusted.
//!
//! Each proxy adds at the right whom it was called by. So the way back is walked from the right: the connection's own
//! address, if it is trusted, vouches for the last entry; if that one is trusted too, for the one before it. Whatever
//! stands further left anybody may have written. Where an entry is no address (`unknown`, `_hidden`, or what cannot be
//! read), the walk ends with the last address that was vouched for.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A block of addresses, such as `10.0.0.0/8`; a single one without its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    length: u8,
}

/// Why a text is no [`Network`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoNetwork {
    /// It is no address with a prefix length.
    Unreadable,
    /// It has bits behind its prefix; this is the network they lie in.
    Beyond(Network),
}

impl Network {
    /// Whether `address` lies in it. An IPv4 address is the same however it is written.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                masked(address.to_canonical(), self.length) == self.first
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| NoNetwork::Unreadable)?;
        let address = written.to_canonical();
        let bits = bits_of(address);
        let length = match length {
            None => bits,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                // `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
                let mapped = bits_of(written) - bits;
                let length: u8 = digits.parse().map_err(|_| NoNetwork::Unreadable)?;
                length.checked_sub(mapped).ok_or(NoNetwork::Unreadable)?
            }
            Some(_) => return Err(NoNetwork::Unreadable),
        };
        if length > bits {
            return Err(NoNetwork::Unreadable);
        }
        let network = Self { first: masked(address, length), length };
        if network.first == address { Ok(network) } else { Err(NoNetwork::Beyond(network)) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.length)
    }
}

/// Whom a request on a connection from `connection` comes from.
///
/// A proxy writes one of the two fields and may pass the other on as it came. So where both name somebody and not the
/// same, neither is believed.
pub fn peer(trusted: &[Network], connection: IpAddr, headers: &HeaderMap) -> IpAddr {
    let connection = connection.to_canonical();
    let trusts = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !trusts(connection) {
        return connection;
    }
    let by_forwarded = walk(connection, trusts, headers, &header::FORWARDED, forwarded);
    let by_other = walk(connection, trusts, headers, &X_FORWARDED_FOR, x_forwarded_for);
    match (by_forwarded, by_other) {
        (Some(one), Some(other)) if one != other => connection,
        (Some(found), _) | (None, Some(found)) => found,
        (None, None) => connection,
    }
}

/// The walk from the right over all lines of a field; `None` where there is no such field.
fn walk(
    connection: IpAddr,
    trusts: impl Fn(IpAddr) -> bool,
    headers: &HeaderMap,
    field: &HeaderName,
    entries: impl Fn(&str) -> Vec<Option<IpAddr>>,
) -> Option<IpAddr> {
    if !headers.contains_key(field) {
        return None;
    }
    let lines = headers.get_all(field).iter().map(HeaderValue::to_str);
    // A line that is no text ends the walk like an entry that cannot be read.
    let named = lines.flat_map(|line| line.map_or_else(|_| vec![None], &entries));
    let named: Vec<_> = named.collect();
    let mut found = connection;
    for entry in named.into_iter().rev() {
        match entry {
            Some(address) if trusts(found) => found = address,
            _ => break,
        }
    }
    Some(found)
}

/// `Forwarded = 1#forwarded-element`, `forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] )` (RFC 7239 §4).
fn forwarded(line: &str) -> Vec<Option<IpAddr>> {
    let elements = split(line, b',').into_iter().map(trim).filter(|element| !element.is_empty());
    elements.map(element).collect()
}

/// The address that an element's `for` names. "Each parameter MUST NOT occur more than once per field-value" (§4).
fn element(element: &str) -> Option<IpAddr> {
    let mut found = None;
    for pair in split(element, b';').into_iter().map(trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        let value = value_of(value)?;
        if name.eq_ignore_ascii_case("for") && found.replace(value).is_some() {
            return None;
        }
    }
    node(&found?)
}

/// A token, or a quoted string without its quotes. Addresses are often left unquoted: they are taken for tokens.
fn value_of(value: &str) -> Option<String> {
    let Some(rest) = value.strip_prefix('"') else {
        return (!value.is_empty() && !value.contains(['"', ' ', '\t'])).then(|| value.to_owned());
    };
    let (mut text, mut escaped) = (String::new(), false);
    for (at, character) in rest.char_indices() {
        match character {
            _ if escaped => {
                text.push(character);
                escaped = false;
            }
            '\\' => escaped = true,
            // Nothing may follow the end of the string.
            '"' => return (at + 1 == rest.len()).then_some(text),
            _ => text.push(character),
        }
    }
    None
}

/// One line of `X-Forwarded-For`: addresses, separated by commas.
fn x_forwarded_for(line: &str) -> Vec<Option<IpAddr>> {
    line.split(',').map(trim).filter(|entry| !entry.is_empty()).map(node).collect()
}

/// `node = nodename [ ":" node-port ]` (RFC 7239 §6), the address of it. An IPv6 address stands in brackets; without a port
/// it is known without them too, as `X-Forwarded-For` has it.
fn node(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_node_port);
        let address: std::net::Ipv6Addr = address.parse().ok()?;
        return is_port.then(|| IpAddr::from(address).to_canonical());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = text.split_once(':')?;
    let address: std::net::Ipv4Addr = address.parse().ok()?;
    is_node_port(port).then(|| IpAddr::from(address))
}

/// `node-port = port / obfport`, `port = 1*5DIGIT`, `obfport = "_" 1*(ALPHA / DIGIT / "." / "_" / "-")` (§6).
fn is_node_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(name) => {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        }
        None => (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// What stands between separators that are not within a quoted string; one that never ends reaches to the end.
fn split(text: &str, separator: u8) -> Vec<&str> {
    let (mut parts, mut from) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn bits_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first `length` bits of an address, the rest zero.
fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().expect("is a network")).collect()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("is an address")
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).expect("is a value"));
        }
        headers
    }

    #[test]
    fn networks_are_prefixes() {
        for (network, inside, outside) in [
            (
                "10.0.0.0/8",
                &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"][..],
                &["11.0.0.0", "9.255.255.255", "::a00:1"][..],
            ),
            ("192.0.2.7", &["192.0.2.7"], &["192.0.2.6", "192.0.2.8"]),
            ("0.0.0.0/0", &["255.255.255.255", "0.0.0.0"], &["::1"]),
            ("2001:db8::/32", &["2001:db8:ffff::1"], &["2001:db9::", "10.0.0.1"]),
            ("::/0", &["::1"], &["10.0.0.1"]),
            ("::ffff:10.0.0.0/104", &["10.1.2.3"], &["11.0.0.0"]),
        ] {
            let network: Network = network.parse().expect("is a network");
            assert!(inside.iter().all(|inside| network.contains(address(inside))), "{network}");
            assert!(!outside.iter().any(|outside| network.contains(address(outside))), "{network}");
        }
        for wrong in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::ffff:10.0.0.0/8",
            "host/8",
        ] {
            assert_eq!(wrong.parse::<Network>(), Err(NoNetwork::Unreadable), "{wrong}");
        }
        let beyond = "10.1.2.3/8".parse::<Network>();
        assert_eq!(beyond, Err(NoNetwork::Beyond("10.0.0.0/8".parse().expect("is a network"))));
    }

    #[test]
    fn entries_are_addresses_or_nothing() {
        for (line, entries) in [
            ("for=192.0.2.60;proto=http;by=203.0.113.43", &[Some("192.0.2.60")][..]),
            ("for=192.0.2.43, for=198.51.100.17", &[Some("192.0.2.43"), Some("198.51.100.17")]),
            ("For=\"[2001:db8:cafe::17]:4711\"", &[Some("2001:db8:cafe::17")]),
            ("for=\"[2001:db8::1]\";by=x", &[Some("2001:db8::1")]),
            ("for=\"192.0.2.1:47011\"", &[Some("192.0.2.1")]),
            ("for=192.0.2.1:47011", &[Some("192.0.2.1")]),
            ("for=\"192.0.2.1:_port\"", &[Some("192.0.2.1")]),
            ("for=\"\\1\\9\\2.0.2.1\"", &[Some("192.0.2.1")]),
            ("proto=https;for=192.0.2.1", &[Some("192.0.2.1")]),
            ("by=\"a,b;c\";for=192.0.2.1, ,;for=192.0.2.2", &[Some("192.0.2.1"), Some("192.0.2.2")]),
            ("for=_hidden, for=unknown, proto=http", &[None, None, None]),
            ("for=192.0.2.1;for=192.0.2.2", &[None]),
            ("for=\"192.0.2.1", &[None]),
            ("for=\"192.0.2.1\"x", &[None]),
            ("for=\"192.0.2.1, for=192.0.2.2", &[None]),
            ("for= 192.0.2.1", &[None]),
            ("192.0.2.1", &[None]),
            ("for=192.0.2.1:123456", &[None]),
            ("for=\"[192.0.2.1]\"", &[None]),
            ("for=\"[2001:db8::1]:\"", &[None]),
            ("", &[]),
        ] {
            let expected: Vec<_> = entries.iter().map(|entry| entry.map(address)).collect();
            assert_eq!(forwarded(line), expected, "{line}");
        }
        for (line, entries) in [
            ("192.0.2.1, 10.0.0.1", &[Some("192.0.2.1"), Some("10.0.0.1")][..]),
            (
                "2001:db8::1,[2001:db8::2], [2001:db8::3]:80",
                &[Some("2001:db8::1"), Some("2001:db8::2"), Some("2001:db8::3")],
            ),
            ("192.0.2.1:80,,", &[Some("192.0.2.1")]),
            ("::ffff:192.0.2.1", &[Some("192.0.2.1")]),
            ("unknown, 192.0.2.256, for=192.0.2.1", &[None, None, None]),
        ] {
            let expected: Vec<_> = entries.iter().map(|entry| entry.map(address)).collect();
            assert_eq!(x_forwarded_for(line), expected, "{line}");
        }
    }

    #[test]
    fn the_way_back_is_walked_as_far_as_it_is_trusted() {
        let trusted = networks(&["10.0.0.0/8", "2001:db8::/32"]);
        let (ours, strange) = ("10.0.0.1", "192.0.2.1");
        for (connection, fields, found) in [
            (ours, &[][..], ours),
            (ours, &[("forwarded", "for=192.0.2.9")], "192.0.2.9"),
            ("::ffff:10.0.0.1", &[("forwarded", "for=192.0.2.9")], "192.0.2.9"),
            (strange, &[("forwarded", "for=192.0.2.9")], strange),
            (ours, &[("forwarded", "for=6.6.6.6, for=192.0.2.9")], "192.0.2.9"),
            (ours, &[("forwarded", "for=6.6.6.6, for=192.0.2.9, for=10.2.3.4")], "192.0.2.9"),
            (ours, &[("forwarded", "for=6.6.6.6"), ("forwarded", "for=192.0.2.9")], "192.0.2.9"),
            (ours, &[("forwarded", "for=10.0.0.3, for=10.0.0.2")], "10.0.0.3"),
            (ours, &[("forwarded", "for=6.6.6.6, for=_hidden, for=10.0.0.2")], "10.0.0.2"),
            (ours, &[("forwarded", "for=6.6.6.6, for=unknown")], ours),
            (ours, &[("forwarded", "for=\"[2001:db8::7]:80\"")], "2001:db8::7"),
            (ours, &[("x-forwarded-for", "6.6.6.6, 192.0.2.9, 10.0.0.2")], "192.0.2.9"),
            (ours, &[("x-forwarded-for", "6.6.6.6, what")], ours),
            (ours, &[("forwarded", "for=192.0.2.9"), ("x-forwarded-for", "192.0.2.9")], "192.0.2.9"),
            // One of the two was passed on as it came, and nobody knows which.
            (ours, &[("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "192.0.2.9")], ours),
        ] {
            assert_eq!(peer(&trusted, address(connection), &headers(fields)), address(found), "{fields:?}");
        }
    }

    proptest! {
        /// Whatever a client sends, the proxy's word about it stands: it is that client, or the proxy itself.
        #[test]
        fn nobody_can_name_another_in_their_place(
            own in "[ -~\t]{0,60}",
            own_too in "[ -~\t]{0,60}",
            client in 1_u32..0x0a00_0000,
            one_line in any::<bool>(),
            other in prop::option::of("[ -~]{0,30}"),
        ) {
            let trusted = networks(&["10.0.0.0/8"]);
            let (proxy, client) = (address("10.0.0.1"), IpAddr::V4(client.into()));
            for (field, another, word) in [
                ("forwarded", "x-forwarded-for", format!("for={client}")),
                ("forwarded", "x-forwarded-for", format!("for=\"{client}:80\";proto=http")),
                ("x-forwarded-for", "forwarded", client.to_string()),
            ] {
                let mut fields = vec![(field, own.clone())];
                match one_line {
                    true => fields.push((field, format!("{own_too}, {word}"))),
                    false => fields.extend([(field, own_too.clone()), (field, word)]),
                }
                fields.extend(other.clone().map(|other| (another, other)));
                let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, &**value)).collect();
                let found = peer(&trusted, proxy, &headers(&fields));
                prop_assert!(found == client || found == proxy, "{:?}: {}", fields, found);
            }
        }

        #[test]
        fn an_untrusted_connection_is_its_own_word(own in "[ -~]{0,80}", from in any::<u32>()) {
            let from = IpAddr::V4(from.into());
            let none = peer(&[], from, &headers(&[("forwarded", &own), ("x-forwarded-for", &own)]));
            prop_assert_eq!(none, from);
        }

        #[test]
        fn a_network_is_written_as_it_is_read(bits in any::<u128>(), length in 0_u8..=128) {
            let first = masked(IpAddr::V6(bits.into()), length);
            prop_assume!(first == first.to_canonical());
            let network = Network { first, length };
            prop_assert_eq!(network.to_string().parse(), Ok(network));
            prop_assert!(network.contains(IpAddr::V6(bits.into())));
        }
    }
}
